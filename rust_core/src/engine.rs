//! One serving engine: its scheduler, its cost model and the step in flight.

use crate::config::EngineSettings;
use crate::cost::{CostModel, StepTotals};
use crate::error::SimError;
use crate::recorder::{RequestColumns, StepColumns, TraceHash, next_step};
use crate::scheduler::{Scheduler, StepPlan};
use crate::time::{SimDuration, SimTime};

/// What scheduling led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A step runs until then.
    Step(SimTime),
    /// Nothing to do until a batch's window closes then.
    WaitUntil(SimTime),
    /// Nothing to do until a request arrives.
    Idle,
}

/// A serving engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    index: u32,
    cost: CostModel,
    scheduler: Scheduler,
    plan: StepPlan,
    busy: bool,
    step_ends: Vec<u64>,
    totals: StepTotals,
    busy_ns: u64,
    preemptions: u64,
    requests: u64,
    hash: TraceHash,
}

impl Engine {
    pub(crate) fn new(index: u32, settings: EngineSettings, cost: CostModel) -> Self {
        Self {
            index,
            cost,
            scheduler: Scheduler::new(settings),
            plan: StepPlan::default(),
            busy: false,
            step_ends: Vec::new(),
            totals: StepTotals::default(),
            busy_ns: 0,
            preemptions: 0,
            requests: 0,
            hash: TraceHash::new(),
        }
    }

    /// Whether a step runs.
    pub(crate) const fn is_busy(&self) -> bool {
        self.busy
    }

    /// A request joins the queue.
    pub(crate) fn enqueue(&mut self, request: u32, prompt: u32, output: u32, now: SimTime) {
        self.requests += 1;
        self.scheduler.enqueue(request, prompt, output, now);
    }

    /// Decide and start the next step.
    pub(crate) fn schedule(
        &mut self,
        now: SimTime,
        requests: &mut RequestColumns,
        rows: Option<&mut StepColumns>,
    ) -> Result<Outcome, SimError> {
        let step = next_step(self.step_ends.len())?;
        self.scheduler.schedule(now, step, &mut self.plan);
        self.record_decisions(now, requests);
        if self.plan.is_empty() {
            return Ok(match self.scheduler.window_closes() {
                Some(closes) if closes > now => Outcome::WaitUntil(closes),
                _ => Outcome::Idle,
            });
        }
        let duration = self.cost.step_duration(&self.plan.shape)?;
        let end = now.after(duration)?;
        self.record_step(duration, end);
        if let Some(rows) = rows {
            self.record_row(rows, now, end);
        }
        self.busy = true;
        Ok(Outcome::Step(end))
    }

    /// Process the output of the step that ends now; returns the number of completed requests.
    pub(crate) fn complete(&mut self, now: SimTime, requests: &mut RequestColumns) -> usize {
        self.busy = false;
        for &request in &self.plan.first_tokens {
            requests.first_token(request, now);
        }
        let mut answered = 0;
        self.scheduler.complete(&self.plan, |span, output| {
            requests.completed(span, output, now);
            answered += 1;
        });
        answered
    }

    #[inline]
    fn record_decisions(&mut self, now: SimTime, requests: &mut RequestColumns) {
        for &request in &self.plan.admitted {
            requests.admitted(request, now);
        }
        for &request in &self.plan.preempted {
            self.preemptions += 1;
            requests.preempted(request);
        }
        for &span in &self.plan.broken_spans {
            requests.span_broken(span);
        }
    }

    #[inline]
    fn record_step(&mut self, duration: SimDuration, end: SimTime) {
        let shape = &self.plan.shape;
        self.totals.add(shape);
        self.busy_ns += duration.as_nanos();
        self.step_ends.push(end.as_nanos());
        self.hash.add(end.as_nanos());
        self.hash.add(shape.tokens() << 32 ^ shape.decode_context_tokens);
    }

    fn record_row(&self, rows: &mut StepColumns, start: SimTime, end: SimTime) {
        rows.engine.push(self.index);
        rows.start_ns.push(start.as_nanos());
        rows.end_ns.push(end.as_nanos());
        rows.shape.push(self.plan.shape);
        rows.preempted.push(u32::try_from(self.plan.preempted.len()).unwrap_or(u32::MAX));
        rows.running.push(self.scheduler.running());
        rows.waiting.push(self.scheduler.waiting() as u64);
        rows.free_blocks.push(self.scheduler.kv().free());
    }

    /// End times of all steps.
    pub(crate) fn step_ends(&self) -> &[u64] {
        &self.step_ends
    }

    /// Hash of all steps.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Totals so far.
    pub(crate) fn stats(&self) -> EngineStats {
        let (operations, bytes) = self.cost.work(&self.totals);
        EngineStats {
            totals: self.totals,
            preemptions: self.preemptions,
            busy_ns: self.busy_ns,
            requests: self.requests,
            peak_blocks: self.scheduler.kv().peak_used(),
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
    /// Preemptions.
    pub preemptions: u64,
    /// Nanoseconds in which a step ran.
    pub busy_ns: u64,
    /// Requests routed to it.
    pub requests: u64,
    /// Most KV blocks in use at once.
    pub peak_blocks: u32,
    /// Floating-point operations of all steps, per accelerator; 0 where the model has none.
    pub operations: f64,
    /// Bytes of memory traffic of all steps, per accelerator; 0 where the model has none.
    pub bytes: f64,
}
