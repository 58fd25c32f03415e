//! Cost models for Python, and Python's own cost models.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::to_python;
use super::settings::window;
use crate::cost::{
    self, AllReduce, CostModel, Curve, FixedCost, Function, Kind, Mixture, Operation,
    OperationCost, PhaseRates, PrefillSurface, Provenance, Roofline, RooflineHardware, Runs,
    StepCost, StepShape, Surface, Table, Term,
};
use crate::error::{Cause, SimError};
use crate::time::SimDuration;

/// What a cost model sees of a step: sums over its requests.
#[pyclass(name = "StepShape", module = "llm_inference_simulator._core", frozen, eq)]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct PyStepShape(pub(crate) StepShape);

#[pymethods]
impl PyStepShape {
    #[new]
    #[pyo3(signature = (*, prefill_seqs=0, prefill_tokens=0, prefill_attention_pairs=0,
                        prefill_context_tokens=0, decode_seqs=0, decode_context_tokens=0,
                        sampled_seqs=0, prefill_window_pairs=0, prefill_window_tokens=0,
                        decode_window_tokens=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python constructor")]
    const fn new(
        prefill_seqs: u64,
        prefill_tokens: u64,
        prefill_attention_pairs: u64,
        prefill_context_tokens: u64,
        decode_seqs: u64,
        decode_context_tokens: u64,
        sampled_seqs: u64,
        prefill_window_pairs: u64,
        prefill_window_tokens: u64,
        decode_window_tokens: u64,
    ) -> Self {
        Self(StepShape {
            prefill_seqs,
            prefill_tokens,
            prefill_attention_pairs,
            prefill_context_tokens,
            decode_seqs,
            decode_context_tokens,
            sampled_seqs,
            prefill_window_pairs,
            prefill_window_tokens,
            decode_window_tokens,
        })
    }

    /// A step of whole prompts, each on top of `cached_length` cached tokens.
    #[staticmethod]
    #[pyo3(signature = (batch_size, seq_length, cached_length=0, attention_window=None))]
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn prefill(
        py: Python<'_>,
        batch_size: u32,
        seq_length: u32,
        cached_length: u32,
        attention_window: Option<(String, u32)>,
    ) -> PyResult<Self> {
        let window = window(py, attention_window.as_ref())?;
        let (seqs, new, cached) = (batch_size.into(), seq_length.into(), cached_length.into());
        Ok(Self(StepShape::prefill(seqs, new, cached, window)))
    }

    /// A step of one token per sequence; `context_length` counts the new token.
    #[staticmethod]
    #[pyo3(signature = (batch_size, context_length, attention_window=None))]
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn decode(
        py: Python<'_>,
        batch_size: u32,
        context_length: u32,
        attention_window: Option<(String, u32)>,
    ) -> PyResult<Self> {
        let window = window(py, attention_window.as_ref())?;
        Ok(Self(StepShape::decode(batch_size.into(), context_length.into(), window)))
    }

    #[getter]
    const fn prefill_seqs(&self) -> u64 {
        self.0.prefill_seqs
    }

    #[getter]
    const fn prefill_tokens(&self) -> u64 {
        self.0.prefill_tokens
    }

    #[getter]
    const fn prefill_attention_pairs(&self) -> u64 {
        self.0.prefill_attention_pairs
    }

    #[getter]
    const fn prefill_context_tokens(&self) -> u64 {
        self.0.prefill_context_tokens
    }

    #[getter]
    const fn decode_seqs(&self) -> u64 {
        self.0.decode_seqs
    }

    #[getter]
    const fn decode_context_tokens(&self) -> u64 {
        self.0.decode_context_tokens
    }

    #[getter]
    const fn sampled_seqs(&self) -> u64 {
        self.0.sampled_seqs
    }

    #[getter]
    const fn prefill_window_pairs(&self) -> u64 {
        self.0.prefill_window_pairs
    }

    #[getter]
    const fn prefill_window_tokens(&self) -> u64 {
        self.0.prefill_window_tokens
    }

    #[getter]
    const fn decode_window_tokens(&self) -> u64 {
        self.0.decode_window_tokens
    }

    fn __repr__(&self) -> String {
        // The derived text, without the spaces and braces of Rust.
        let text = format!("{:?}", self.0);
        let sums = text.trim_start_matches("StepShape { ").trim_end_matches(" }");
        format!("StepShape({})", sums.replace(": ", "="))
    }
}

/// One component of a step: what it computes, moves and takes.
#[pyclass(name = "OperationCost", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyOperationCost(OperationCost);

#[pymethods]
impl PyOperationCost {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn operations(&self) -> f64 {
        self.0.operations
    }

    #[getter]
    fn bytes(&self) -> f64 {
        self.0.bytes
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.0.seconds
    }

