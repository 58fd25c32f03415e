//! The scheduler alone for Python, to replay recorded traces.

use std::sync::{Mutex, MutexGuard};

use numpy::PyReadonlyArray1;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::errors::to_python;
use super::settings::EngineSettingsArgument;
use crate::replay::Replay;
use crate::shared_blocks::SharedBlocks;

type Rows = Vec<(u32, u32, u32)>;

/// A scheduler that is told when to schedule and when outputs arrive.
#[pyclass(name = "SchedulerReplay", module = "llm_inference_simulator._core", frozen)]
pub(crate) struct PySchedulerReplay(Mutex<Replay>);

#[pymethods]
impl PySchedulerReplay {
    #[new]
    #[pyo3(signature = (settings, block_offsets, block_ids))]
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python objects")]
    fn new(
        py: Python<'_>,
        settings: EngineSettingsArgument,
        block_offsets: PyReadonlyArray1<'_, i64>,
        block_ids: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Self> {
        let settings = settings.settings(py)?;
        let replay = SharedBlocks::new(block_offsets.as_slice()?, block_ids.as_slice()?, false)
            .and_then(|shared| Replay::new(settings, shared))
            .map_err(|error| to_python(py, &error))?;
        Ok(Self(Mutex::new(replay)))
    }

    /// Add request number `request`, in the order of the block columns.
    fn add(
        &self,
        py: Python<'_>,
        request: u32,
        prompt: u32,
        max_tokens: u32,
        priority: i64,
        arrival: u64,
    ) -> PyResult<()> {
        if self.lock(py)?.add(request, prompt, max_tokens, priority, arrival) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("request {request} would be refused by this engine")))
    }

    /// (rows of (request, computed, tokens), preempted, free blocks, waiting, running).
    fn schedule(&self, py: Python<'_>) -> PyResult<(Rows, Vec<u32>, u32, usize, u32)> {
        let scheduled = self.lock(py)?.schedule();
        let rows =
            scheduled.rows.iter().map(|row| (row.request, row.computed, row.tokens)).collect();
        Ok((rows, scheduled.preempted, scheduled.free_blocks, scheduled.waiting, scheduled.running))
    }

    /// (requests that got a token, requests that finished).
    fn update(&self, py: Python<'_>) -> PyResult<(Vec<u32>, Vec<u32>)> {
        let Some(updated) = self.lock(py)?.update() else {
            return Err(PyValueError::new_err("no scheduled step awaits its output"));
        };
        Ok((updated.tokens, updated.finished))
    }
}

impl PySchedulerReplay {
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Replay>> {
        let poisoned = |_| PyRuntimeError::new_err("this replay stopped with an internal error");
        self.0.lock_py_attached(py).map_err(poisoned)
    }
}
