//! Routing by name or by a Python callable.

use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

use crate::error::{Cause, SimError};
use crate::router::{Incoming, Loads, RouteRequest, RoutingPolicy};
use crate::time::SimDuration;

/// A request that needs an engine.
#[pyclass(name = "RouterRequest", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyRouterRequest(Incoming);

#[pymethods]
impl PyRouterRequest {
    #[getter]
    fn index(&self) -> u32 {
        self.0.request
    }

    #[getter]
    fn now_ns(&self) -> u64 {
        self.0.now.as_nanos()
    }

    #[getter]
    fn prompt_tokens(&self) -> u32 {
        self.0.prompt
    }

    #[getter]
    fn output_tokens(&self) -> u32 {
        self.0.output
    }

    #[getter]
    fn previous(&self) -> Option<u32> {
        self.0.previous
    }
}

/// The engines that a router chooses from.
#[pyclass(name = "RouterEngines", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PyRouterEngines(Arc<Loads>);

#[pymethods]
impl PyRouterEngines {
    fn __len__(&self) -> usize {
        self.0.engines()
    }

    fn is_up(&self, engine: usize) -> PyResult<bool> {
        self.0.is_up(engine).ok_or_else(|| self.no_such(engine))
    }

    fn outstanding(&self, engine: usize) -> PyResult<u64> {
        self.0.requests(engine).ok_or_else(|| self.no_such(engine))
    }

    fn outstanding_tokens(&self, engine: usize) -> PyResult<u64> {
        self.0.tokens(engine).ok_or_else(|| self.no_such(engine))
    }
}

impl PyRouterEngines {
    fn no_such(&self, engine: usize) -> PyErr {
        let last = self.0.engines() - 1;
        PyIndexError::new_err(format!("there is no engine {engine}: there are 0 to {last}"))
    }
}

/// A Python callable that chooses engines.
struct PythonRouter(Py<PyAny>);

impl RouteRequest for PythonRouter {
    fn route(&self, incoming: &Incoming, loads: &Arc<Loads>) -> Result<u64, SimError> {
        Python::attach(|py| {
            let engines = PyRouterEngines(Arc::clone(loads));
            let chosen = self.0.call1(py, (PyRouterRequest(*incoming), engines));
            chosen
                .and_then(|engine| engine.extract::<u64>(py))
                .map_err(|error| SimError::Routing(Cause::new(error)))
        })
    }
}

/// The policy of a name, or of a callable.
pub(super) fn policy(
    router: &Bound<'_, PyAny>,
    view_delay: SimDuration,
    imbalance: u64,
) -> PyResult<RoutingPolicy> {
    if router.is_callable() {
        return Ok(RoutingPolicy::External(Arc::new(PythonRouter(router.clone().unbind()))));
    }
    let name: String = router.extract()?;
    RoutingPolicy::from_name(&name, view_delay, imbalance).ok_or_else(|| {
        let known = RoutingPolicy::NAMES.join(", ");
        PyValueError::new_err(format!("router={name:?}: must be one of {known}, or a callable"))
    })
}
