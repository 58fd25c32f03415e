//! Cost models for Python, and Python's own cost models.

use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::to_python;
use crate::cost::{
    AllReduce, CostModel, FixedCost, MixtureShape, ModelShape, OperationCost, PhaseRates, Roofline,
    RooflineHardware, StepCost, StepShape,
};
use crate::error::SimError;
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
                        sampled_seqs=0))]
    fn new(
        prefill_seqs: u64,
        prefill_tokens: u64,
        prefill_attention_pairs: u64,
        prefill_context_tokens: u64,
        decode_seqs: u64,
        decode_context_tokens: u64,
        sampled_seqs: u64,
    ) -> Self {
        Self(StepShape {
            prefill_seqs,
            prefill_tokens,
            prefill_attention_pairs,
            prefill_context_tokens,
            decode_seqs,
            decode_context_tokens,
            sampled_seqs,
        })
    }

    /// A step of whole prompts, each on top of `cached_length` cached tokens.
    #[staticmethod]
    #[pyo3(signature = (batch_size, seq_length, cached_length=0))]
    fn prefill(batch_size: u32, seq_length: u32, cached_length: u32) -> Self {
        Self(StepShape::prefill(batch_size.into(), seq_length.into(), cached_length.into()))
    }

    /// A step of one token per sequence; `context_length` counts the new token.
    #[staticmethod]
    fn decode(batch_size: u32, context_length: u32) -> Self {
        Self(StepShape::decode(batch_size.into(), context_length.into()))
    }

    #[getter]
    fn prefill_seqs(&self) -> u64 {
        self.0.prefill_seqs
    }

    #[getter]
    fn prefill_tokens(&self) -> u64 {
        self.0.prefill_tokens
    }

    #[getter]
    fn prefill_attention_pairs(&self) -> u64 {
        self.0.prefill_attention_pairs
    }

    #[getter]
    fn prefill_context_tokens(&self) -> u64 {
        self.0.prefill_context_tokens
    }

    #[getter]
    fn decode_seqs(&self) -> u64 {
        self.0.decode_seqs
    }

    #[getter]
    fn decode_context_tokens(&self) -> u64 {
        self.0.decode_context_tokens
    }

    #[getter]
    fn sampled_seqs(&self) -> u64 {
        self.0.sampled_seqs
    }

    fn __repr__(&self) -> String {
        let shape = &self.0;
        format!(
            "StepShape(prefill_seqs={}, prefill_tokens={}, prefill_attention_pairs={}, \
             prefill_context_tokens={}, decode_seqs={}, decode_context_tokens={}, sampled_seqs={})",
            shape.prefill_seqs,
            shape.prefill_tokens,
            shape.prefill_attention_pairs,
            shape.prefill_context_tokens,
            shape.decode_seqs,
            shape.decode_context_tokens,
            shape.sampled_seqs
        )
    }
}

/// One component of a step: what it computes, moves and takes.
#[pyclass(name = "OperationCost", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyOperationCost(OperationCost);

#[pymethods]
impl PyOperationCost {
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name
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
struct MixtureShapeArgument {
    num_layers: u32,
    num_experts: u32,
    experts_per_token: u32,
    intermediate_size: u32,
    shared_intermediate_size: u32,
    weight_bytes: f64,
}

#[derive(FromPyObject)]
struct ModelShapeArgument {
    num_layers: u32,
    hidden_size: u32,
    num_attention_heads: u32,
    num_key_value_heads: u32,
    head_dim: u32,
    intermediate_size: u32,
    gated_mlp: bool,
    vocab_size: u32,
    tensor_parallel_size: u32,
    mixture: Option<MixtureShapeArgument>,
    weight_bytes: f64,
    embedding_bytes: f64,
    activation_bytes: f64,
    kv_cache_bytes: f64,
}

#[derive(FromPyObject)]
struct PhaseRatesArgument {
    linear_flops: f64,
    attention_flops: f64,
    memory_bandwidth: f64,
}

impl From<PhaseRatesArgument> for PhaseRates {
    fn from(rates: PhaseRatesArgument) -> Self {
        Self {
            linear_flops: rates.linear_flops,
            attention_flops: rates.attention_flops,
            memory_bandwidth: rates.memory_bandwidth,
        }
    }
}

#[derive(FromPyObject)]
struct RooflineHardwareArgument {
    prefill: PhaseRatesArgument,
    decode: PhaseRatesArgument,
    kernel_latency_s: f64,
    step_overhead_s: f64,
    sequence_overhead_s: f64,
    link_bandwidth: f64,
    link_latency_s: f64,
    all_reduce: String,
}

/// What prices a step; immutable, shared by engines.
#[pyclass(name = "CostModel", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyCostModel {
    pub(crate) model: CostModel,
    pub(crate) raised: Raised,
}

impl PyCostModel {
    fn own(model: CostModel) -> Self {
        Self { model, raised: Raised::default() }
    }
}

