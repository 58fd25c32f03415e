//! Validated settings of an engine, in vLLM's names.

use crate::error::SimError;
use crate::time::SimDuration;

/// How requests become batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// vLLM's continuous batching: requests join and leave at every step.
    Continuous,
    /// A batch runs until all its requests have left.
    Static,
    /// Static, but a batch that is not full waits for a window after its first request.
    Windowed {
        /// The window.
        window: SimDuration,
    },
}

/// Which waiting request is next, and which running one is preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served; the last admitted is preempted.
    Fcfs,
    /// By priority, then arrival; lower comes first, the highest is preempted.
    Priority,
}

/// Which keys a token sees in layers that do not see the whole context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// There are no such layers, or no sequence outgrows them.
    #[default]
    None,
    /// The last tokens, its own among them.
    Sliding(u32),
    /// The tokens of its own chunk, up to its own.
    Chunked(u32),
}

impl Window {
    /// Keys that the token after `computed` ones reads.
    #[inline]
    pub(crate) fn keys(self, computed: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Sliding(window) => (computed + 1).min(u64::from(window)),
            Self::Chunked(window) => computed % u64::from(window) + 1,
        }
    }

    /// (query-key pairs, distinct keys) of `new` tokens on top of `computed` ones.
    pub(crate) fn of_chunk(self, computed: u64, new: u64) -> (u64, u64) {
        /// Sum of 1 to n.
        const fn triangle(n: u64) -> u64 {
            n * (n + 1) / 2
        }
        match self {
            Self::None => (0, 0),
            Self::Sliding(window) => {
                let window = u64::from(window);
                // Up to n tokens: the first `window` ones see 1, 2, …, the others `window` each.
                let up_to = |n: u64| triangle(n.min(window)) + n.saturating_sub(window) * window;
                (up_to(computed + new) - up_to(computed), computed.min(window - 1) + new)
            }
            Self::Chunked(window) => {
                let window = u64::from(window);
                let up_to = |n: u64| n / window * triangle(window) + triangle(n % window);
                (up_to(computed + new) - up_to(computed), computed % window + new)
            }
        }
    }

    /// The window of this kind and size.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for another kind, or a size of 0.
    pub fn parse(kind: &str, tokens: u32) -> Result<Self, SimError> {
        if kind != "none" && tokens == 0 {
            return Err(invalid("window", tokens, "must be at least 1"));
        }
        match kind {
            "none" => Ok(Self::None),
            "sliding" => Ok(Self::Sliding(tokens)),
            "chunked" => Ok(Self::Chunked(tokens)),
            _ => Err(SimError::InvalidSetting {
                field: "window kind",
                value: kind.to_owned(),
                remedy: "must be none, sliding or chunked",
            }),
        }
    }
}

/// Which part of a request's life an engine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All of it.
    Aggregated,
    /// The prompt and the first token; the keys and values then go to a decode engine.
    Prefill,
    /// The tokens after the first.
    Decode,
}

/// One engine's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "vLLM's own switches")]
pub struct EngineSettings {
    /// Requests that may run together.
    pub max_num_seqs: u32,
    /// Token budget of a step.
    pub max_num_batched_tokens: u32,
    /// Longest prompt + output.
    pub max_model_len: u32,
    /// Tokens a KV block.
    pub block_size: u32,
    /// KV blocks, vLLM's null block among them.
    pub num_gpu_blocks: u32,
    /// Whether a prompt may be spread over steps.
    pub enable_chunked_prefill: bool,
    /// Most tokens of one request in a step; 0: no such bound.
    pub long_prefill_token_threshold: u32,
    /// Whether an idle budget raises that bound: max(threshold, budget / requests in the engine).
    pub long_prefill_token_threshold_adaptive: bool,
    /// Whether blocks of earlier requests can be found by their content.
    pub enable_prefix_caching: bool,
    /// Order of waiting requests.
    pub scheduling_policy: SchedulingPolicy,
    /// Whether admission asks for room for the whole prompt, not only its first chunk.
    pub scheduler_reserve_full_isl: bool,
    /// Free blocks that admission must leave while others run.
    pub watermark_blocks: u32,
    /// Whether the next step is decided before the output of the running one is known.
    pub async_scheduling: bool,
    /// Host time before a step can start; asynchronous scheduling hides it behind the step before.
    pub step_overhead: SimDuration,
    /// How requests become batches.
    pub batching: Batching,
    /// What layers with a window see; a matter of step costs alone.
    pub window: Window,
    /// Which part of a request's life it serves.
    pub role: Role,
    /// What its link to engines of the other role carries, in bytes per second.
    pub link_bytes_per_s: u64,
    /// Stages that a batch passes one after the other, and batches in flight at most.
    pub pipeline_parallel_size: u32,
    /// Engines with the same number, which follow one another, step together; None: it steps alone.
    pub data_parallel_group: Option<u32>,
}

