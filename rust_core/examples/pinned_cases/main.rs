//! Pinned runs of the core alone, for profilers: `pinned_cases CASE REQUESTS`.
//!
//! `benchmarks/instruction_counts.py` runs each under callgrind, which counts what happens inside
//! [`event_loop`]; building the columns and the cluster is left out. A case that changes is another
//! case: give it another name, or the recorded history compares unlike runs.

mod costs;

use _core::config::{Batching, EngineSettings, Role, SchedulingPolicy, Window};
use _core::cost::CostModel;
use _core::error::SimError;
use _core::router::RoutingPolicy;
use _core::simulation::{Options, Pool, Progress, Simulation};
use _core::time::SimDuration;
use _core::workload::Workload;

const PROMPT: i64 = 512;
const OUTPUT: i64 = 128;
const BLOCK_SIZE: u32 = 16;

/// One cluster under one load.
struct Case {
    name: &'static str,
    cost: fn() -> Result<CostModel, SimError>,
    /// Requests per second of an engine; each case runs at a batch of about 11.
    rate_per_s: f64,
    engines: u32,
    /// Whether prompts are looked up, each of which is named and like no other.
    enable_prefix_caching: bool,
    step_by_step: bool,
}

const BASE: Case = Case {
    name: "one_engine",
    cost: costs::fixed,
    rate_per_s: 8.0,
    engines: 1,
    enable_prefix_caching: false,
    step_by_step: false,
};

const CASES: [Case; 7] = [
    BASE,
    Case { name: "step_by_step", step_by_step: true, ..BASE },
    Case { name: "roofline", cost: costs::roofline, rate_per_s: 11.0, ..BASE },
    Case { name: "op_table", cost: costs::op_table, rate_per_s: 11.0, ..BASE },
    Case { name: "op_table_16", cost: costs::op_table, rate_per_s: 11.0, engines: 16, ..BASE },
    Case { name: "prefix_caching", enable_prefix_caching: true, ..BASE },
    Case { name: "engines_256", engines: 256, ..BASE },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| BASE.name.to_owned());
    let requests = words.next().map_or(Ok(3000), |word| word.parse())?;
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        let names = CASES.map(|case| case.name).join(", ");
        return Err(format!("unknown case {name:?}: it is one of {names}").into());
    };
    let mut simulation = case.simulation(requests)?;
    let progress = event_loop(&mut simulation)?;
    println!("{} steps, trace hash {:016x}", progress.steps, simulation.trace_hash());
    Ok(())
}

/// What is counted. Not inlined: callgrind finds it by its name.
#[inline(never)]
fn event_loop(simulation: &mut Simulation) -> Result<Progress, SimError> {
    simulation.run_slice(u64::MAX)
}

impl Case {
    fn simulation(&self, requests: usize) -> Result<Simulation, SimError> {
        let arrivals = poisson(requests, self.rate_per_s * f64::from(self.engines));
        let (prompts, outputs) = (vec![PROMPT; requests], vec![OUTPUT; requests]);
        let mut workload = Workload::new(&arrivals, &prompts, &outputs, None)?;
        if self.enable_prefix_caching {
            let step = PROMPT / i64::from(BLOCK_SIZE);
            let offsets: Vec<i64> = std::iter::successors(Some(0), |last| Some(last + step))
                .take(requests + 1)
                .collect();
            let all_different: Vec<i64> = (0..offsets[requests]).collect();
            workload = workload.with_blocks(&offsets, &all_different, false)?;
        }
        let pool = Pool {
            settings: self.settings(),
            stages: vec![(self.cost)()?],
            hops: vec![],
            count: self.engines,
        };
        let options = Options { step_by_step: self.step_by_step, ..Options::default() };
        Simulation::new(&[pool], &RoutingPolicy::LeastOutstanding, workload, options, None)
    }

    const fn settings(&self) -> EngineSettings {
        EngineSettings {
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            max_model_len: 8192,
            block_size: BLOCK_SIZE,
            num_gpu_blocks: 20_000,
            enable_chunked_prefill: true,
            long_prefill_token_threshold: 0,
            long_prefill_token_threshold_adaptive: false,
            enable_prefix_caching: self.enable_prefix_caching,
            scheduling_policy: SchedulingPolicy::Fcfs,
            scheduler_reserve_full_isl: true,
            watermark_blocks: 0,
            async_scheduling: false,
            step_overhead: SimDuration::from_nanos(0),
            batching: Batching::Continuous,
            window: Window::None,
            role: Role::Aggregated,
            link_bytes_per_s: 0,
            pipeline_parallel_size: 1,
            data_parallel_group: None,
        }
    }
}

/// Arrival times in ns of a Poisson process, the same on every machine.
fn poisson(requests: usize, rate_per_s: f64) -> Vec<i64> {
    let mut state = 1_u64;
    let mut now = 0.0;
    let mut arrival = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        now -= uniform.ln() / rate_per_s * 1e9;
        #[expect(clippy::cast_possible_truncation, reason = "far below 2^63")]
        let nanoseconds = now as i64;
        nanoseconds
    };
    (0..requests).map(|_| arrival()).collect()
}
