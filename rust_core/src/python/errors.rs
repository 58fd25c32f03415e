//! Errors of the core as the package's own exceptions.

use pyo3::prelude::*;

use crate::error::SimError;

/// The exception that code of the user raised, as it is; otherwise one that says the same:
/// `SimulationError` where the run itself failed, `ConfigError` and `WorkloadError` where the input
/// was wrong.
pub(crate) fn to_python(py: Python<'_>, error: &SimError) -> PyErr {
    if let SimError::External(cause) | SimError::Routing(cause) = error
        && let Some(raised) = cause.get::<PyErr>()
    {
        return raised.clone_ref(py);
    }
    let class = match error {
        SimError::InvalidSetting { .. } => "ConfigError",
        SimError::InvalidRequest { .. } | SimError::ColumnLength { .. } => "WorkloadError",
        _ => "SimulationError",
    };
    let raise = || -> PyResult<PyErr> {
        let class = py.import("llm_inference_simulator.errors")?.getattr(class)?;
        Ok(PyErr::from_value(class.call1((error.to_string(),))?))
    };
    raise().unwrap_or_else(|import_error| import_error)
}
