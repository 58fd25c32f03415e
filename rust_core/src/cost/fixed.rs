//! Integer costs: for tests that ask for equality, and for studies of scheduling alone.

use super::StepShape;
use crate::time::SimDuration;

/// Whole nanoseconds, linear in the step's sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedCost {
    /// Per step.
    pub step_ns: u64,
    /// Per token of a prompt chunk.
    pub prefill_token_ns: u64,
    /// Per decoding request.
    pub decode_seq_ns: u64,
    /// Per key that decoding requests read.
    pub context_token_ns: u64,
    /// Per token of all engines that step together; of an engine alone, per token of its own.
    pub shared_token_ns: u64,
}

impl FixedCost {
    /// The cost of a step; saturates instead of overflowing, which the clock then refuses.
    #[inline]
    pub fn step_duration(&self, step: &StepShape) -> SimDuration {
        self.group_step_duration(step, step.tokens())
    }

    /// The cost of a step in a group whose engines have `group_tokens` tokens.
    pub(super) fn group_step_duration(&self, step: &StepShape, group_tokens: u64) -> SimDuration {
        let nanos = self
            .prefill_token_ns
            .saturating_mul(step.prefill_tokens)
            .saturating_add(self.shared_token_ns.saturating_mul(group_tokens))
            .saturating_add(self.decode_seq_ns.saturating_mul(step.decode_seqs))
            .saturating_add(self.context_token_ns.saturating_mul(step.decode_context_tokens))
            .saturating_add(self.step_ns);
        SimDuration::from_nanos(nanos)
    }

    /// The cost of steps of `seqs` decoding requests, by the keys that they read.
    pub(crate) fn decode_durations(&self, seqs: u64) -> impl Fn(u64) -> SimDuration {
        let alike = self.step_duration(&StepShape { decode_seqs: seqs, ..StepShape::default() });
        let (alike, context_token_ns) = (alike.as_nanos(), self.context_token_ns);
        move |context| {
            SimDuration::from_nanos(alike.saturating_add(context_token_ns.saturating_mul(context)))
        }
    }
}
