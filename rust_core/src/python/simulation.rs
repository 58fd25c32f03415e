//! The simulation for Python: columns in, slices without the interpreter lock, columns out.

use std::sync::{Mutex, MutexGuard};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::columns::{request_columns, signed, wide};
use super::cost::{PyCostModel, PyStepShape};
use super::errors::to_python;
use super::fleet::FleetArgument;
use super::router::policy;
use super::settings::{EngineSettingsArgument, TransferArgument};
use crate::cost::StepShape;
use crate::engine::EngineStats;
use crate::recorder::{Call, Decision};
use crate::scheduler::Row;
use crate::simulation::{Options, Pool, Progress, Simulation, StreamSettings};
use crate::time::{SimDuration, SimTime};
use crate::token_gaps::TokenGaps;
use crate::workload::{NewRequests, Workload};

/// Where a simulation stands.
#[pyclass(name = "Progress", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyProgress(Progress);

#[pymethods]
impl PyProgress {
    #[getter]
    fn done(&self) -> bool {
        self.0.done
    }

    #[getter]
    fn now_ns(&self) -> u64 {
        self.0.now.as_nanos()
    }

    #[getter]
    fn arrived(&self) -> usize {
        self.0.arrived
    }

    #[getter]
    fn answered(&self) -> usize {
        self.0.answered
    }

    #[getter]
    fn needs_requests(&self) -> bool {
        self.0.needs_requests
    }

    #[getter]
    fn steps(&self) -> u64 {
        self.0.steps
    }
}

/// Totals of one engine over the whole run.
#[pyclass(name = "EngineStats", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyEngineStats(EngineStats);

#[pymethods]
impl PyEngineStats {
    #[getter]
    fn steps(&self) -> u64 {
        self.0.totals.steps
    }

    #[getter]
    fn dummy_steps(&self) -> u64 {
        self.0.dummy_steps
    }

    #[getter]
    fn preemptions(&self) -> u64 {
        self.0.counts.preemptions
    }

    #[getter]
    fn busy_ns(&self) -> u64 {
        self.0.counts.busy_ns
    }

    #[getter]
    fn requests(&self) -> u64 {
        self.0.counts.requests
    }

    #[getter]
    fn prefix_queries(&self) -> u64 {
        self.0.counts.prefix_queries
    }

    #[getter]
    fn prefix_hits(&self) -> u64 {
        self.0.counts.prefix_hits
    }

    #[getter]
    fn used_blocks(&self) -> u32 {
        self.0.used_blocks
    }

    #[getter]
    fn peak_blocks(&self) -> u32 {
        self.0.peak_blocks
    }

    #[getter]
    fn total(&self) -> PyStepShape {
        PyStepShape(self.0.totals.shape)
    }

    #[getter]
    fn operations(&self) -> f64 {
        self.0.operations
    }

    #[getter]
    fn bytes(&self) -> f64 {
        self.0.bytes
    }
}

/// A cluster and its workload, advanced slice by slice.
#[pyclass(name = "Simulation", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PySimulation(Mutex<Simulation>);

/// Gaps between consecutive tokens, pooled over requests.
#[pyclass(name = "TokenGaps", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyTokenGaps {
    gaps: TokenGaps,
    simulation: Py<PySimulation>,
}

#[pymethods]
impl PyTokenGaps {
    #[getter]
    fn count(&self) -> u64 {
        self.gaps.count()
    }

    /// (mean, population standard deviation) in nanoseconds; None without gaps.
    fn mean_and_deviation(&self, py: Python<'_>) -> PyResult<Option<(f64, f64)>> {
        let simulation = self.simulation.get().lock(py)?;
        Ok(self.gaps.mean_and_deviation(&simulation.step_ends()))
    }

    /// The gaps of these ranks in nanoseconds; 0 is the shortest.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn at_ranks<'py>(
        &self,
        py: Python<'py>,
        ranks: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let count = self.gaps.count();
        let checked = |&rank: &i64| match u64::try_from(rank) {
            Ok(rank) if rank < count => Ok(rank),
            _ => Err(PyValueError::new_err(format!("rank {rank} is not one of {count}"))),
        };
        let ranks = ranks.as_slice()?.iter().map(checked).collect::<PyResult<Vec<u64>>>()?;
        let simulation = self.simulation.get().lock(py)?;
        let gaps = self.gaps.at_ranks(&simulation.step_ends(), &ranks);
        Ok(signed(py, gaps.into_iter()))
    }
}

/// What prices an engine's steps: one model, or one for each stage of its pipeline.
#[derive(FromPyObject)]
enum StagesArgument {
    One(Py<PyCostModel>),
    Each(Vec<Py<PyCostModel>>),
}

