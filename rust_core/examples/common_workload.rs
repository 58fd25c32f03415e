//! The common workload for profilers: 512 prompt tokens, 128 output tokens, one engine at a batch of
//! about 11. `valgrind --tool=callgrind` on it counts the instructions of the core alone.

use _core::config::{Batching, EngineSettings, Role, SchedulingPolicy, Window};
use _core::cost::{CostModel, FixedCost};
use _core::error::SimError;
use _core::router::RoutingPolicy;
use _core::simulation::{Options, Pool, Simulation};
use _core::time::SimDuration;
use _core::workload::Workload;

fn main() -> Result<(), SimError> {
    let requests: usize =
        std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3000);
    let mut state = 1_u64;
    let mut now = 0.0;
    let mut arrivals = Vec::with_capacity(requests);
    for _ in 0..requests {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        now -= uniform.ln() / 8.0 * 1e9;
        #[expect(clippy::cast_possible_truncation, reason = "far below 2^63")]
        arrivals.push(now as i64);
    }
    let workload = Workload::new(&arrivals, &vec![512; requests], &vec![128; requests], None)?;
    let settings = EngineSettings {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        max_model_len: 8192,
        block_size: 16,
        num_gpu_blocks: 20_000,
        enable_chunked_prefill: true,
        long_prefill_token_threshold: 0,
        long_prefill_token_threshold_adaptive: false,
        enable_prefix_caching: false,
        scheduling_policy: SchedulingPolicy::Fcfs,
        scheduler_reserve_full_isl: true,
        watermark_blocks: 0,
        async_scheduling: false,
        step_overhead: SimDuration::default(),
        batching: Batching::Continuous,
        window: Window::None,
        role: Role::Aggregated,
        link_bytes_per_s: 0,
        pipeline_parallel_size: 1,
        data_parallel_group: None,
    };
    let cost = FixedCost {
        step_ns: 8_000_000,
        prefill_token_ns: 20_000,
        decode_seq_ns: 100_000,
        context_token_ns: 0,
        shared_token_ns: 0,
    };
    let pool = Pool { settings, stages: vec![CostModel::Fixed(cost)], hops: vec![], count: 1 };
    let mut simulation =
        Simulation::new(&[pool], &RoutingPolicy::RoundRobin, workload, Options::default(), None)?;
    let progress = simulation.run_slice(u64::MAX)?;
    println!("{} steps, trace hash {:016x}", progress.steps, simulation.trace_hash());
    Ok(())
}
