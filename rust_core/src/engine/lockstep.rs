//! One engine of a group that steps together (`docs/spec.md`, section 15).
//!
//! All engines of a group have the same timeline; each prices its own part of a step, and the
//! longest price is everyone's.

use super::{Engine, Records};
use crate::cost::{CostModel, StepShape, StepTotals};
use crate::error::SimError;
use crate::scheduler::StepPlan;
use crate::time::{SimDuration, SimTime};

/// The step of an engine that has nothing to do while others of its group have: one token, which
/// reads its own key alone and yields nothing.
pub(crate) const DUMMY: StepShape = StepShape {
    prefill_seqs: 0,
    prefill_tokens: 0,
    prefill_attention_pairs: 0,
    prefill_context_tokens: 0,
    decode_seqs: 1,
    decode_context_tokens: 1,
    sampled_seqs: 0,
    prefill_window_pairs: 0,
    prefill_window_tokens: 0,
    decode_window_tokens: 1,
};

/// What calling the scheduler led to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decided {
    /// Requests for a step.
    Step,
    /// Nothing to run.
    Nothing {
        /// Whether requests were preempted.
        preempted: bool,
    },
}

/// What an engine counts besides, where it steps together with others.
#[derive(Clone, Debug, Default)]
pub(super) struct Lockstep {
    /// Tokens of all engines of the group in this one's own steps.
    group_tokens: u64,
    dummies: StepTotals,
    /// Tokens of all engines of the group in its dummy steps.
    dummy_group_tokens: u64,
}

/// How long a group's step takes in each place that it passes: a stage, a link, a stage, …
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupStep {
    /// Tokens of all engines, dummies' among them.
    pub(crate) tokens: u64,
    places: Vec<SimDuration>,
}

impl GroupStep {
    pub(crate) fn reset(&mut self, tokens: u64) {
        self.tokens = tokens;
        self.places.fill(SimDuration::default());
    }

    /// A place takes as long as the slowest engine in it.
    fn takes(&mut self, place: usize, duration: SimDuration) {
        if self.places.len() <= place {
            self.places.resize(place + 1, SimDuration::default());
        }
        self.places[place] = self.places[place].max(duration);
    }
}

impl Engine {
    /// Price this engine's part of a step of its group.
    pub(crate) fn price(&self, shape: &StepShape, step: &mut GroupStep) -> Result<(), SimError> {
        step.takes(0, self.cost.group_step_duration(shape, step.tokens)?);
        for (number, stage) in self.rare.later_stages.iter().enumerate() {
            step.takes(2 * number + 1, stage.hop.duration(shape.tokens()));
            let duration = stage.cost.group_step_duration(shape, step.tokens)?;
            step.takes(2 * number + 2, duration);
        }
        Ok(())
    }

    /// Run a step of the group, with a plan or as a dummy; its end.
    pub(crate) fn step_in_group(
        &mut self,
        plan: Option<&StepPlan>,
        now: SimTime,
        step: &GroupStep,
        records: &mut Records,
    ) -> Result<SimTime, SimError> {
        let start = now.after(self.settings().step_overhead)?.max(self.device_free);
        let mut end = start.after(step.places[0])?;
        self.device_free = end;
        let mut busy_ns = step.places[0].as_nanos();
        for (stage, pair) in self.rare.later_stages.iter_mut().zip(step.places[1..].chunks_exact(2))
        {
            end = end.max(stage.hop_free).after(pair[0])?;
            stage.hop_free = end;
            end = end.max(stage.free).after(pair[1])?;
            stage.free = end;
            busy_ns += pair[1].as_nanos();
        }
        let experts = self.cost.group_experts(step.tokens);
        let Some(lockstep) = &mut self.rare.lockstep else { return Ok(end) };
        if let Some(plan) = plan {
            lockstep.group_tokens += step.tokens;
            self.record_step(&plan.shape, experts, busy_ns, end);
            self.dispatch(plan, start, end, records);
        } else {
            lockstep.dummies.add(&DUMMY, experts);
            lockstep.dummy_group_tokens += step.tokens;
            self.counts.busy_ns += busy_ns;
            self.hash.add(end.as_nanos(), 0);
        }
        Ok(end)
    }

    /// Operations and bytes of all steps as one stage's model has them.
    pub(super) fn work(&self, cost: &CostModel) -> (f64, f64) {
        let Some(lockstep) = &self.rare.lockstep else { return cost.work(&self.totals) };
        let own = cost.group_work(&self.totals, lockstep.group_tokens);
        let dummy = cost.group_work(&lockstep.dummies, lockstep.dummy_group_tokens);
        (own.0 + dummy.0, own.1 + dummy.1)
    }

    pub(super) fn dummy_steps(&self) -> u64 {
        self.rare.lockstep.as_ref().map_or(0, |lockstep| lockstep.dummies.steps)
    }
}
