//! vLLM V1's scheduling rules (docs/spec.md, sections 4 to 8).
//!
//! Two implementations of the running pass live here. The fast one applies when everything that
//! runs gets what it asks for: it adds one step to all decoding requests at once. Otherwise the
//! other walks the running requests one by one, as the rules read.

mod decode_set;
mod slot;
mod waiting;

use crate::config::{Batching, EngineSettings};
use crate::cost::StepShape;
use crate::kv_cache::KvCache;
use crate::time::SimTime;
use decode_set::DecodeSet;
use slot::{NONE, Running, Slot, SlotId, Slots, State};
use waiting::Waiting;

/// An unbroken row of steps in each of which a request got a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) request: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// What one call of the scheduler decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepPlan {
    /// Number of the step in its engine.
    pub(crate) step: u32,
    pub(crate) shape: StepShape,
    /// Requests that entered `running`, resumed ones among them.
    pub(crate) admitted: Vec<u32>,
    /// Requests that were preempted.
    pub(crate) preempted: Vec<u32>,
    /// Requests whose first token this step gives.
    pub(crate) first_tokens: Vec<u32>,
    /// Spans that ended before this step because a request was preempted or left out.
    pub(crate) broken_spans: Vec<Span>,
    /// Slots whose last token this step gives, in scheduled order.
    finishing: Vec<SlotId>,
}

impl StepPlan {
    fn reset(&mut self, step: u32) {
        self.step = step;
        self.shape = StepShape::default();
        self.admitted.clear();
        self.preempted.clear();
        self.first_tokens.clear();
        self.broken_spans.clear();
        self.finishing.clear();
    }

    /// Whether no request was scheduled.
    pub(crate) const fn is_empty(&self) -> bool {
        self.shape.tokens() == 0
    }
}

/// The queues and the cache of one engine.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    settings: EngineSettings,
    slots: Slots,
    waiting: Waiting,
    running: Running,
    decoding: DecodeSet,
    /// Running requests that still compute a prompt, in running order.
    prefilling: Vec<SlotId>,
    kv: KvCache,
    /// Admissions left in the open batch; unused by continuous batching.
    quota: u32,
    /// Scratch of the walk: (slot, tokens).
    rows: Vec<(SlotId, u32)>,
}

