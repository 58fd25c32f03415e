//! The scheduler without a clock: calls of a recorded engine are repeated and compared.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::EngineSettings;
use crate::error::SimError;
use crate::scheduler::{NewRequest, Row, Scheduler, StepPlan};
use crate::shared_blocks::SharedBlocks;
use crate::time::SimTime;

/// A scheduler that is told when to schedule and when outputs arrive.
#[derive(Clone, Debug)]
pub struct Replay {
    settings: EngineSettings,
    scheduler: Scheduler,
    in_flight: VecDeque<StepPlan>,
    steps: u32,
}

/// What one call of the scheduler decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Scheduled requests in order.
    pub rows: Vec<Row>,
    /// Preempted requests in order.
    pub preempted: Vec<u32>,
    /// Free KV blocks afterwards.
    pub free_blocks: u32,
    /// Waiting requests afterwards.
    pub waiting: usize,
    /// Running requests afterwards.
    pub running: u32,
}

/// What the output of one step brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Requests that got a token, in scheduled order.
    pub tokens: Vec<u32>,
    /// Requests that finished, in scheduled order.
    pub finished: Vec<u32>,
}

impl Replay {
    /// A scheduler without requests; `shared` knows the blocks of all that will come.
    ///
    /// # Errors
    /// As [`EngineSettings::validate`].
    pub fn new(settings: EngineSettings, shared: SharedBlocks) -> Result<Self, SimError> {
        settings.validate()?;
        let scheduler = Scheduler::new(Arc::new(settings), Arc::new(shared), true);
        Ok(Self { settings, scheduler, in_flight: VecDeque::new(), steps: 0 })
    }

    /// Add a request; false if the engine would refuse it.
    pub fn add(
        &mut self,
        request: u32,
        prompt: u32,
        max_tokens: u32,
        priority: i64,
        arrival: u64,
    ) -> bool {
        let Some(output) = self.settings.effective_output(prompt, max_tokens) else { return false };
        let new = NewRequest {
            request,
            prompt,
            output,
            priority,
            arrival,
            generated: 0,
            remote: false,
            hands_over: false,
        };
        self.scheduler.enqueue(&new, SimTime::ZERO);
        true
    }

    /// Decide the next step.
    pub fn schedule(&mut self) -> Scheduled {
        let mut plan = StepPlan::default();
        self.scheduler.schedule(SimTime::ZERO, self.steps, &mut plan);
        self.steps += 1;
        let scheduled = Scheduled {
            rows: plan.rows.clone(),
            preempted: plan.preempted.clone(),
            free_blocks: self.scheduler.kv().free(),
            waiting: self.scheduler.waiting(),
            running: self.scheduler.running(),
        };
        self.in_flight.push_back(plan);
        scheduled
    }

    /// Process the output of the oldest scheduled step; None if there is none.
    pub fn update(&mut self) -> Option<Updated> {
        let plan = self.in_flight.pop_front()?;
        let tokens = plan.rows.iter().filter(|row| row.yields).map(|row| row.request).collect();
        let mut finished = Vec::new();
        self.scheduler.complete(&plan.dispatched(SimTime::ZERO, false), |ended| {
            finished.push(ended.span.request);
        });
        Some(Updated { tokens, finished })
    }
}
