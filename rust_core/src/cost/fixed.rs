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

    /// By how much each of `steps` such steps takes longer than the one before, and the nanoseconds of
    /// all of them, the first of which takes `first_ns`; None where that is more than the clock has.
    #[inline]
    pub(crate) fn decodes_ns(&self, seqs: u64, first_ns: u64, steps: u32) -> Option<(u64, u64)> {
        let steps = u64::from(steps);
        let growth = self.context_token_ns.checked_mul(seqs)?;
        let grown = growth.checked_mul(steps * steps.saturating_sub(1) / 2)?;
        Some((growth, first_ns.checked_mul(steps)?.checked_add(grown)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn steps_together_take_as_long_as_one_by_one(
            (step_ns, decode_seq_ns) in (0_u64..1 << 33, 0_u64..1 << 20),
            (context_token_ns, shared_token_ns) in (0_u64..1 << 10, 0_u64..1 << 10),
            (seqs, context, steps) in (1_u64..512, 0_u64..1 << 24, 0_u32..100),
        ) {
            let model = FixedCost {
                step_ns, decode_seq_ns, context_token_ns, shared_token_ns, ..FixedCost::default()
            };
            let price = model.decode_durations(seqs);
            let nanos = |step| price(context + seqs * u64::from(step)).as_nanos();
            let sum = (0..steps).map(nanos).sum::<u64>();
            let together = model.decodes_ns(seqs, price(context).as_nanos(), steps);
            prop_assert_eq!(together, Some((nanos(1) - nanos(0), sum)));
        }

        #[test]
        fn steps_that_saturate_have_no_sum(context in 2_u64.., steps in 2_u32..100) {
            let model = FixedCost { context_token_ns: u64::MAX, ..FixedCost::default() };
            let first = model.decode_durations(1)(context).as_nanos();
            prop_assert_eq!(model.decodes_ns(1, first, steps), None);
        }
    }
}
