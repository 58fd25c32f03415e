//! Engine settings from Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::to_python;
use crate::config::{Batching, EngineSettings, Hop, Role, SchedulingPolicy, Window};
use crate::simulation::TransferSettings;
use crate::time::SimDuration;

/// `cluster.TransferSettings`, by its attributes.
#[derive(FromPyObject)]
pub(crate) struct TransferArgument {
    kv_bytes_per_token: u64,
    fabric_bytes_per_s: Option<u64>,
    latency_ns: u64,
    layers: u32,
}

impl TransferArgument {
    pub(crate) fn settings(&self) -> TransferSettings {
        TransferSettings {
            kv_bytes_per_token: self.kv_bytes_per_token,
            fabric_bytes_per_s: self.fabric_bytes_per_s,
            latency: SimDuration::from_nanos(self.latency_ns),
            layers: self.layers,
        }
    }
}

/// `cluster.EngineSettings`, by its attributes.
#[derive(FromPyObject)]
#[expect(clippy::struct_excessive_bools, reason = "vLLM's own switches")]
pub(crate) struct EngineSettingsArgument {
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
    max_model_len: u32,
    block_size: u32,
    num_gpu_blocks: u32,
    enable_chunked_prefill: bool,
    long_prefill_token_threshold: u32,
    long_prefill_token_threshold_adaptive: bool,
    enable_prefix_caching: bool,
    scheduling_policy: String,
    scheduler_reserve_full_isl: bool,
    watermark_blocks: u32,
    async_scheduling: bool,
    step_overhead_ns: u64,
    batching_strategy: String,
    batch_window_ns: u64,
    attention_window: Option<(String, u32)>,
    role: String,
    link_bytes_per_s: u64,
    pipeline_parallel_size: u32,
    data_parallel_group: Option<u32>,
    /// (latency in ns, bytes a token, bytes a second) between each two stages.
    stage_links: Vec<(u64, u64, u64)>,
}

impl EngineSettingsArgument {
    /// What lies between the stages of its pipeline.
    pub(crate) fn hops(&self) -> Vec<Hop> {
        let hop = |&(latency_ns, bytes_per_token, bytes_per_s): &(u64, u64, u64)| Hop {
            latency: SimDuration::from_nanos(latency_ns),
            bytes_per_token,
            bytes_per_s,
        };
        self.stage_links.iter().map(hop).collect()
    }

    pub(crate) fn settings(&self, py: Python<'_>) -> PyResult<EngineSettings> {
        let window = window(py, self.attention_window.as_ref())?;
        let batching = match self.batching_strategy.as_str() {
            "continuous" => Batching::Continuous,
            "static" => Batching::Static,
            "windowed" => {
                Batching::Windowed { window: SimDuration::from_nanos(self.batch_window_ns) }
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "batching_strategy={other:?}: must be 'continuous', 'static' or 'windowed'"
                )));
            }
        };
        let scheduling_policy = match self.scheduling_policy.as_str() {
            "fcfs" => SchedulingPolicy::Fcfs,
            "priority" => SchedulingPolicy::Priority,
            other => {
                let message = format!("scheduling_policy={other:?}: must be 'fcfs' or 'priority'");
                return Err(PyValueError::new_err(message));
            }
        };
        let role = match self.role.as_str() {
            "aggregated" => Role::Aggregated,
            "prefill" => Role::Prefill,
            "decode" => Role::Decode,
            other => {
                let message =
                    format!("role={other:?}: must be 'aggregated', 'prefill' or 'decode'");
                return Err(PyValueError::new_err(message));
            }
        };
        Ok(EngineSettings {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: self.max_model_len,
            block_size: self.block_size,
            num_gpu_blocks: self.num_gpu_blocks,
            enable_chunked_prefill: self.enable_chunked_prefill,
            long_prefill_token_threshold: self.long_prefill_token_threshold,
            long_prefill_token_threshold_adaptive: self.long_prefill_token_threshold_adaptive,
            enable_prefix_caching: self.enable_prefix_caching,
            scheduling_policy,
            scheduler_reserve_full_isl: self.scheduler_reserve_full_isl,
            watermark_blocks: self.watermark_blocks,
            async_scheduling: self.async_scheduling,
            step_overhead: SimDuration::from_nanos(self.step_overhead_ns),
            batching,
            window,
            role,
            link_bytes_per_s: self.link_bytes_per_s,
            pipeline_parallel_size: self.pipeline_parallel_size,
            data_parallel_group: self.data_parallel_group,
        })
    }
}

/// The window of ("sliding" or "chunked", tokens).
pub(crate) fn window(py: Python<'_>, given: Option<&(String, u32)>) -> PyResult<Window> {
    given.map_or(Ok(Window::None), |(kind, tokens)| {
        Window::parse(kind, *tokens).map_err(|error| to_python(py, &error))
    })
}
