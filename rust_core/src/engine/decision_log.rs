//! The log of an engine's scheduling decisions, where a run is asked for it.

use super::{Engine, Records};
use crate::recorder::{Call, Decision};
use crate::scheduler::StepPlan;

impl Engine {
    /// Log a call of the scheduler, and the update of an empty step, which has no output to wait
    /// for: it follows the updates of the steps before it.
    pub(super) fn log_decision(&mut self, plan: &StepPlan, records: &mut Records) {
        let Some(decisions) = &mut records.decisions else { return };
        decisions.rows.extend_from_slice(&plan.rows);
        decisions.preempted.extend_from_slice(&plan.preempted);
        let index = decisions.steps.len();
        decisions.steps.push(Decision {
            rows_end: decisions.rows.len(),
            preempted_end: decisions.preempted.len(),
            free_blocks: self.scheduler.kv().free(),
            waiting: self.scheduler.waiting(),
            running: self.scheduler.running(),
        });
        decisions.log.push((self.index, Call::Schedule, index));
        self.rare.logged.push_back((index, plan.is_empty()));
        if self.in_flight.is_empty() {
            self.log_empty_updates(records);
        }
    }

    pub(super) fn log_update(&mut self, records: &mut Records) {
        if let Some(decisions) = &mut records.decisions
            && let Some((index, _)) = self.rare.logged.pop_front()
        {
            decisions.log.push((self.index, Call::Update, index));
            self.log_empty_updates(records);
        }
    }

    fn log_empty_updates(&mut self, records: &mut Records) {
        let Some(decisions) = &mut records.decisions else { return };
        while let Some(&(index, true)) = self.rare.logged.front() {
            self.rare.logged.pop_front();
            decisions.log.push((self.index, Call::Update, index));
        }
    }
}
