//! One serving engine: its scheduler, the stages of its pipeline and the steps in flight.

mod coast;
mod decision_log;
mod lockstep;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::{EngineSettings, Hop, Role};
use crate::cost::{CostModel, StepShape, StepTotals};
use crate::error::SimError;
use crate::ids::SlotId;
use crate::recorder::{Call, Decisions, RequestColumns, StepColumns, TraceHash, next_step};
use crate::scheduler::{Ended, Flight, Lost, NewRequest, Reservation, Scheduler, StepPlan};
use crate::shared_blocks::SharedBlocks;
use crate::step_ends::StepEnds;
use crate::time::SimTime;
use coast::Coast;
use lockstep::Lockstep;
pub(crate) use lockstep::{DUMMY, Decided, GroupStep};

/// Engines that are alike.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Their settings.
    pub settings: EngineSettings,
    /// What prices their steps: a model for each stage of their pipelines.
    pub stages: Vec<CostModel>,
    /// What lies between the stages: one less than these.
    pub hops: Vec<Hop>,
    /// How many there are.
    pub count: u32,
}

/// What scheduling led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A step was dispatched; it ends then.
    Step(SimTime),
    /// Nothing was selected, but requests were preempted and nothing runs: schedule again.
    Again,
    /// Nothing to do until a batch's window closes then.
    WaitUntil(SimTime),
    /// Nothing to do until a step ends or a request arrives.
    Idle,
}

/// What a run records, besides the request columns, where it is asked to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) requests: RequestColumns,
    pub(crate) steps: Option<StepColumns>,
    pub(crate) decisions: Option<Decisions>,
}

/// A stage of the pipeline after the first.
#[derive(Clone, Debug)]
struct Stage {
    /// From the stage before it.
    hop: Hop,
    /// When that has carried everything dispatched.
    hop_free: SimTime,
    cost: CostModel,
    /// When it has run everything dispatched.
    free: SimTime,
}

/// A serving engine. What nearly every event touches lies together, and what engines of a pool have
/// in common lies outside: with thousands of engines, each event finds its engine's memory cold.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    index: u32,
    /// Steps that may be dispatched before the output of the first is known.
    depth: u32,
    /// Of the first stage; most engines have no other.
    cost: Arc<CostModel>,
    coast: Coast,
    /// Dispatched steps, oldest first.
    in_flight: VecDeque<Flight>,
    /// When the first stage has run everything dispatched.
    device_free: SimTime,
    step_ends: StepEnds,
    hash: TraceHash,
    counts: EngineCounts,
    totals: StepTotals,
    scheduler: Scheduler,
    rare: Box<Rare>,
}

/// What few engines have, or few events touch.
#[derive(Clone, Debug)]
struct Rare {
    later_stages: Vec<Stage>,
    /// Logged calls whose output is not processed: (decision, whether it scheduled nothing).
    logged: VecDeque<(usize, bool)>,
    /// Most blocks in use before the engine died last.
    lost_peak: u32,
    /// Requests whose prompts the latest steps complete; None where that is not noted.
    handing: Option<Vec<Handing>>,
    /// What only engines that step together with others have.
    lockstep: Option<Lockstep>,
}

/// What engines of a pool share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    settings: Arc<EngineSettings>,
    cost: Arc<CostModel>,
    shared: Arc<SharedBlocks>,
}

impl Common {
    pub(crate) fn new(pool: &Pool, shared: Arc<SharedBlocks>) -> Self {
        Self { settings: Arc::new(pool.settings), cost: Arc::new(pool.stages[0].clone()), shared }
    }
}

/// A request whose prompt is complete when a step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handing {
    pub(crate) request: u32,
    pub(crate) slot: SlotId,
    pub(crate) start: SimTime,
    pub(crate) end: SimTime,
}

/// What an engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounts {
    /// Requests routed to it.
    pub requests: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Nanoseconds in which a step ran, in all stages together.
    pub busy_ns: u64,
    /// Tokens that admitted requests looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens that they found.
    pub prefix_hits: u64,
}

