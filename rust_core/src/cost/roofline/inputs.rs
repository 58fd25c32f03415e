//! An accelerator and the routed experts in plain numbers.

use super::super::operation::{Kind, check_not_negative, check_positive, invalid};
use crate::error::SimError;

/// The routed experts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// Routed experts.
    pub num_experts: u32,
    /// Experts that each token visits.
    pub experts_per_token: u32,
    /// Engines whose tokens meet at the experts (data-parallel attention); 1: this one alone.
    pub engines: u32,
}

/// What an accelerator achieves in one phase, per second, and what each step of it adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseRates {
    /// Operations of the layers' matrices, in their format.
    pub linear_flops: f64,
    /// Operations on 16-bit operands: attention, the LM head, what a model leaves unquantised.
    pub attention_flops: f64,
    /// Bytes to and from memory.
    pub memory_bandwidth: f64,
    /// Constant of every step, seconds.
    pub step_overhead_s: f64,
}

/// How partial results are summed over a tensor-parallel group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllReduce {
    /// 2(t−1) hops of 1/t of the payload each.
    Ring,
    /// A double binary tree: 2⌈log2 t⌉ hops, the payload twice.
    Tree,
    /// Whichever is faster for the payload, as NCCL chooses.
    Auto,
}

/// An accelerator as the roofline sees it: achievable rates and constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RooflineHardware {
    /// Rates in steps that carry prompt tokens.
    pub prefill: PhaseRates,
    /// Rates in pure decode steps.
    pub decode: PhaseRates,
    /// Constant of every kernel, seconds.
    pub kernel_latency_s: f64,
    /// Constant of every request in a step, seconds.
    pub sequence_overhead_s: f64,
    /// Achievable bytes per second and direction between accelerators of a group.
    pub link_bandwidth: f64,
    /// Latency of a hop, seconds.
    pub link_latency_s: f64,
    /// All-reduce algorithm.
    pub all_reduce: AllReduce,
    /// Achievable bytes per second and direction of an all-to-all.
    pub exchange_bandwidth: f64,
    /// Latency of an all-to-all, seconds.
    pub exchange_latency_s: f64,
}

impl PhaseRates {
    pub(super) const fn flops(&self, kind: Kind) -> f64 {
        match kind {
            Kind::LinearKernel => self.linear_flops,
            Kind::Kernel | Kind::AllReduce | Kind::AllGather | Kind::AllToAll => {
                self.attention_flops
            }
        }
    }
}

impl Mixture {
    pub(super) fn check(&self) -> Result<(), SimError> {
        let counts = [
            ("num_experts", self.num_experts),
            ("experts_per_token", self.experts_per_token),
            ("engines", self.engines),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(invalid(field, &value, "must be at least 1"));
            }
        }
        if self.experts_per_token > self.num_experts {
            let remedy = "exceeds num_experts";
            return Err(invalid("experts_per_token", &self.experts_per_token, remedy));
        }
        Ok(())
    }
}

impl RooflineHardware {
    /// (bytes per second, latency in seconds) of what carries a collective.
    pub(super) const fn link(&self, kind: Kind) -> (f64, f64) {
        match kind {
            Kind::AllToAll => (self.exchange_bandwidth, self.exchange_latency_s),
            _ => (self.link_bandwidth, self.link_latency_s),
        }
    }

    pub(super) fn check(&self) -> Result<(), SimError> {
        for rates in [&self.prefill, &self.decode] {
            check_positive("linear_flops", rates.linear_flops)?;
            check_positive("attention_flops", rates.attention_flops)?;
            check_positive("memory_bandwidth", rates.memory_bandwidth)?;
            check_not_negative("step_overhead_s", rates.step_overhead_s)?;
        }
        check_positive("link_bandwidth", self.link_bandwidth)?;
        check_positive("exchange_bandwidth", self.exchange_bandwidth)?;
        let constants = [
            ("kernel_latency_s", self.kernel_latency_s),
            ("sequence_overhead_s", self.sequence_overhead_s),
            ("link_latency_s", self.link_latency_s),
            ("exchange_latency_s", self.exchange_latency_s),
        ];
        constants.iter().try_for_each(|&(field, value)| check_not_negative(field, value))
    }
}