    #[getter]
    fn bound(&self) -> &'static str {
        self.0.bound.as_str()
    }

    #[getter]
    const fn linear(&self) -> bool {
        self.0.linear
    }

    #[getter]
    fn provenance(&self) -> &'static str {
        self.0.provenance.as_str()
    }

    fn __repr__(&self) -> String {
        format!(
            "OperationCost({}: {:.6e} s, {})",
            self.0.name,
            self.0.seconds,
            self.0.bound.as_str()
        )
    }
}

#[derive(FromPyObject)]
struct OperationArgument {
    name: String,
    runs: String,
    kind: String,
    repeat: f64,
    shared: bool,
    operations: Vec<(String, f64)>,
    bytes: Vec<(String, f64)>,
}

#[derive(FromPyObject)]
struct MixtureArgument {
    num_experts: u32,
    experts_per_token: u32,
    engines: u32,
}

#[derive(FromPyObject)]
struct CompositionArgument {
    operations: Vec<OperationArgument>,
    mixture: Option<MixtureArgument>,
    ranks: u32,
}

impl CompositionArgument {
    fn roofline(self, hardware: RooflineHardwareArgument) -> Result<Roofline, SimError> {
        let operations = self
            .operations
            .into_iter()
            .map(|given| {
                let (runs, kind) = (Runs::parse(&given.runs)?, Kind::parse(&given.kind)?);
                let (work, bytes) = (&given.operations, &given.bytes);
                let (repeat, shared) = (given.repeat, given.shared);
                Operation::new(&given.name, runs, kind, repeat, shared, work, bytes)
            })
            .collect::<Result<Vec<Operation>, SimError>>()?;
        let mixture = self.mixture.map(|mixture| Mixture {
            num_experts: mixture.num_experts,
            experts_per_token: mixture.experts_per_token,
            engines: mixture.engines,
        });
        Roofline::new(operations, mixture.as_ref(), self.ranks, hardware.try_into()?)
    }
}

#[derive(FromPyObject)]
struct TermArgument {
    name: String,
    /// tokens, seqs, sampled, decode, `decode_window` or prefill.
    function: String,
    x: Vec<f64>,
    /// Second axis of surfaces.
    y: Vec<f64>,
    values: Vec<f64>,
    provenance: String,
    bound: Option<String>,
    shared: bool,
    seconds_per_pair: f64,
    saturating_tokens: f64,
    seconds_per_key: f64,
    window: u64,
}

impl TryFrom<TermArgument> for Term {
    type Error = SimError;

    fn try_from(given: TermArgument) -> Result<Self, SimError> {
        let unknown = |field, value: &str, remedy| SimError::InvalidSetting {
            field,
            value: value.to_owned(),
            remedy,
        };
        let provenance = match given.provenance.as_str() {
            "measured" => Provenance::Measured,
            "interpolated" => Provenance::Interpolated,
            "fitted" => Provenance::Fitted,
            "extrapolated" => Provenance::Extrapolated,
            "analytic" => Provenance::Analytic,
            other => return Err(unknown("provenance", other, "is not one of the five words")),
        };
        let bound = match given.bound.as_deref() {
            None => None,
            Some("communication") => Some(cost::Bound::Communication),
            Some("overhead") => Some(cost::Bound::Overhead),
            Some(other) => {
                return Err(unknown("bound", other, "must be communication or overhead"));
            }
        };
        let function = match given.function.as_str() {
            "tokens" => Function::Tokens(Curve::new(given.x, given.values)?),
            "seqs" => Function::Seqs(Curve::new(given.x, given.values)?),
            "sampled" => Function::Sampled(Curve::new(given.x, given.values)?),
            "decode" => Function::Decode(Surface::new(given.x, given.y, &given.values)?),
            "decode_window" => {
                Function::DecodeWindow(Surface::new(given.x, given.y, &given.values)?)
            }
            "prefill" => Function::Prefill(PrefillSurface {
                fresh: Surface::new(given.x, given.y, &given.values)?,
                seconds_per_pair: given.seconds_per_pair,
                saturating_tokens: given.saturating_tokens,
                seconds_per_key: given.seconds_per_key,
                window: given.window,
            }),
            other => return Err(unknown("function", other, "is not a function of a step")),
        };
        Ok(Self { name: given.name.into(), function, provenance, bound, shared: given.shared })
    }
}

#[derive(FromPyObject)]
struct PhaseRatesArgument {
    linear_flops: f64,
    attention_flops: f64,
    memory_bandwidth: f64,
    step_overhead_s: f64,
}

impl From<PhaseRatesArgument> for PhaseRates {
    fn from(rates: PhaseRatesArgument) -> Self {
        Self {
            linear_flops: rates.linear_flops,
            attention_flops: rates.attention_flops,
            memory_bandwidth: rates.memory_bandwidth,
            step_overhead_s: rates.step_overhead_s,
        }
    }
}