impl Engine {
    pub(crate) fn new(index: u32, pool: &Pool, common: &Common, record_decisions: bool) -> Self {
        let stage = |(cost, &hop): (&CostModel, &Hop)| Stage {
            hop,
            hop_free: SimTime::ZERO,
            cost: cost.clone(),
            free: SimTime::ZERO,
        };
        let settings = Arc::clone(&common.settings);
        let depth = settings.batches_in_flight();
        Self {
            index,
            // At least one, at most as many as there are stages: a u32, or 2.
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
            cost: Arc::clone(&common.cost),
            coast: Coast::default(),
            in_flight: VecDeque::with_capacity(depth),
            device_free: SimTime::ZERO,
            step_ends: StepEnds::default(),
            hash: TraceHash::default(),
            counts: EngineCounts::default(),
            totals: StepTotals::default(),
            scheduler: Scheduler::new(settings, Arc::clone(&common.shared), record_decisions),
            rare: Box::new(Rare {
                later_stages: pool.stages[1..].iter().zip(&pool.hops).map(stage).collect(),
                logged: VecDeque::new(),
                lost_peak: 0,
                handing: None,
                lockstep: common.settings.data_parallel_group.map(|_| Lockstep::default()),
            }),
        }
    }

    /// Its settings.
    #[inline]
    pub(crate) fn settings(&self) -> &EngineSettings {
        self.scheduler.settings()
    }

    /// Whether a step runs: arrivals are then seen when it ends.
    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether another step may be dispatched.
    pub(crate) fn can_dispatch(&self) -> bool {
        self.in_flight.len() < self.depth as usize
    }

    /// A request joins the queue.
    pub(crate) fn enqueue(
        &mut self,
        new: &NewRequest,
        now: SimTime,
        records: &mut Records,
    ) -> SlotId {
        self.counts.requests += 1;
        if let Some(decisions) = &mut records.decisions {
            decisions.log.push((self.index, Call::Add, new.request as usize));
        }
        self.scheduler.enqueue(new, now)
    }

