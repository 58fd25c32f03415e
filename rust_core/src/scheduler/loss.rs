//! Requests that leave an engine without having finished (`docs/spec.md`, section 13).

use std::collections::VecDeque;
use std::sync::Arc;

use super::slot::State;
use super::{Flight, Scheduler, Span};
use crate::ids::{NONE, SlotId};

/// What a request that left had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) request: u32,
    /// Tokens whose steps have ended.
    pub(crate) generated: u32,
    /// The steps that gave it tokens since it was admitted last.
    pub(crate) span: Option<Span>,
    /// Whether an earlier span counts a token whose step has not ended.
    pub(crate) token_was_due: bool,
}

impl Scheduler {
    /// Everything here is gone. The requests in order, with what they had; `next_step` will be the
    /// number of the next step.
    pub(crate) fn lose_all(&mut self, next_step: u32) -> Vec<Lost> {
        let taken = self.slots.taken();
        let mut lost: Vec<Lost> = taken.into_iter().map(|id| self.lose(id, next_step)).collect();
        lost.sort_unstable_by_key(|lost| lost.request);
        let fresh = Self::new(Arc::clone(&self.settings), self.shared.clone(), self.explicit);
        *self = Self { processed: next_step, ..fresh };
        lost
    }

    /// Take a request out, wherever it is, and give its blocks back.
    pub(crate) fn abort(
        &mut self,
        id: SlotId,
        next_step: u32,
        in_flight: &mut VecDeque<Flight>,
    ) -> Lost {
        let lost = self.lose(id, next_step);
        let state = self.slots[id].state;
        if matches!(state, State::Waiting | State::LeavingPreempted | State::Remote) {
            self.waiting.remove(&self.slots, id);
        } else if matches!(state, State::Sending | State::Receiving | State::Received) {
            self.leave_transfer(id);
        } else {
            self.running.remove(&mut self.slots, id);
            self.prefilling.retain(|&other| other != id);
            let slot = &self.slots[id];
            let computed = slot.computed;
            // What followed a token that was itself on its way is registered a step later.
            let first = if slot.span_first == NONE { slot.broken_first } else { slot.span_first };
            let latest = in_flight.iter().find(|flight| flight.step == slot.span_last);
            let behind = latest.is_some_and(|flight| flight.overlaps && first != flight.step);
            let findable = computed - u32::from(behind);
            let (blocks, full) = (self.kv.blocks_for(computed), self.kv.full_blocks(findable));
            self.kv.release(blocks, full, self.shared.of(slot.request), id, false);
        }
        self.kv.forget(id);
        for flight in in_flight {
            flight.forget(id, lost.request);
        }
        self.slots.release(id);
        lost
    }

    /// What a request had got, were it to leave now; it leaves the sums of decoding requests.
    fn lose(&mut self, id: SlotId, next_step: u32) -> Lost {
        if self.slots[id].state == State::Decode {
            self.decoding.leave(&mut self.slots, id);
            let slot = &mut self.slots[id];
            if slot.span_first == next_step {
                // It joined without a token in the step before and never ticked.
                slot.span_first = NONE;
            } else {
                slot.span_last = next_step - 1;
            }
        }
        let slot = &self.slots[id];
        let (request, generated, first) = (slot.request, slot.generated(), slot.span_first);
        if slot.state == State::Sending {
            // Its step has ended and is on record.
            return Lost { request, generated, span: None, token_was_due: false };
        }
        if first == NONE {
            let token_was_due = slot.span_last != NONE && slot.span_last >= self.processed;
            let generated = generated - u32::from(token_was_due);
            return Lost { request, generated, span: None, token_was_due };
        }
        // Steps from `processed` on have not ended.
        let last = slot.span_last;
        let due = (last + 1).saturating_sub(first.max(self.processed));
        let span = (self.processed > first).then(|| Span {
            request,
            first,
            last: last.min(self.processed - 1),
        });
        Lost { request, generated: generated - due, span, token_was_due: false }
    }
}
