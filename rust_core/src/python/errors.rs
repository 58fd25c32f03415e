//! Errors of the core as the package's own exceptions.

use pyo3::prelude::*;

use crate::error::SimError;

/// The Python exception that says the same; `SimulationError` where the run itself failed,
/// `ConfigError` and `WorkloadError` where the input was wrong.
pub(crate) fn to_python(py: Python<'_>, error: &SimError) -> PyErr {
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