    /// Requests that wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.scheduler.waiting()
    }

    /// When the next step ends.
    pub(crate) fn next_end(&self) -> Option<SimTime> {
        self.in_flight.front().map(|flight| flight.end)
    }

    /// The engine dies: its cache, its queue and its steps in flight are gone.
    pub(crate) fn fail(&mut self, now: SimTime) -> Result<Vec<Lost>, SimError> {
        let next = next_step(self.step_ends.count())?;
        self.rare.lost_peak = self.rare.lost_peak.max(self.scheduler.kv().peak_used());
        self.in_flight.clear();
        self.device_free = now;
        for stage in &mut self.rare.later_stages {
            (stage.hop_free, stage.free) = (now, now);
        }
        Ok(self.scheduler.lose_all(next))
    }

    /// Give up a request.
    pub(crate) fn abort(&mut self, slot: SlotId) -> Result<Lost, SimError> {
        let next = next_step(self.step_ends.count())?;
        Ok(self.scheduler.abort(slot, next, &mut self.in_flight))
    }

    /// The number of the oldest step whose output has not been processed.
    pub(crate) fn processed(&self) -> u32 {
        self.scheduler.processed()
    }

    /// Decide and dispatch the next step; `plan` is scratch.
    pub(crate) fn schedule(
        &mut self,
        now: SimTime,
        plan: &mut StepPlan,
        records: &mut Records,
    ) -> Result<Outcome, SimError> {
        match self.decide(now, plan, records)? {
            Decided::Step => {}
            Decided::Nothing { preempted } if preempted && self.in_flight.is_empty() => {
                return Ok(Outcome::Again);
            }
            Decided::Nothing { .. } => {
                return Ok(match self.scheduler.window_closes() {
                    Some(closes) if closes > now => Outcome::WaitUntil(closes),
                    _ => Outcome::Idle,
                });
            }
        }
        let duration = self.cost.step_duration(&plan.shape)?;
        let start = now.after(self.settings().step_overhead)?.max(self.device_free);
        let mut end = start.after(duration)?;
        self.device_free = end;
        let mut busy_ns = duration.as_nanos();
        if self.settings().is_pipelined() {
            (end, busy_ns) = self.pass_later_stages(&plan.shape, end, busy_ns)?;
        }
        self.record_shape(&plan.shape, busy_ns, end);
        self.dispatch(plan, start, end, records);
        Ok(Outcome::Step(end))
    }

    /// Have a step that leaves the first stage at `end`, and kept it busy for `busy_ns`, pass the
    /// others: when it leaves the last one, and how long it keeps all of them busy.
    fn pass_later_stages(
        &mut self,
        shape: &StepShape,
        mut end: SimTime,
        mut busy_ns: u64,
    ) -> Result<(SimTime, u64), SimError> {
        for stage in &mut self.rare.later_stages {
            let carried = stage.hop.duration(shape.tokens());
            end = end.max(stage.hop_free).after(carried)?;
            stage.hop_free = end;
            let duration = stage.cost.step_duration(shape)?;
            end = end.max(stage.free).after(duration)?;
            stage.free = end;
            busy_ns += duration.as_nanos();
        }
        Ok((end, busy_ns))
    }

    /// Decide the next step, which `plan` is filled with.
    #[inline]
    pub(crate) fn decide(
        &mut self,
        now: SimTime,
        plan: &mut StepPlan,
        records: &mut Records,
    ) -> Result<Decided, SimError> {
        let step = next_step(self.step_ends.count())?;
        self.scheduler.schedule(now, step, plan);
        self.record_decisions(plan, now, records);
        if plan.is_empty() {
            return Ok(Decided::Nothing { preempted: !plan.preempted.is_empty() });
        }
        Ok(Decided::Step)
    }

    /// Have a step that is decided and priced in flight.
    #[inline]
    fn dispatch(&mut self, plan: &StepPlan, start: SimTime, end: SimTime, records: &mut Records) {
        if self.settings().role != Role::Aggregated {
            self.note_handovers(plan, start, end);
        }
        if let Some(rows) = &mut records.steps {
            self.record_row(plan, rows, start, end);
        }
        let overlaps = !self.in_flight.is_empty();
        self.in_flight.push_back(plan.dispatched(end, overlaps));
    }

    /// Note whose prompts a step completes.
    #[cold]
    fn note_handovers(&mut self, plan: &StepPlan, start: SimTime, end: SimTime) {
        if let Some(noted) = &mut self.rare.handing {
            let handing = |(request, slot)| Handing { request, slot, start, end };
            noted.extend(self.scheduler.handing_over(plan).map(handing));
        }
    }

    /// The reservations made since the last call.
    pub(crate) fn take_reserved(&mut self) -> Vec<Reservation> {
        let caches = self.scheduler.kv().caches_prefixes();
        let Some(inbox) = self.scheduler.inbox() else { return Vec::new() };
        let reserved = std::mem::take(&mut inbox.reserved);
        if caches {
            for reservation in &reserved {
                self.counts.prefix_queries +=
                    u64::from(reservation.tokens) + u64::from(reservation.cached) + 1;
                self.counts.prefix_hits += u64::from(reservation.cached);
            }
        }
        reserved
    }

    /// Note which requests' prompts a step completes when it is dispatched.
    pub(crate) fn hand_over_early(&mut self) {
        self.rare.handing = Some(Vec::new());
    }

    /// The requests whose prompts the steps complete that were dispatched since the last call.
    pub(crate) fn take_handing(&mut self) -> Vec<Handing> {
        self.rare.handing.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The blocks of a request that left this prefill engine have been sent.
    pub(crate) fn sent(&mut self, slot: SlotId) {
        self.scheduler.sent(slot);
    }

    /// The keys and values of a request have arrived in this decode engine.
    pub(crate) fn receive(&mut self, slot: SlotId) {
        self.scheduler.receive(slot);
    }

    /// Process the output of the step that ends now; `delivered` is when clients see it. Requests
    /// that got their last token here are appended to `ended`.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        delivered: SimTime,
        records: &mut Records,
        ended: &mut Vec<Ended>,
    ) {
        let Some(flight) = self.in_flight.pop_front() else { return };
        if flight.is_uneventful() {
            self.scheduler.completed(flight.step);
        } else {
            self.process(&flight, delivered, records, ended);
        }
        if records.decisions.is_some() {
            self.log_update(records);
        }
    }

    /// Process the output of a step that changes the state of some request.
    fn process(
        &mut self,
        flight: &Flight,
        delivered: SimTime,
        records: &mut Records,
        ended: &mut Vec<Ended>,
    ) {
        for &request in flight.first_tokens() {
            records.requests.first_token(request, delivered);
        }
        for &request in flight.second_tokens() {
            records.requests.second_token(request, delivered);
        }
        let index = self.index;
        self.scheduler.complete(flight, |end| {
            if end.held_by.is_some() {
                records.requests.span_broken(index, end.span);
            } else {
                records.requests.completed(end.span, end.output, delivered);
            }
            ended.push(end);
        });
    }

    #[inline]
    fn record_decisions(&mut self, plan: &StepPlan, now: SimTime, records: &mut Records) {
        for admission in &plan.admitted {
            records.requests.admitted(admission.request, admission.cached, now);
            // As in vLLM's statistics, a preempted request's look-up of its own blocks is no query.
            let first = !records.requests.was_preempted(admission.request);
            if first && self.scheduler.kv().caches_prefixes() {
                self.counts.prefix_queries += u64::from(admission.queried);
                self.counts.prefix_hits += u64::from(admission.cached);
            }
        }
        for &request in &plan.preempted {
            self.counts.preemptions += 1;
            records.requests.preempted(request);
        }
        for &span in &plan.broken_spans {
            records.requests.span_broken(self.index, span);
        }
        if records.decisions.is_some() && self.scheduler.has_requests() {
            self.log_decision(plan, records);
        }
    }

    #[inline]
    fn record_shape(&mut self, shape: &StepShape, busy_ns: u64, end: SimTime) {
        let experts = self.cost.experts(shape);
        self.record_step(shape, experts, busy_ns, end);
    }

    #[inline]
    fn record_step(&mut self, shape: &StepShape, experts: f64, busy_ns: u64, end: SimTime) {
        self.totals.add(shape, experts);
        self.counts.busy_ns += busy_ns;
        self.step_ends.add(end.as_nanos());
        self.hash.add(end.as_nanos(), shape.tokens() << 32 ^ shape.decode_context_tokens);
    }

    fn record_row(&self, plan: &StepPlan, rows: &mut StepColumns, start: SimTime, end: SimTime) {
        rows.engine.push(self.index);
        rows.start_ns.push(start.as_nanos());
        rows.end_ns.push(end.as_nanos());
        rows.shape.push(plan.shape);
        rows.preempted.push(u32::try_from(plan.preempted.len()).unwrap_or(u32::MAX));
        rows.running.push(self.scheduler.running());
        rows.waiting.push(self.scheduler.waiting() as u64);
        rows.free_blocks.push(self.scheduler.kv().free());
    }

    /// End times of all steps.
    pub(crate) const fn step_ends(&self) -> &StepEnds {
        &self.step_ends
    }

    /// Forget the ends of steps before that one.
    pub(crate) fn drop_steps_before(&mut self, step: u32) {
        self.step_ends.drop_before(step);
    }

    /// Hash of all steps.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Totals so far.
    pub(crate) fn stats(&self) -> EngineStats {
        let (mut operations, mut bytes) = self.work(&self.cost);
        for stage in &self.rare.later_stages {
            let work = self.work(&stage.cost);
            (operations, bytes) = (operations + work.0, bytes + work.1);
        }
        let stages = 1 + self.rare.later_stages.len();
        let (operations, bytes) = (operations / stages as f64, bytes / stages as f64);
        let busy_ns = self.counts.busy_ns / stages as u64;
        EngineStats {
            totals: self.totals,
            dummy_steps: self.dummy_steps(),
            counts: EngineCounts { busy_ns, ..self.counts },
            used_blocks: self.scheduler.kv().used(),
            peak_blocks: self.scheduler.kv().peak_used().max(self.rare.lost_peak),
            operations,
            bytes,
        }
    }
}

/// Totals of one engine over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineStats {
    /// Steps and their sums.
    pub totals: StepTotals,
    /// What it counted; `busy_ns` is the mean of the stages.
    pub counts: EngineCounts,
    /// Steps without a request, run because other engines of its group had some.
    pub dummy_steps: u64,
    /// KV blocks in use now.
    pub used_blocks: u32,
    /// Most KV blocks in use at once.
    pub peak_blocks: u32,
    /// Floating-point operations of all steps, per accelerator (of several stages the mean); 0 where the model has none.
    pub operations: f64,
    /// Bytes of memory traffic of all steps, per accelerator (as above); 0 where the model has none.
    pub bytes: f64,
}
