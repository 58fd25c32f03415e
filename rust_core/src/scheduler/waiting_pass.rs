//! The waiting pass (`docs/spec.md`, section 5).

use super::plan::Admission;
use super::slot::State;
use super::{Scheduler, StepPlan};
use crate::ids::{NONE, SlotId};

impl Scheduler {
    /// Admit waiting requests while there is budget, a place and room (5.2 to 5.4).
    pub(super) fn admit(&mut self, cap: u32, mut budget: u32, plan: &mut StepPlan) {
        let mut passed_over = Vec::new();
        while budget > 0 && self.running.len() < self.settings.max_num_seqs && self.batch_is_open()
        {
            if self.inbox.is_some() && self.admit_received(plan) {
                budget -= 1;
                continue;
            }
            let Some(id) = self.waiting.front() else { break };
            if self.slots[id].state == State::Remote {
                if self.reserve(id) {
                    continue;
                }
                break;
            }
            if self.awaits_token(id) {
                self.waiting.pop_front();
                passed_over.push(id);
                continue;
            }
            match self.try_admit(id, cap, budget, plan) {
                Some(tokens) => budget -= tokens,
                None => break,
            }
        }
        while let Some(id) = passed_over.pop() {
            self.waiting.put_back(&self.slots, id);
        }
    }

    /// Whether a preempted request's latest token is still on its way (5.6).
    fn awaits_token(&self, id: SlotId) -> bool {
        let slot = &self.slots[id];
        slot.state == State::LeavingPreempted
            || (slot.token_due != NONE && slot.token_due >= self.processed)
    }

    /// Admit the first waiting request; its tokens, or None if it must wait.
    fn try_admit(&mut self, id: SlotId, cap: u32, budget: u32, plan: &mut StepPlan) -> Option<u32> {
        let slot = &self.slots[id];
        let (request, total) = (slot.request, slot.num_tokens);
        let shared = self.shared.of(request);
        let limit = self.kv.full_blocks(total - 1);
        let watermark = if self.running.len() > 0 { self.settings.watermark_blocks } else { 0 };
        let room = self.kv.free().saturating_sub(watermark);
        if self.settings.scheduler_reserve_full_isl {
            // Only blocks that others hold come for nothing: without them there is no need to look.
            let most_in_use = limit.min(u32::try_from(shared.len()).unwrap_or(limit));
            if self.kv.blocks_for(total) - most_in_use > room {
                self.quota = 0;
                return None;
            }
        }
        let hit = self.kv.look_up(shared, id, limit);
        let cached = self.kv.tokens_in(hit.blocks());
        let wanted = (total - cached).min(cap);
        if !self.settings.enable_chunked_prefill && wanted > budget {
            return None;
        }
        let tokens = wanted.min(budget);
        let asked = if self.settings.scheduler_reserve_full_isl { total } else { cached + tokens };
        if self.kv.blocks_for(asked) - hit.blocks() + hit.taken_from_free() > room {
            self.quota = 0;
            return None;
        }
        self.kv.take_hit(hit, shared, id);
        self.kv.take(self.kv.blocks_for(cached + tokens) - hit.blocks());
        let slot = &mut self.slots[id];
        slot.computed = cached;
        slot.state = State::Prefill;
        slot.token_due = NONE;
        self.waiting.pop_front();
        self.quota = self.quota.saturating_sub(1);
        self.running.push(&mut self.slots, id);
        plan.admitted.push(Admission { request, cached, queried: total });
        self.give(id, tokens, plan);
        if self.slots[id].state == State::Prefill {
            self.prefilling.push(id);
        }
        Some(tokens)
    }
}