impl Scheduler {
    pub(crate) fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            slots: Slots::default(),
            waiting: Waiting::default(),
            running: Running::new(),
            decoding: DecodeSet::new(settings.block_size),
            prefilling: Vec::new(),
            kv: KvCache::new(settings.block_size, settings.usable_blocks()),
            quota: 0,
            rows: Vec::new(),
        }
    }

    pub(crate) const fn running(&self) -> u32 {
        self.running.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// A request joins the queue; `output` is what it will generate.
    pub(crate) fn enqueue(&mut self, request: u32, prompt: u32, output: u32, now: SimTime) {
        let id = self.slots.insert(Slot::new(request, prompt, output, now));
        self.waiting.push_back(id);
    }

    /// When a batch that waits for its window opens; None where nothing waits for time to pass.
    pub(crate) fn window_closes(&self) -> Option<SimTime> {
        let Batching::Windowed { window } = self.settings.batching else { return None };
        if self.running.len() > 0 {
            return None;
        }
        let first = self.waiting.front()?;
        self.slots[first].joined.after(window).ok()
    }

    /// Decide the next step (docs/spec.md, 4 and 5).
    pub(crate) fn schedule(&mut self, now: SimTime, step: u32, plan: &mut StepPlan) {
        plan.reset(step);
        self.open_batch(now);
        let cap = self.token_cap();
        let mut budget = self.settings.max_num_batched_tokens;
        if !self.advance_all(cap, &mut budget, plan) {
            self.walk_running(cap, &mut budget, plan);
        }
        if plan.preempted.is_empty() {
            self.admit(cap, budget, plan);
        }
        if plan.finishing.len() > 1 {
            let slots = &self.slots;
            plan.finishing.sort_unstable_by_key(|&id| slots[id].admission);
        }
    }

    /// Process the output of a step: requests whose last token it gave leave. `answered` is called
    /// with each one's request and the span that ends with this step.
    pub(crate) fn complete(&mut self, plan: &StepPlan, mut answered: impl FnMut(Span, u32)) {
        for &id in &plan.finishing {
            self.running.remove(&mut self.slots, id);
            let slot = &self.slots[id];
            self.kv.release(self.kv.blocks_for(slot.computed));
            let span = Span { request: slot.request, first: slot.span_first, last: plan.step };
            answered(span, slot.output);
            self.slots.release(id);
        }
    }

    /// Tokens that one request may get in this step (4.2).
    fn token_cap(&self) -> u32 {
        let threshold = self.settings.long_prefill_token_threshold;
        let alone = self.running.len() as usize + self.waiting.len() <= 1;
        if threshold == 0 || alone { u32::MAX } else { threshold }
    }

    /// The running pass where everyone gets what it asks for; false, and nothing done, elsewhere.
    fn advance_all(&mut self, cap: u32, budget: &mut u32, plan: &mut StepPlan) -> bool {
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
        left = *budget - decoding;
        if decoding > 0 {
            self.advance_decoding(plan);
        }
        if !self.prefilling.is_empty() {
            let prefilling = std::mem::take(&mut self.prefilling);
            for &id in &prefilling {
                let slot = &self.slots[id];
                let tokens = (slot.num_tokens - slot.computed).min(cap).min(left);
                if tokens > 0 {
                    left -= tokens;
                    self.give(id, tokens, plan);
                }
            }
            self.prefilling = prefilling;
            let slots = &self.slots;
            self.prefilling.retain(|&id| slots[id].state == State::Prefill);
        }
        *budget = left;
        true
    }

    fn advance_decoding(&mut self, plan: &mut StepPlan) {
        let seqs = u64::from(self.decoding.len());
        plan.shape.add_decode(seqs, self.decoding.context());
        plan.shape.sampled_seqs += seqs;
        self.decoding.advance(&self.slots, &mut plan.finishing);
        for &id in &plan.finishing {
            self.decoding.leave(&mut self.slots, id);
            self.slots[id].state = State::Leaving;
        }
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
                State::Waiting | State::Decode | State::Ready => return false,
            }
            id = self.slots[id].prev;
        }
        true
    }

    /// The running pass one by one (4.3 to 4.5).
    fn walk_running(&mut self, cap: u32, budget: &mut u32, plan: &mut StepPlan) {
        self.dissolve(plan.step);
        let mut rows = std::mem::take(&mut self.rows);
        let mut id = self.running.head();
        while id != NONE && *budget > 0 {
            let slot = &self.slots[id];
            if slot.state != State::Leaving {
                let computed = slot.computed;
                let tokens = (slot.num_tokens - computed).min(cap).min(*budget);
                let blocks = self.kv.blocks_to_extend(computed, tokens);
                if !self.make_room(blocks, id, plan) {
                    break;
                }
                self.kv.take(blocks);
                *budget -= tokens;
                rows.push((id, tokens));
            }
            id = self.slots[id].next;
        }
        for (id, tokens) in rows.drain(..) {
            self.give(id, tokens, plan);
        }
        self.rows = rows;
        self.regroup(plan);
    }

    /// Preempt from the end of `running` until `blocks` are free; false if that took `id` itself.
    fn make_room(&mut self, blocks: u32, id: SlotId, plan: &mut StepPlan) -> bool {
        while blocks > self.kv.free() {
            let victim = self.running.tail();
            self.preempt(victim, plan);
            if victim == id {
                return false;
            }
        }
        true
    }

    fn preempt(&mut self, id: SlotId, plan: &mut StepPlan) {
        self.running.remove(&mut self.slots, id);
        self.break_span(id, plan);
        let slot = &mut self.slots[id];
        self.kv.release(self.kv.blocks_for(slot.computed));
        slot.computed = 0;
        slot.state = State::Waiting;
        plan.preempted.push(slot.request);
        self.waiting.push_front(id);
    }

    /// Take every decoding request out of the sums, to be looked at one by one.
    fn dissolve(&mut self, step: u32) {
        let mut id = self.running.head();
        while id != NONE {
            if self.slots[id].state == State::Decode {
                self.decoding.leave(&mut self.slots, id);
                let slot = &mut self.slots[id];
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
        self.prefilling.clear();
        let mut id = self.running.head();
        while id != NONE {
            match self.slots[id].state {
                State::Prefill => self.prefilling.push(id),
                State::Ready => {
                    self.break_span(id, plan);
                    self.slots[id].span_first = plan.step + 1;
                    self.decoding.join(&mut self.slots, id);
                }
                State::Waiting | State::Decode | State::Leaving => {}
            }
            id = self.slots[id].next;
        }
    }

    /// The waiting pass (5.2 to 5.4).
    fn admit(&mut self, cap: u32, mut budget: u32, plan: &mut StepPlan) {
        while budget > 0 && self.running.len() < self.settings.max_num_seqs && self.batch_is_open()
        {
            let Some(id) = self.waiting.front() else { break };
            let total = self.slots[id].num_tokens;
            let wanted = total.min(cap);
            if !self.settings.enable_chunked_prefill && wanted > budget {
                break;
            }
            if self.kv.blocks_for(total) > self.kv.free() {
                self.quota = 0;
                break;
            }
            let tokens = wanted.min(budget);
            budget -= tokens;
            self.kv.take(self.kv.blocks_for(tokens));
            self.waiting.pop_front();
            self.quota = self.quota.saturating_sub(1);
            self.running.push(&mut self.slots, id);
            self.slots[id].state = State::Prefill;
            plan.admitted.push(self.slots[id].request);
            self.give(id, tokens, plan);
            if self.slots[id].state == State::Prefill {
                self.prefilling.push(id);
            }
        }
    }

    /// Schedule `tokens` tokens of a request whose blocks are taken, and move it on.
    fn give(&mut self, id: SlotId, tokens: u32, plan: &mut StepPlan) {
        let slot = &mut self.slots[id];
        if tokens == 1 && slot.computed >= slot.prompt {
            plan.shape.add_decode(1, u64::from(slot.computed) + 1);
        } else {
            plan.shape.add_prefill(u64::from(slot.computed), u64::from(tokens));
        }
        slot.computed += tokens;
        if slot.computed < slot.num_tokens {
            return;
        }
        slot.num_tokens += 1;
        plan.shape.sampled_seqs += 1;
        if slot.generated() == 1 {
            plan.first_tokens.push(slot.request);
        }
        if slot.span_first == NONE {
            slot.span_first = plan.step;
        }
        slot.span_last = plan.step;
        if slot.generated() == slot.output {
            slot.state = State::Leaving;
            plan.finishing.push(id);
        } else {
            self.decoding.join(&mut self.slots, id);
        }
    }

    fn break_span(&mut self, id: SlotId, plan: &mut StepPlan) {
        let slot = &mut self.slots[id];
        if slot.span_first != NONE {
            let (request, first, last) = (slot.request, slot.span_first, slot.span_last);
            plan.broken_spans.push(Span { request, first, last });
            slot.span_first = NONE;
        }
    }

    /// Static and windowed batching (7): open a batch when nothing runs.
    fn open_batch(&mut self, now: SimTime) {
        if self.settings.batching == Batching::Continuous || self.running.len() > 0 {
            return;
        }
        // A queue longer than u32 cannot be: requests are numbered by u32.
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let full = waiting >= self.settings.max_num_seqs;
        if full || self.window_closes().is_none_or(|closes| closes <= now) {
            self.quota = waiting.min(self.settings.max_num_seqs);
        }
    }

    fn batch_is_open(&self) -> bool {
        self.settings.batching == Batching::Continuous || self.quota > 0
    }
}
