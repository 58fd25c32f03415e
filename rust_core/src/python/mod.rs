//! The Python binding: conversions, errors and the module. Nothing else knows `PyO3` or numpy.
//!
//! It needs no interpreter lock (`gil_used = false`): its classes are frozen, what changes behind them
//! stands under a lock of its own, and no function keeps anything between calls. What it leaves to the
//! caller is numpy's own rule: no thread writes to a column while another hands it over.

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
#[pymodule(gil_used = false)]
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
