//! The running pass (`docs/spec.md`, section 4).

use super::slot::State;
use super::{Scheduler, StepPlan};
use crate::config::SchedulingPolicy;
use crate::ids::{NONE, SlotId};

impl Scheduler {
    /// The running pass where everyone gets what it asks for; false, and nothing done, elsewhere.
    pub(super) fn advance_all(&mut self, cap: u32, budget: &mut u32, plan: &mut StepPlan) -> bool {
        let decoding = self.decoding.len();
        if decoding > *budget {
            return false;
        }
        let mut left = *budget - decoding;
        let mut blocks = self.decoding.blocks_needed();
        if !self.prefilling.is_empty() {
            // Requests are served in running order: a prefill may use up the budget only if no
            // decoding request comes after it.
            if self.prefill_demand(cap) > u64::from(left) && !self.prefills_come_last() {
                return false;
            }
            for &id in &self.prefilling {
                let slot = &self.slots[id];
                let tokens = (slot.num_tokens - slot.computed).min(cap).min(left);
                blocks += self.kv.blocks_to_extend(slot.computed, tokens);
                left -= tokens;
            }
        }
        if blocks > self.kv.free() {
            return false;
        }
        self.kv.take(blocks);
        *budget -= decoding;
        if decoding > 0 {
            self.advance_decoding(plan);
        }
        if !self.prefilling.is_empty() {
            self.advance_prefills(cap, budget, plan);
        }
        true
    }

    fn advance_decoding(&mut self, plan: &mut StepPlan) {
        let seqs = u64::from(self.decoding.len());
        plan.shape.add_decode(seqs, self.decoding.context(), self.decoding.windowed_context());
        plan.shape.sampled_seqs += seqs;
        self.advance_sums(plan);
    }

    /// All decoding requests get a token from the step of `plan`.
    pub(super) fn advance_sums(&mut self, plan: &mut StepPlan) {
        self.decoding.advance(&mut self.slots, &mut plan.finishing);
        for &id in &plan.finishing {
            self.slots[id].state = State::Leaving;
            self.slots[id].span_last = plan.step;
        }
    }

    fn advance_prefills(&mut self, cap: u32, budget: &mut u32, plan: &mut StepPlan) {
        let mut prefilling = std::mem::take(&mut self.prefilling);
        prefilling.retain(|&id| {
            let slot = &self.slots[id];
            let tokens = (slot.num_tokens - slot.computed).min(cap).min(*budget);
            if tokens > 0 {
                *budget -= tokens;
                self.give(id, tokens, plan);
            }
            self.slots[id].state == State::Prefill
        });
        self.prefilling = prefilling;
    }

    fn prefill_demand(&self, cap: u32) -> u64 {
        let demand = |&id: &SlotId| {
            let slot = &self.slots[id];
            u64::from((slot.num_tokens - slot.computed).min(cap))
        };
        self.prefilling.iter().map(demand).sum()
    }

    fn prefills_come_last(&self) -> bool {
        let mut id = self.running.tail();
        let mut prefills = 0;
        while prefills < self.prefilling.len() {
            match self.slots[id].state {
                State::Prefill => prefills += 1,
                State::Leaving => {}
                _ => return false,
            }
            id = self.slots[id].prev;
        }
        true
    }

    /// The running pass one by one (4.3 to 4.5).
    pub(super) fn walk_running(&mut self, cap: u32, budget: &mut u32, plan: &mut StepPlan) {
        self.dissolve(plan.step);
        self.scheduled.clear();
        let mut id = self.running.head();
        while id != NONE && *budget > 0 {
            let slot = &self.slots[id];
            if !matches!(slot.state, State::Leaving | State::InPipeline) {
                let computed = slot.computed;
                let tokens = (slot.num_tokens - computed).min(cap).min(*budget);
                let blocks = self.kv.blocks_to_extend(computed, tokens);
                if !self.make_room(blocks, id, budget, plan) {
                    break;
                }
                self.kv.take(blocks);
                *budget -= tokens;
                self.scheduled.push((id, tokens));
            }
            id = self.slots[id].next;
        }
        let mut scheduled = std::mem::take(&mut self.scheduled);
        for (id, tokens) in scheduled.drain(..) {
            self.give(id, tokens, plan);
        }
        self.scheduled = scheduled;
        self.regroup(plan);
    }