impl StagesArgument {
    fn models(&self) -> &[Py<PyCostModel>] {
        match self {
            Self::One(model) => std::slice::from_ref(model),
            Self::Each(models) => models,
        }
    }
}

/// One of a step's sums.
type Sum = fn(&StepShape) -> u64;

/// Log, steps, rows and preempted requests of recorded decisions.
type DecisionColumns<'py> =
    (Bound<'py, PyDict>, Bound<'py, PyDict>, Bound<'py, PyDict>, Bound<'py, PyArray1<i64>>);

/// Buckets and sums of a gap histogram.
type GapColumns<'py> = (Bound<'py, PyArray1<i64>>, u128, u128, u64, u64);

type Columns<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

#[pymethods]
impl PySimulation {
    #[new]
    #[pyo3(signature = (*, pools, router, arrival_ns, prompt_tokens, output_tokens,
                        max_concurrency=None, priority=None, after=None, think_ns=None,
                        block_offsets=None, block_ids=None, transfer=None, fleet=None, router_seed=0,
                        router_view_delay_ns=0, router_imbalance=32,
                        request_latency_ns=0, response_latency_ns=0, record_steps=false,
                        record_decisions=false, step_by_step=false, streaming=None,
                        common_blocks=0, threads=1))]
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python constructor")]
    fn new(
        py: Python<'_>,
        pools: Vec<(EngineSettingsArgument, StagesArgument, u32)>,
        router: &Bound<'_, PyAny>,
        arrival_ns: PyReadonlyArray1<'_, i64>,
        prompt_tokens: PyReadonlyArray1<'_, i64>,
        output_tokens: PyReadonlyArray1<'_, i64>,
        max_concurrency: Option<usize>,
        priority: Option<PyReadonlyArray1<'_, i64>>,
        after: Option<PyReadonlyArray1<'_, i64>>,
        think_ns: Option<PyReadonlyArray1<'_, i64>>,
        block_offsets: Option<PyReadonlyArray1<'_, i64>>,
        block_ids: Option<PyReadonlyArray1<'_, i64>>,
        transfer: Option<TransferArgument>,
        fleet: Option<FleetArgument>,
        router_seed: u64,
        router_view_delay_ns: u64,
        router_imbalance: u64,
        request_latency_ns: u64,
        response_latency_ns: u64,
        record_steps: bool,
        record_decisions: bool,
        step_by_step: bool,
        streaming: Option<u64>,
        common_blocks: u32,
        threads: usize,
    ) -> PyResult<Self> {
        let view_delay = SimDuration::from_nanos(router_view_delay_ns);
        let policy = policy(router, view_delay, router_imbalance)?;
        let mut core_pools = Vec::with_capacity(pools.len());
        for (settings, stages, count) in &pools {
            let stages = stages.models();
            core_pools.push(Pool {
                settings: settings.settings(py)?,
                stages: stages.iter().map(|cost| cost.get().0.clone()).collect(),
                hops: settings.hops(),
                count: *count,
            });
        }
        let arrivals = arrival_ns.as_slice()?;
        let prompts = prompt_tokens.as_slice()?;
        let outputs = output_tokens.as_slice()?;
        let priorities = priority.as_ref().map(|column| column.as_slice()).transpose()?;
        let after = after.as_ref().map(|column| column.as_slice()).transpose()?;
        let think_ns = think_ns.as_ref().map(|column| column.as_slice()).transpose()?;
        let blocks = match (&block_offsets, &block_ids) {
            (Some(offsets), Some(ids)) => Some((offsets.as_slice()?, ids.as_slice()?)),
            _ => None,
        };
        let options = Options {
            seed: router_seed,
            transfer: transfer.map(|argument| argument.settings()),
            request_latency: SimDuration::from_nanos(request_latency_ns),
            response_latency: SimDuration::from_nanos(response_latency_ns),
            record_steps,
            record_decisions,
            step_by_step,
            threads,
            stream: streaming
                .map(|warm_up_ns| StreamSettings { warm_up: SimTime::from_nanos(warm_up_ns) }),
        };
        let fleet = fleet.map(|argument| argument.settings()).transpose()?;
        let build = || {
            let mut workload = Workload::new(arrivals, prompts, outputs, max_concurrency)?;
            if let Some(priorities) = priorities {
                workload = workload.with_priorities(priorities.to_vec())?;
            }
            if let Some(after) = after {
                workload = workload.with_after(after)?;
            }
            if let Some(think_ns) = think_ns {
                workload = workload.with_thinks(think_ns)?;
            }
            if let Some((offsets, ids)) = blocks {
                // Where one side of a transfer dies, the other keeps what it has computed.
                let returns = options.transfer.is_some() && fleet.is_some();
                workload = workload.with_blocks(offsets, ids, returns)?;
            }
            if common_blocks > 0 {
                workload = workload.with_common_blocks(common_blocks);
            }
            Simulation::new(&core_pools, &policy, workload, options, fleet)
        };
        let simulation = build().map_err(|error| to_python(py, &error))?;
        Ok(Self(Mutex::new(simulation)))
    }

    /// Process at most `max_events` events with the interpreter lock released.
    fn run_slice(&self, py: Python<'_>, max_events: u64) -> PyResult<PyProgress> {
        let result = py.detach(|| match self.0.lock() {
            Ok(mut simulation) => Some(simulation.run_slice(max_events)),
            Err(_) => None,
        });
        match result {
            Some(Ok(progress)) => Ok(PyProgress(progress)),
            Some(Err(error)) => Err(to_python(py, &error)),
            None => Err(poisoned()),
        }
    }

    /// Append requests to a streamed run; `last`: none will follow.
    #[pyo3(signature = (arrival_ns, prompt_tokens, output_tokens, priority=None, *, last))]
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn feed(
        &self,
        py: Python<'_>,
        arrival_ns: PyReadonlyArray1<'_, i64>,
        prompt_tokens: PyReadonlyArray1<'_, i64>,
        output_tokens: PyReadonlyArray1<'_, i64>,
        priority: Option<PyReadonlyArray1<'_, i64>>,
        last: bool,
    ) -> PyResult<()> {
        let mut simulation = self.lock(py)?;
        let new = NewRequests {
            arrival_ns: arrival_ns.as_slice()?,
            prompt_tokens: prompt_tokens.as_slice()?,
            output_tokens: output_tokens.as_slice()?,
            priorities: priority.as_ref().map(|column| column.as_slice()).transpose()?,
        };
        simulation.feed(&new, 0, last).map_err(|error| to_python(py, &error))
    }

    /// Rows of a streamed run that are final and were not taken yet.
    fn ended_rows(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.lock(py)?.ended_rows())
    }

    /// Take the first `count` final rows out of a streamed run, as request columns.
    fn take_rows<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyDict>> {
        let mut simulation = self.lock(py)?;
        let range = 0..count.min(simulation.ended_rows());
        let prompts = simulation.prompt_tokens();
        let columns = request_columns(py, simulation.requests(), prompts, &range)?;
        let requested = &simulation.requested_tokens()[range.clone()];
        columns.set_item("requested_output_tokens", wide(py, requested))?;
        simulation.drop_rows(range.end);
        Ok(columns)
    }

    /// End a streamed run here: requests without an answer are final too.
    fn close_stream(&self, py: Python<'_>) -> PyResult<()> {
        self.lock(py)?.close_stream();
        Ok(())
    }

    /// Gaps between tokens of a streamed run: (counts by bucket, sum, sum of squares, least, most).
    fn gap_histogram<'py>(&self, py: Python<'py>) -> PyResult<GapColumns<'py>> {
        let simulation = self.lock(py)?;
        let Some(gaps) = simulation.gap_histogram() else {
            return Err(PyValueError::new_err("the run is not streamed: pass streaming=0"));
        };
        let buckets = signed(py, gaps.buckets.iter().copied());
        Ok((buckets, gaps.sum, gaps.squares, gaps.least, gaps.most))
    }

    /// Request columns by name.
    fn request_columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let simulation = self.lock(py)?;
        let prompts = simulation.prompt_tokens();
        request_columns(py, simulation.requests(), prompts, &(0..prompts.len()))
    }

    /// Step columns by name.
    fn step_columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let simulation = self.lock(py)?;
        let Some(rows) = simulation.steps() else {
            return Err(PyValueError::new_err("steps were not recorded: pass record_steps=True"));
        };
        let columns = PyDict::new(py);
        columns.set_item("engine", wide(py, &rows.engine))?;
        columns.set_item("start_ns", signed(py, rows.start_ns.iter().copied()))?;
        columns.set_item("end_ns", signed(py, rows.end_ns.iter().copied()))?;
        let sums: [(&str, Sum); 10] = [
            ("prefill_seqs", |shape| shape.prefill_seqs),
            ("prefill_tokens", |shape| shape.prefill_tokens),
            ("prefill_attention_pairs", |shape| shape.prefill_attention_pairs),
            ("prefill_context_tokens", |shape| shape.prefill_context_tokens),
            ("decode_seqs", |shape| shape.decode_seqs),
            ("decode_context_tokens", |shape| shape.decode_context_tokens),
            ("sampled_seqs", |shape| shape.sampled_seqs),
            ("prefill_window_pairs", |shape| shape.prefill_window_pairs),
            ("prefill_window_tokens", |shape| shape.prefill_window_tokens),
            ("decode_window_tokens", |shape| shape.decode_window_tokens),
        ];
        for (name, sum) in sums {
            columns.set_item(name, signed(py, rows.shape.iter().map(sum)))?;
        }
        columns.set_item("preempted", wide(py, &rows.preempted))?;
        columns.set_item("running", wide(py, &rows.running))?;
        columns.set_item("waiting", signed(py, rows.waiting.iter().copied()))?;
        columns.set_item("free_blocks", wide(py, &rows.free_blocks))?;
        Ok(columns)
    }

    /// Every scheduling decision: (log, steps and rows by column, preempted requests).
    fn decisions<'py>(&self, py: Python<'py>) -> PyResult<DecisionColumns<'py>> {
        let simulation = self.lock(py)?;
        let Some(decisions) = simulation.decisions() else {
            let message = "decisions were not recorded: pass record_decisions=True";
            return Err(PyValueError::new_err(message));
        };
        let entry = |value: fn(&(u32, Call, usize)) -> usize| {
            signed(py, decisions.log.iter().map(|entry| value(entry) as u64))
        };
        let log = PyDict::new(py);
        log.set_item("engine", entry(|entry| entry.0 as usize))?;
        log.set_item("call", entry(|entry| entry.1 as usize))?;
        log.set_item("index", entry(|entry| entry.2))?;
        let step = |value: fn(&Decision) -> usize| {
            signed(py, decisions.steps.iter().map(|step| value(step) as u64))
        };
        let steps = PyDict::new(py);
        steps.set_item("rows_end", step(|step| step.rows_end))?;
        steps.set_item("preempted_end", step(|step| step.preempted_end))?;
        steps.set_item("free", step(|step| step.free_blocks as usize))?;
        steps.set_item("waiting", step(|step| step.waiting))?;
        steps.set_item("running", step(|step| step.running as usize))?;
        let row = |value: fn(&Row) -> u64| signed(py, decisions.rows.iter().map(value));
        let rows = PyDict::new(py);
        rows.set_item("request", row(|row| row.request.into()))?;
        rows.set_item("computed", row(|row| row.computed.into()))?;
        rows.set_item("tokens", row(|row| row.tokens.into()))?;
        rows.set_item("yields", row(|row| row.yields.into()))?;
        rows.set_item("last", row(|row| row.last.into()))?;
        Ok((log, steps, rows, wide(py, &decisions.preempted)))
    }

    /// Totals by engine.
    fn engine_stats(&self, py: Python<'_>) -> PyResult<Vec<PyEngineStats>> {
        let stats = self.lock(py)?.engine_stats();
        Ok(stats.into_iter().map(PyEngineStats).collect())
    }

    /// One hash over every step of every engine.
    fn trace_hash(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.trace_hash())
    }

    /// Gaps between consecutive tokens of counted requests.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn token_gaps(
        slf: &Bound<'_, Self>,
        counted: PyReadonlyArray1<'_, bool>,
    ) -> PyResult<PyTokenGaps> {
        let simulation = slf.get().lock(slf.py())?;
        let counted = counted.as_slice()?;
        let requests = simulation.prompt_tokens().len();
        if counted.len() != requests {
            let message = format!("counted has {} rows for {requests} requests", counted.len());
            return Err(PyValueError::new_err(message));
        }
        let ends = simulation.step_ends();
        let gaps = TokenGaps::new(simulation.requests(), &ends, |request| counted[request]);
        Ok(PyTokenGaps { gaps, simulation: slf.clone().unbind() })
    }

    /// Token times of the given requests and where each one's begin.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn token_times<'py>(
        &self,
        py: Python<'py>,
        requests: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Columns<'py>> {
        let simulation = self.lock(py)?;
        let count = simulation.prompt_tokens().len();
        let checked = |&request: &i64| match usize::try_from(request) {
            Ok(request) if request < count => Ok(request),
            _ => Err(PyValueError::new_err(format!("request {request} is not one of {count}"))),
        };
        let wanted = requests.as_slice()?.iter().map(checked).collect::<PyResult<Vec<usize>>>()?;
        let ends = simulation.step_ends();
        let (times, offsets) =
            simulation.requests().token_times(&ends, &wanted, simulation.response_latency_ns());
        Ok((times.into_pyarray(py), offsets.into_pyarray(py)))
    }
}

impl PySimulation {
    /// Wait for a slice in another thread without holding the interpreter lock.
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Simulation>> {
        use pyo3::sync::MutexExt;

        let mut simulation = self.0.lock_py_attached(py).map_err(|_| poisoned())?;
        simulation.collect();
        Ok(simulation)
    }
}

fn poisoned() -> PyErr {
    PyRuntimeError::new_err("this simulation stopped with an internal error and cannot go on")
}
