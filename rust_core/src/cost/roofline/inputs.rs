//! What the roofline is made of: a model and an accelerator in plain numbers.

use crate::error::SimError;

/// A dense decoder-only transformer and how it is stored, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// Transformer layers.
    pub num_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Query heads of the whole model.
    pub num_attention_heads: u32,
    /// Key-value heads of the whole model (1: MQA; as many as query heads: MHA).
    pub num_key_value_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the MLP.
    pub intermediate_size: u32,
    /// Whether the MLP has a gate (three matrices instead of two).
    pub gated_mlp: bool,
    /// Rows of the embedding and of the LM head.
    pub vocab_size: u32,
    /// Accelerators that share every matrix.
    pub tensor_parallel_size: u32,
    /// Mixture of experts, in some of the layers.
    pub mixture: Option<MixtureShape>,
    /// Stored bytes a weight of the layers' matrices (fractions for 4-bit groups with scales).
    pub weight_bytes: f64,
    /// Stored bytes a weight of the embedding and the LM head.
    pub embedding_bytes: f64,
    /// Bytes an activation.
    pub activation_bytes: f64,
    /// Bytes a key or value element in the cache.
    pub kv_cache_bytes: f64,
}

/// The expert layers of a mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureShape {
    /// Layers with experts; the others have the dense MLP.
    pub num_layers: u32,
    /// Routed experts.
    pub num_experts: u32,
    /// Experts that each token visits.
    pub experts_per_token: u32,
    /// Width of a routed expert.
    pub intermediate_size: u32,
    /// Width of what every token visits beside its experts; 0: nothing.
    pub shared_intermediate_size: u32,
    /// Stored bytes a weight of the routed experts.
    pub weight_bytes: f64,
}

/// What an accelerator achieves in one phase, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseRates {
    /// Operations of the layers' matrix products.
    pub linear_flops: f64,
    /// Operations of attention and the LM head.
    pub attention_flops: f64,
    /// Bytes to and from memory.
    pub memory_bandwidth: f64,
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
    /// Constant of every step, seconds.
    pub step_overhead_s: f64,
    /// Constant of every request in a step, seconds.
    pub sequence_overhead_s: f64,
    /// Achievable bytes per second and direction between accelerators of a group.
    pub link_bandwidth: f64,
    /// Latency of a hop, seconds.
    pub link_latency_s: f64,
    /// All-reduce algorithm.
    pub all_reduce: AllReduce,
}

impl MixtureShape {
    fn check(&self, num_layers: u32) -> Result<(), SimError> {
        let counts = [
            ("num_experts", self.num_experts),
            ("experts_per_token", self.experts_per_token),
            ("expert intermediate_size", self.intermediate_size),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(invalid(field, &value, "must be at least 1"));
            }
        }
        if self.experts_per_token > self.num_experts {
            return Err(invalid(
                "experts_per_token",
                &self.experts_per_token,
                "exceeds num_experts",
            ));
        }
        if self.num_layers == 0 || self.num_layers > num_layers {
            return Err(invalid("expert layers", &self.num_layers, "must be 1 to num_layers"));
        }
        positive("expert weight_bytes", self.weight_bytes)
    }
}

impl ModelShape {
    /// Layers with a dense MLP.
    pub(super) fn dense_layers(&self) -> u32 {
        self.num_layers - self.mixture.map_or(0, |mixture| mixture.num_layers)
    }

    pub(super) fn check(&self) -> Result<(), SimError> {
        let counts = [
            ("num_layers", self.num_layers),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("tensor_parallel_size", self.tensor_parallel_size),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(invalid(field, &value, "must be at least 1"));
            }
        }
        if let Some(mixture) = &self.mixture {
            mixture.check(self.num_layers)?;
        }
        if self.dense_layers() > 0 && self.intermediate_size == 0 {
            return Err(invalid("intermediate_size", &0, "must be at least 1 for dense layers"));
        }
        let sizes = [
            ("weight_bytes", self.weight_bytes),
            ("embedding_bytes", self.embedding_bytes),
            ("activation_bytes", self.activation_bytes),
            ("kv_cache_bytes", self.kv_cache_bytes),
        ];
        sizes.iter().try_for_each(|&(field, value)| positive(field, value))
    }
}

impl RooflineHardware {
    pub(super) fn check(&self) -> Result<(), SimError> {
        for rates in [&self.prefill, &self.decode] {
            positive("linear_flops", rates.linear_flops)?;
            positive("attention_flops", rates.attention_flops)?;
            positive("memory_bandwidth", rates.memory_bandwidth)?;
        }
        positive("link_bandwidth", self.link_bandwidth)?;
        let constants = [
            ("kernel_latency_s", self.kernel_latency_s),
            ("step_overhead_s", self.step_overhead_s),
            ("sequence_overhead_s", self.sequence_overhead_s),
            ("link_latency_s", self.link_latency_s),
        ];
        constants.iter().try_for_each(|&(field, value)| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err(invalid(field, &value, "must be finite and at least 0"))
        })
    }
}

fn positive(field: &'static str, value: f64) -> Result<(), SimError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(invalid(field, &value, "must be finite and above 0"))
}

fn invalid(field: &'static str, value: &dyn std::fmt::Display, remedy: &'static str) -> SimError {
    SimError::InvalidSetting { field, value: value.to_string(), remedy }
}