    /// Preempt until `blocks` are free; false if that took `id` itself.
    fn make_room(
        &mut self,
        blocks: u32,
        id: SlotId,
        budget: &mut u32,
        plan: &mut StepPlan,
    ) -> bool {
        while blocks > self.kv.free() {
            let victim = self.victim();
            let place = self.scheduled.iter().position(|&(other, _)| other == victim);
            let given = place.map_or(0, |place| self.scheduled.remove(place).1);
            *budget += given;
            self.preempt(victim, given, plan);
            if victim == id {
                return false;
            }
        }
        true
    }

    /// The request that is preempted next; at least one runs.
    fn victim(&self) -> SlotId {
        if self.settings.scheduling_policy == SchedulingPolicy::Fcfs {
            let mut victim = self.running.tail();
            while self.is_promised(victim) {
                victim = self.slots[victim].prev;
            }
            return victim;
        }
        let key = |id: SlotId| {
            let order = self.slots.order(id);
            (order.priority, order.arrival)
        };
        let mut victim = NONE;
        let mut id = self.running.head();
        while id != NONE {
            if !self.is_promised(id) && (victim == NONE || key(id) > key(victim)) {
                victim = id;
            }
            id = self.slots[id].next;
        }
        victim
    }

    /// Preempt a request that was given `given` tokens in this pass.
    fn preempt(&mut self, id: SlotId, given: u32, plan: &mut StepPlan) {
        self.running.remove(&mut self.slots, id);
        let leaving = self.slots[id].state == State::Leaving;
        let slot = &self.slots[id];
        // With asynchronous scheduling its latest token may still be on its way.
        let token_due = slot.span_first != NONE && slot.span_last >= self.processed;
        let findable = if given > 0 {
            // Blocks are registered when they are taken, as far as their tokens are known.
            (slot.computed + given).min(slot.num_tokens - u32::from(token_due))
        } else {
            // The latest row was registered as far as its tokens were known when it was scheduled:
            // all of it, unless it followed a token that was itself on its way.
            slot.computed - u32::from(token_due && slot.span_first != slot.span_last)
        };
        let (blocks, full) =
            (self.kv.blocks_for(slot.computed + given), self.kv.full_blocks(findable));
        if !leaving {
            self.break_span(id, plan);
        }
        let slot = &mut self.slots[id];
        self.kv.release(blocks, full, self.shared.of(slot.request), id, true);
        slot.computed = 0;
        slot.token_due = if token_due { slot.span_last } else { NONE };
        slot.state = if leaving { State::LeavingPreempted } else { State::Waiting };
        plan.preempted.push(slot.request);
        self.waiting.put_back(&self.slots, id);
    }

    /// Take every decoding request out of the sums, to be looked at one by one.
    fn dissolve(&mut self, step: u32) {
        self.decoding.clear_calendar();
        let mut id = self.running.head();
        while id != NONE {
            if self.slots[id].state == State::Decode {
                let slot = &mut self.slots[id];
                self.decoding.write_back(slot);
                if slot.span_first == step {
                    // It joined without a token in the step before and never ticked.
                    slot.span_first = NONE;
                } else {
                    slot.span_last = step - 1;
                }
            }
            id = self.slots[id].next;
        }
    }

    /// After a walk: requests that got nothing go back to the sums.
    fn regroup(&mut self, plan: &mut StepPlan) {
        // A schedule that preempted and selected nothing makes no step: its number is used again.
        let next_step =
            if plan.is_empty() && !plan.preempted.is_empty() { plan.step } else { plan.step + 1 };
        self.prefilling.clear();
        let mut id = self.running.head();
        while id != NONE {
            match self.slots[id].state {
                State::Prefill => self.prefilling.push(id),
                State::Ready if !self.settings.is_pipelined() => {
                    self.break_span(id, plan);
                    self.slots[id].span_first = next_step;
                    self.decoding.join(&mut self.slots, id);
                }
                _ => {}
            }
            id = self.slots[id].next;
        }
    }
}