#[derive(FromPyObject)]
struct RooflineHardwareArgument {
    prefill: PhaseRatesArgument,
    decode: PhaseRatesArgument,
    kernel_latency_s: f64,
    sequence_overhead_s: f64,
    link_bandwidth: f64,
    link_latency_s: f64,
    all_reduce: String,
    exchange_bandwidth: Option<f64>,
    exchange_latency_s: Option<f64>,
}

impl TryFrom<RooflineHardwareArgument> for RooflineHardware {
    type Error = SimError;

    fn try_from(given: RooflineHardwareArgument) -> Result<Self, SimError> {
        let all_reduce = match given.all_reduce.as_str() {
            "ring" => AllReduce::Ring,
            "tree" => AllReduce::Tree,
            "auto" => AllReduce::Auto,
            other => {
                return Err(SimError::InvalidSetting {
                    field: "all_reduce",
                    value: other.to_owned(),
                    remedy: "must be ring, tree or auto",
                });
            }
        };
        Ok(Self {
            prefill: given.prefill.into(),
            decode: given.decode.into(),
            kernel_latency_s: given.kernel_latency_s,
            sequence_overhead_s: given.sequence_overhead_s,
            link_bandwidth: given.link_bandwidth,
            link_latency_s: given.link_latency_s,
            all_reduce,
            exchange_bandwidth: given.exchange_bandwidth.unwrap_or(given.link_bandwidth),
            exchange_latency_s: given.exchange_latency_s.unwrap_or(given.link_latency_s),
        })
    }
}

/// What prices a step; immutable, shared by engines.
#[pyclass(name = "CostModel", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyCostModel(pub(crate) CostModel);

#[pymethods]
impl PyCostModel {
    #[staticmethod]
    #[pyo3(signature = (step_ns, prefill_token_ns=0, decode_seq_ns=0, context_token_ns=0,
                        shared_token_ns=0))]
    fn fixed(
        step_ns: u64,
        prefill_token_ns: u64,
        decode_seq_ns: u64,
        context_token_ns: u64,
        shared_token_ns: u64,
    ) -> Self {
        let model = FixedCost {
            step_ns,
            prefill_token_ns,
            decode_seq_ns,
            context_token_ns,
            shared_token_ns,
        };
        Self(CostModel::Fixed(model))
    }

    #[staticmethod]
    fn roofline(
        py: Python<'_>,
        composition: CompositionArgument,
        hardware: RooflineHardwareArgument,
    ) -> PyResult<Self> {
        let roofline = composition.roofline(hardware).map_err(|error| to_python(py, &error))?;
        Ok(Self(CostModel::Roofline(Arc::new(roofline))))
    }

    #[staticmethod]
    fn table(
        py: Python<'_>,
        composition: CompositionArgument,
        hardware: RooflineHardwareArgument,
        decode_terms: Vec<TermArgument>,
        mixed_terms: Vec<TermArgument>,
    ) -> PyResult<Self> {
        let compile = || {
            let terms = |given: Vec<TermArgument>| -> Result<Vec<Term>, SimError> {
                given.into_iter().map(Term::try_from).collect()
            };
            Table::new(composition.roofline(hardware)?, terms(decode_terms)?, terms(mixed_terms)?)
        };
        let table = compile().map_err(|error| to_python(py, &error))?;
        Ok(Self(CostModel::Table(Arc::new(table))))
    }

    #[staticmethod]
    fn external(step_seconds: Py<PyAny>) -> Self {
        Self(CostModel::External(Arc::new(PythonCost(step_seconds))))
    }

    fn step_ns(&self, py: Python<'_>, step: &PyStepShape) -> PyResult<u64> {
        let duration = self.0.step_duration(&step.0);
        duration.map(SimDuration::as_nanos).map_err(|error| to_python(py, &error))
    }

    fn group_step_ns(
        &self,
        py: Python<'_>,
        step: &PyStepShape,
        group_tokens: u64,
    ) -> PyResult<u64> {
        let duration = self.0.group_step_duration(&step.0, group_tokens);
        duration.map(SimDuration::as_nanos).map_err(|error| to_python(py, &error))
    }

    fn step_seconds(&self, py: Python<'_>, step: &PyStepShape) -> PyResult<f64> {
        self.0.step_seconds(&step.0).map_err(|error| to_python(py, &error))
    }

    fn breakdown(&self, step: &PyStepShape) -> PyResult<Vec<PyOperationCost>> {
        let Some(components) = self.0.breakdown(&step.0) else {
            return Err(PyValueError::new_err("fixed and external cost models have no components"));
        };
        Ok(components.into_iter().map(PyOperationCost).collect())
    }
}

/// A Python callable as a cost model.
struct PythonCost(Py<PyAny>);

impl StepCost for PythonCost {
    fn step_seconds(&self, step: &StepShape) -> Result<f64, SimError> {
        Python::attach(|py| {
            let seconds = self.0.call1(py, (PyStepShape(*step),));
            seconds
                .and_then(|seconds| seconds.extract::<f64>(py))
                .map_err(|error| SimError::External(Cause::new(error)))
        })
    }
}
