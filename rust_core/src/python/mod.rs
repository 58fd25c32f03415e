//! The Python binding: conversions, errors and the module. Nothing else knows `PyO3` or numpy.

mod columns;
mod cost;
mod errors;
mod fleet;
mod replay;
mod router;
mod settings;
mod simulation;

use pyo3::prelude::*;

/// The Rust core: event loop, vLLM V1 scheduling rules, KV cache and cost models.
#[pymodule]
mod _core {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_export]
    use super::cost::{PyCostModel, PyOperationCost, PyStepShape};
    #[pymodule_export]
    use super::replay::PySchedulerReplay;
    #[pymodule_export]
    use super::router::{PyRouterEngines, PyRouterRequest};
    #[pymodule_export]
    use super::simulation::{PyEngineStats, PyProgress, PySimulation, PyTokenGaps};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
