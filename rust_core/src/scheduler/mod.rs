//! vLLM V1's scheduling rules (`docs/spec.md`, sections 4 to 8).
//!
//! Two implementations of the running pass live here. The fast one applies when everything that
//! runs gets what it asks for: it adds one step to all decoding requests at once. Otherwise the
//! other walks the running requests one by one, as the rules read; so it does where the layers lie
//! in several stages, since the requests in flight get no token in every step there.

mod decode_set;
mod handover;
mod loss;
mod plan;
mod running_pass;
mod slot;
mod waiting;
mod waiting_pass;
mod window_sums;

use std::sync::Arc;

use crate::config::{Batching, EngineSettings, Role, SchedulingPolicy, Window};
use crate::ids::{NONE, SlotId};
use crate::kv_cache::KvCache;
use crate::shared_blocks::SharedBlocks;
use crate::time::SimTime;
use decode_set::DecodeSet;
use handover::Inbox;
pub(crate) use loss::Lost;
pub use plan::Row;
pub(crate) use plan::{Flight, Reservation, Span, StepPlan};
use slot::{Running, Slots, State};
use waiting::Waiting;

/// A request as it joins an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewRequest {
    pub(crate) request: u32,
    pub(crate) prompt: u32,
    /// Tokens it will have generated when it leaves the engine.
    pub(crate) output: u32,
    pub(crate) priority: i64,
    /// Tie-breaker of the priority policy.
    pub(crate) arrival: u64,
    /// Tokens that were generated elsewhere.
    pub(crate) generated: u32,
    /// Whether a prefill engine has its keys and values.
    pub(crate) remote: bool,
    /// Whether its blocks are held after its last token here.
    pub(crate) hands_over: bool,
}

/// A request that got its last token here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The steps that ended with that token.
    pub(crate) span: Span,
    /// Tokens generated.
    pub(crate) output: u32,
    /// Its slot, where its blocks are held until a decode engine has them.
    pub(crate) held_by: Option<SlotId>,
}

/// Steps that the scheduler has nothing to decide in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steady {
    pub(crate) steps: u32,
    /// Whether the last of them gives some request its last token.
    pub(crate) ends_some: bool,
    /// Requests that get a token in each.
    pub(crate) seqs: u64,
    /// Keys that they read in the first.
    pub(crate) context: u64,
}

/// The queues and the cache of one engine.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    /// One copy for all engines of a pool.
    settings: Arc<EngineSettings>,
    shared: Arc<SharedBlocks>,
    slots: Slots,
    waiting: Waiting,
    running: Running,
    decoding: DecodeSet,
    /// Running requests that still compute a prompt, in running order.
    prefilling: Vec<SlotId>,
    kv: KvCache,
    /// Admissions left in the open batch; unused by continuous batching.
    quota: u32,
    /// Steps before this one have been processed.
    processed: u32,
    /// Whether requests are always walked one by one and every row is kept.
    explicit: bool,
    /// Scratch of the walk: (slot, tokens).
    scheduled: Vec<(SlotId, u32)>,
    /// What only decode engines have; apart, to keep the others small.
    inbox: Option<Box<Inbox>>,
}

impl Scheduler {
    pub(crate) fn new(
        settings: Arc<EngineSettings>,
        shared: Arc<SharedBlocks>,
        record_decisions: bool,
    ) -> Self {
        let ordered = settings.scheduling_policy == SchedulingPolicy::Priority
            || matches!(settings.batching, Batching::Windowed { .. });
        let contents = settings.enable_prefix_caching.then_some(shared.count());
        Self {
            shared,
            slots: Slots::new(ordered),
            waiting: Waiting::new(settings.scheduling_policy),
            running: Running::new(),
            decoding: DecodeSet::new(settings.block_size, settings.window),
            prefilling: Vec::new(),
            kv: KvCache::new(settings.block_size, settings.usable_blocks(), contents),
            quota: 0,
            processed: 0,
            explicit: record_decisions,
            scheduled: Vec::new(),
            inbox: Inbox::of(&settings),
            settings,
        }
    }

