//! How requests go from a prefill engine to a decode engine (`docs/spec.md`, section 12).

use super::plan::Reservation;
use super::slot::State;
use super::waiting::Waiting;
use super::{Scheduler, StepPlan};
use crate::config::{EngineSettings, Role};
use crate::ids::SlotId;

/// Requests on their way into a decode engine.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    /// Requests whose keys and values are on their way.
    receiving: u32,
    /// Requests whose keys and values have arrived, to be admitted before all others.
    received: Waiting,
    /// Requests whose blocks the latest schedules reserved.
    pub(crate) reserved: Vec<Reservation>,
}

impl Inbox {
    /// None for engines that do not decode only.
    pub(super) fn of(settings: &EngineSettings) -> Option<Box<Self>> {
        (settings.role == Role::Decode).then(|| {
            Box::new(Self {
                receiving: 0,
                received: Waiting::new(settings.scheduling_policy),
                reserved: Vec::new(),
            })
        })
    }

    pub(super) fn len(&self) -> usize {
        self.receiving as usize + self.received.len()
    }
}

impl Scheduler {
    /// A request has its first token: it leaves the running requests, its blocks stay.
    pub(super) fn hold(&mut self, id: SlotId) {
        self.running.remove(&mut self.slots, id);
        self.slots[id].state = State::Sending;
    }

    /// Whether a request's blocks are needed elsewhere, so that it may not be preempted.
    pub(super) fn is_promised(&self, id: SlotId) -> bool {
        let slot = &self.slots[id];
        slot.hands_over && slot.state == State::Leaving
    }

    /// The requests that hand over when this step has ended.
    pub(crate) fn handing_over<'plan>(
        &'plan self,
        plan: &'plan StepPlan,
    ) -> impl Iterator<Item = (u32, SlotId)> + 'plan {
        let of = |&id: &SlotId| {
            let slot = &self.slots[id];
            slot.hands_over.then_some((slot.request, id))
        };
        plan.finishing.iter().filter_map(of)
    }

    /// The blocks of a request have been sent: they are free, and findable.
    pub(crate) fn sent(&mut self, id: SlotId) {
        self.leave_transfer(id);
        self.kv.forget(id);
        self.slots.release(id);
    }

    /// A request gives back what it holds while its keys and values are between two engines.
    pub(super) fn leave_transfer(&mut self, id: SlotId) {
        let state = self.slots[id].state;
        if let Some(inbox) = &mut self.inbox {
            match state {
                State::Receiving => inbox.receiving -= 1,
                State::Received => inbox.received.remove(&self.slots, id),
                _ => {}
            }
        }
        let slot = &self.slots[id];
        // The decode engine has reserved its next token's block too.
        let held = if state == State::Sending { slot.computed } else { slot.num_tokens };
        let findable = if state == State::Receiving { 0 } else { slot.computed };
        let (blocks, full) = (self.kv.blocks_for(held), self.kv.full_blocks(findable));
        self.kv.release(blocks, full, self.shared.of(slot.request), id, false);
    }

    /// Reserve the blocks of the first waiting request, room for its next token included; false if
    /// there is no room.
    pub(super) fn reserve(&mut self, id: SlotId) -> bool {
        let slot = &self.slots[id];
        let (request, total) = (slot.request, slot.num_tokens);
        let shared = self.shared.of(request);
        let watermark = if self.running.len() > 0 { self.settings.watermark_blocks } else { 0 };
        let room = self.kv.free().saturating_sub(watermark);
        let hit = self.kv.look_up(shared, id, self.kv.full_blocks(total - 1));
        let new = self.kv.blocks_for(total) - hit.blocks();
        if new + hit.taken_from_free() > room {
            return false;
        }
        let cached = self.kv.tokens_in(hit.blocks());
        self.kv.take_hit(hit, shared, id);
        self.kv.take(new);
        let slot = &mut self.slots[id];
        slot.state = State::Receiving;
        slot.computed = total - 1;
        self.waiting.pop_front();
        let reservation = Reservation { request, slot: id, tokens: total - 1 - cached, cached };
        if let Some(inbox) = &mut self.inbox {
            inbox.receiving += 1;
            inbox.reserved.push(reservation);
        }
        true
    }

    /// The keys and values of a request have arrived: its full blocks are findable.
    pub(crate) fn receive(&mut self, id: SlotId) {
        let slot = &mut self.slots[id];
        let full = self.kv.full_blocks(slot.computed);
        self.kv.register(self.shared.of(slot.request), full, id);
        slot.state = State::Received;
        if let Some(inbox) = &mut self.inbox {
            inbox.receiving -= 1;
            inbox.received.push(&self.slots, id);
        }
    }

    /// Admit the first request that lacks nothing but its next token; false if there is none.
    pub(super) fn admit_received(&mut self, plan: &mut StepPlan) -> bool {
        let Some(inbox) = &mut self.inbox else { return false };
        let Some(id) = inbox.received.front() else { return false };
        inbox.received.pop_front();
        self.slots[id].state = State::Prefill;
        self.running.push(&mut self.slots, id);
        self.give(id, 1, plan);
        true
    }

    /// What only decode engines have.
    pub(crate) fn inbox(&mut self) -> Option<&mut Inbox> {
        self.inbox.as_deref_mut()
    }
}