#[pymethods]
impl PyCostModel {
    #[staticmethod]
    #[pyo3(signature = (step_ns, prefill_token_ns=0, decode_seq_ns=0, context_token_ns=0))]
    fn fixed(
        step_ns: u64,
        prefill_token_ns: u64,
        decode_seq_ns: u64,
        context_token_ns: u64,
    ) -> Self {
        let model = FixedCost { step_ns, prefill_token_ns, decode_seq_ns, context_token_ns };
        Self::own(CostModel::Fixed(model))
    }

    #[staticmethod]
    fn roofline(
        py: Python<'_>,
        model: ModelShapeArgument,
        hardware: RooflineHardwareArgument,
    ) -> PyResult<Self> {
        let all_reduce = match hardware.all_reduce.as_str() {
            "ring" => AllReduce::Ring,
            "tree" => AllReduce::Tree,
            "auto" => AllReduce::Auto,
            other => {
                let message = format!("all_reduce={other:?}: must be 'ring', 'tree' or 'auto'");
                return Err(PyValueError::new_err(message));
            }
        };
        let model = ModelShape {
            num_layers: model.num_layers,
            hidden_size: model.hidden_size,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            head_dim: model.head_dim,
            intermediate_size: model.intermediate_size,
            gated_mlp: model.gated_mlp,
            vocab_size: model.vocab_size,
            tensor_parallel_size: model.tensor_parallel_size,
            mixture: model.mixture.map(|mixture| MixtureShape {
                num_layers: mixture.num_layers,
                num_experts: mixture.num_experts,
                experts_per_token: mixture.experts_per_token,
                intermediate_size: mixture.intermediate_size,
                shared_intermediate_size: mixture.shared_intermediate_size,
                weight_bytes: mixture.weight_bytes,
            }),
            weight_bytes: model.weight_bytes,
            embedding_bytes: model.embedding_bytes,
            activation_bytes: model.activation_bytes,
            kv_cache_bytes: model.kv_cache_bytes,
        };
        let hardware = RooflineHardware {
            prefill: hardware.prefill.into(),
            decode: hardware.decode.into(),
            kernel_latency_s: hardware.kernel_latency_s,
            step_overhead_s: hardware.step_overhead_s,
            sequence_overhead_s: hardware.sequence_overhead_s,
            link_bandwidth: hardware.link_bandwidth,
            link_latency_s: hardware.link_latency_s,
            all_reduce,
        };
        let roofline = Roofline::new(&model, hardware).map_err(|error| to_python(py, &error))?;
        Ok(Self::own(CostModel::Roofline(Arc::new(roofline))))
    }

    #[staticmethod]
    fn external(step_seconds: Py<PyAny>) -> Self {
        let raised = Raised::default();
        let model = PythonCost { step_seconds, raised: raised.clone() };
        Self { model: CostModel::External(Arc::new(model)), raised }
    }

    fn step_ns(&self, py: Python<'_>, step: &PyStepShape) -> PyResult<u64> {
        let duration = self.model.step_duration(&step.0);
        duration.map(SimDuration::as_nanos).map_err(|error| self.raised.or(py, &error))
    }

    fn step_seconds(&self, py: Python<'_>, step: &PyStepShape) -> PyResult<f64> {
        self.model.step_seconds(&step.0).map_err(|error| self.raised.or(py, &error))
    }

    fn breakdown(&self, step: &PyStepShape) -> PyResult<Vec<PyOperationCost>> {
        let Some(components) = self.model.breakdown(&step.0) else {
            return Err(PyValueError::new_err("only roofline cost models have components"));
        };
        Ok(components.into_iter().map(PyOperationCost).collect())
    }
}

/// The exception that a Python cost model raised last: errors of the core carry text only.
#[derive(Clone, Default)]
pub(crate) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    pub(crate) fn put(&self, error: PyErr) {
        if let Ok(mut raised) = self.0.lock() {
            *raised = Some(error);
        }
    }

    /// The exception, once.
    pub(crate) fn take(&self) -> Option<PyErr> {
        self.0.lock().ok()?.take()
    }

    /// The exception itself where there is one, else the error in Python's words.
    fn or(&self, py: Python<'_>, error: &SimError) -> PyErr {
        self.take().unwrap_or_else(|| to_python(py, error))
    }
}

/// A Python callable as a cost model.
struct PythonCost {
    step_seconds: Py<PyAny>,
    raised: Raised,
}

impl StepCost for PythonCost {
    fn step_seconds(&self, step: &StepShape) -> Result<f64, SimError> {
        Python::attach(|py| {
            let seconds = self.step_seconds.call1(py, (PyStepShape(*step),));
            seconds.and_then(|seconds| seconds.extract::<f64>(py)).map_err(|error| {
                let message = error.to_string();
                self.raised.put(error);
                SimError::External { message }
            })
        })
    }
}