    #[inline]
    pub(crate) fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    pub(crate) const fn running(&self) -> u32 {
        self.running.len()
    }

    /// Whether any request is here.
    pub(crate) fn has_requests(&self) -> bool {
        self.running.len() > 0 || self.waiting() > 0
    }

    /// Requests that are here and do not run, besides those whose blocks are being sent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() + self.inbox.as_ref().map_or(0, |inbox| inbox.len())
    }

    /// The number of the oldest step whose output has not been processed.
    pub(crate) const fn processed(&self) -> u32 {
        self.processed
    }

    pub(crate) const fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// A request joins the queue.
    pub(crate) fn enqueue(&mut self, new: &NewRequest, now: SimTime) -> SlotId {
        let id = self.slots.insert(new, now);
        self.waiting.push(&self.slots, id);
        id
    }

    /// When a batch that waits for its window opens; None where nothing waits for time to pass.
    pub(crate) fn window_closes(&self) -> Option<SimTime> {
        let Batching::Windowed { window } = self.settings.batching else { return None };
        if self.running.len() > 0 {
            return None;
        }
        self.waiting.earliest(&self.slots)?.after(window).ok()
    }

    /// Decide the next step (`docs/spec.md`, 4 and 5).
    pub(crate) fn schedule(&mut self, now: SimTime, step: u32, plan: &mut StepPlan) {
        plan.reset(step);
        self.open_batch(now);
        let cap = self.token_cap();
        let mut budget = self.settings.max_num_batched_tokens;
        let one_by_one = self.explicit || self.settings.is_pipelined();
        if one_by_one || !self.advance_all(cap, &mut budget, plan) {
            self.walk_running(cap, &mut budget, plan);
        }
        let may_admit = self.waiting.len() > 0 || self.inbox.is_some();
        if may_admit && plan.preempted.is_empty() {
            self.admit(cap, budget, plan);
        }
        self.order_finishing(plan);
    }

    /// Sort the requests that get their last token by admission.
    fn order_finishing(&self, plan: &mut StepPlan) {
        if plan.finishing.len() > 1 {
            let slots = &self.slots;
            let oldest = slots[self.running.head()].admission;
            plan.finishing.sort_unstable_by_key(|&id| slots[id].admission.wrapping_sub(oldest));
        }
    }

    /// The next steps, if they are known: every running request decodes, none ends before the last
    /// of them, the blocks suffice and nobody waits.
    pub(crate) fn steady(&self, most: u32) -> Option<Steady> {
        let seqs = self.decoding.len();
        let steady = seqs > 0
            && seqs == self.running.len()
            && self.waiting.len() == 0
            && self.prefilling.is_empty()
            && self.inbox.is_none()
            && !self.explicit
            && self.settings.window == Window::None
            && self.settings.batching == Batching::Continuous
            && seqs <= self.settings.max_num_batched_tokens;
        if !steady {
            return None;
        }
        let to_last = self.decoding.ticks_to_last();
        let steps = u32::try_from(to_last).map_or(most, |ticks| ticks.min(most));
        let steps = self.decoding.ticks_within(steps, self.kv.free());
        let ends_some = u64::from(steps) == to_last;
        let (seqs, context) = (u64::from(seqs), self.decoding.context());
        (steps > 0).then_some(Steady { steps, ends_some, seqs, context })
    }

    /// Take that many of the steps that [`Scheduler::steady`] told of, none of which ends a request.
    pub(crate) fn coast(&mut self, steps: u32) {
        self.kv.take(self.decoding.blocks_in(steps));
        self.decoding.skip(steps);
    }

    /// Take the last of those steps, which ends some request.
    pub(crate) fn coast_to_end(&mut self, step: u32, plan: &mut StepPlan) {
        plan.reset(step);
        self.kv.take(self.decoding.blocks_needed());
        self.advance_sums(plan);
        self.order_finishing(plan);
    }

    /// The output of a step has been processed that changes the state of no request.
    pub(crate) const fn completed(&mut self, step: u32) {
        self.processed = step + 1;
    }

    /// Process the output of a step, the oldest one first: requests whose last token it gave leave.
    /// `ended` is called with each.
    pub(crate) fn complete(&mut self, flight: &Flight, mut ended: impl FnMut(Ended)) {
        self.processed = flight.step + 1;
        for &id in flight.awaited() {
            // One that was preempted meanwhile is told by `token_due`.
            if self.slots[id].state == State::InPipeline {
                self.slots[id].state = State::Ready;
            }
        }
        for &id in flight.finishing() {
            let slot = &self.slots[id];
            let span = Span { request: slot.request, first: slot.span_first, last: flight.step };
            let output = slot.output;
            if slot.hands_over {
                self.hold(id);
                ended(Ended { span, output, held_by: Some(id) });
                continue;
            }
            if slot.state == State::LeavingPreempted {
                self.waiting.remove(&self.slots, id);
            } else {
                let (blocks, full) =
                    (self.kv.blocks_for(slot.computed), self.kv.full_blocks(slot.computed));
                self.kv.release(blocks, full, self.shared.of(slot.request), id, false);
                self.running.remove(&mut self.slots, id);
            }
            self.kv.forget(id);
            ended(Ended { span, output, held_by: None });
            self.slots.release(id);
        }
    }

    /// Tokens that one request may get in this step (4.2).
    fn token_cap(&self) -> u32 {
        let threshold = self.settings.long_prefill_token_threshold;
        let requests = self.running.len() as usize + self.waiting();
        if threshold == 0 || requests <= 1 {
            return u32::MAX;
        }
        if !self.settings.long_prefill_token_threshold_adaptive {
            return threshold;
        }
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        threshold.max(self.settings.max_num_batched_tokens / requests)
    }

    /// Schedule `tokens` tokens of a request whose blocks are taken, and move it on.
    fn give(&mut self, id: SlotId, tokens: u32, plan: &mut StepPlan) {
        let slot = &mut self.slots[id];
        let computed = slot.computed;
        slot.computed += tokens;
        let yields = slot.computed == slot.num_tokens;
        if self.explicit {
            plan.rows.push(Row { request: slot.request, computed, tokens, yields, last: false });
        }
        if tokens == 1 && computed >= slot.prompt {
            let computed = u64::from(computed);
            plan.shape.add_decode(1, computed + 1, self.settings.window.keys(computed));
        } else {
            let window = self.settings.window;
            plan.shape.add_prefill(u64::from(computed), u64::from(tokens), window);
            let full = self.kv.full_blocks(slot.computed);
            self.kv.register(self.shared.of(slot.request), full, id);
        }
        if yields {
            self.give_token(id, plan);
        }
    }

    /// A request gets a token from this step: it decodes from the next one on, or leaves.
    fn give_token(&mut self, id: SlotId, plan: &mut StepPlan) {
        if self.settings.is_pipelined() {
            // Steps between this one and its last may have been those of others.
            self.break_span(id, plan);
        }
        let slot = &mut self.slots[id];
        slot.num_tokens += 1;
        plan.shape.sampled_seqs += 1;
        if slot.generated() == 1 {
            plan.first_tokens.push(slot.request);
        } else if slot.generated() == 2 && self.settings.role != Role::Aggregated {
            plan.second_tokens.push(slot.request);
        }
        if slot.span_first == NONE {
            slot.span_first = plan.step;
        }
        slot.span_last = plan.step;
        if slot.generated() == slot.output {
            slot.state = State::Leaving;
            plan.finishing.push(id);
            if self.explicit
                && let Some(row) = plan.rows.last_mut()
            {
                row.last = true;
            }
        } else if self.settings.is_pipelined() {
            slot.state = State::InPipeline;
            plan.awaited.push(id);
        } else {
            self.decoding.join(&mut self.slots, id);
        }
    }

    fn break_span(&mut self, id: SlotId, plan: &mut StepPlan) {
        let slot = &mut self.slots[id];
        if slot.span_first != NONE {
            let (request, first, last) = (slot.request, slot.span_first, slot.span_last);
            plan.broken_spans.push(Span { request, first, last });
            slot.broken_first = first;
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