/// What carries hidden states from a stage of a pipeline to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Of every batch, besides its bytes.
    pub latency: SimDuration,
    /// Hidden states of a token.
    pub bytes_per_token: u64,
    /// What the link carries.
    pub bytes_per_s: u64,
}

impl Hop {
    /// How long the hidden states of so many tokens take, rounded up to a nanosecond.
    pub(crate) fn duration(&self, tokens: u64) -> SimDuration {
        let billionths = u128::from(tokens) * u128::from(self.bytes_per_token) * 1_000_000_000;
        let nanos = billionths.div_ceil(u128::from(self.bytes_per_s.max(1)));
        // More than the clock holds ends the run where it is added to it.
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        SimDuration::from_nanos(self.latency.as_nanos().saturating_add(nanos))
    }
}

impl EngineSettings {
    /// Check ranges.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<(), SimError> {
        let at_least_one = [
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_model_len", self.max_model_len),
            ("block_size", self.block_size),
            ("pipeline_parallel_size", self.pipeline_parallel_size),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(invalid(field, value, "must be at least 1"));
            }
        }
        if self.num_gpu_blocks < 2 {
            let remedy = "must be at least 2: one block is vLLM's null block";
            return Err(invalid("num_gpu_blocks", self.num_gpu_blocks, remedy));
        }
        if !self.enable_chunked_prefill && self.max_num_batched_tokens < self.max_model_len {
            let remedy = "must be at least max_model_len while chunked prefill is off";
            return Err(invalid("max_num_batched_tokens", self.max_num_batched_tokens, remedy));
        }
        let one_of_many = self.role != Role::Aggregated || self.data_parallel_group.is_some();
        if one_of_many && self.batching != Batching::Continuous {
            return Err(SimError::InvalidSetting {
                field: "batching_strategy",
                value: "static or windowed".to_owned(),
                remedy: "prefill and decode engines, and engines that step together, batch \
                         continuously",
            });
        }
        if self.role == Role::Aggregated {
            return Ok(());
        }
        if self.link_bytes_per_s == 0 {
            return Err(invalid("link_bytes_per_s", 0, "must be at least 1"));
        }
        Ok(())
    }

    /// Whether the layers lie in several stages, so that tokens are known when their batch has
    /// left the last one.
    pub const fn is_pipelined(&self) -> bool {
        self.pipeline_parallel_size > 1
    }

    /// Batches that may be in flight together (3.4, 14.2).
    pub const fn batches_in_flight(&self) -> usize {
        match (self.pipeline_parallel_size, self.async_scheduling) {
            (0 | 1, false) => 1,
            (0 | 1, true) => 2,
            (stages, _) => stages as usize,
        }
    }

    /// Blocks that requests can use: all but the null block.
    pub const fn usable_blocks(&self) -> u32 {
        self.num_gpu_blocks - 1
    }

    /// Tokens that a request with this prompt and `max_tokens` generates: vLLM stops a sequence at
    /// `max_model_len`. None where vLLM refuses the request or it could never fit the cache.
    pub fn effective_output(&self, prompt: u32, output: u32) -> Option<u32> {
        if prompt == 0 || output == 0 || prompt >= self.max_model_len {
            return None;
        }
        let effective = output.min(self.max_model_len - prompt);
        // The last token is never fed back, so it needs no room.
        let peak = prompt + effective - 1;
        (peak.div_ceil(self.block_size) <= self.usable_blocks()).then_some(effective)
    }
}

fn invalid(field: &'static str, value: u32, remedy: &'static str) -> SimError {
    SimError::InvalidSetting { field, value: value.to_string(), remedy }
}
