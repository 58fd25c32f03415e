//! Columns of the core as numpy arrays.

use std::ops::Range;

use numpy::{Element, IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::recorder::RequestColumns;

/// Request columns by name: the rows of `range` of those that are kept.
pub(super) fn request_columns<'py>(
    py: Python<'py>,
    requests: &RequestColumns,
    prompt_tokens: &[u32],
    range: &Range<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let columns = PyDict::new(py);
    let times = [
        ("arrival_ns", &requests.arrival_ns),
        ("admitted_ns", &requests.admitted_ns),
        ("first_token_ns", &requests.first_token_ns),
        ("finished_ns", &requests.finished_ns),
    ];
    for (name, column) in times {
        columns.set_item(name, column.as_slice()[range.clone()].to_vec().into_pyarray(py))?;
    }
    let counts: [(&str, &[u32]); 4] = [
        ("prompt_tokens", prompt_tokens),
        ("output_tokens", requests.output_tokens.as_slice()),
        ("cached_tokens", requests.cached_tokens.as_slice()),
        ("preemptions", requests.preemptions.as_slice()),
    ];
    for (name, column) in counts {
        columns.set_item(name, wide(py, &column[range.clone()]))?;
    }
    columns.set_item("engine", wide(py, &requests.engine.as_slice()[range.clone()]))?;
    let status = &requests.status.as_slice()[range.clone()];
    let status: Vec<u8> = status.iter().map(|&status| status as u8).collect();
    columns.set_item("status", status.into_pyarray(py))?;
    if let Some(retries) = &requests.retries {
        columns.set_item("retries", wide(py, &retries.as_slice()[range.clone()]))?;
    }
    if let Some(handover) = &requests.handover {
        let prefill_engine = &handover.prefill_engine.as_slice()[range.clone()];
        columns.set_item("prefill_engine", wide(py, prefill_engine))?;
        let times = [
            ("transfer_start_ns", &handover.transfer_start_ns),
            ("transfer_end_ns", &handover.transfer_end_ns),
            ("second_token_ns", &handover.second_token_ns),
        ];
        for (name, column) in times {
            columns.set_item(name, column.as_slice()[range.clone()].to_vec().into_pyarray(py))?;
        }
        let tokens = &handover.transfer_tokens.as_slice()[range.clone()];
        columns.set_item("transfer_tokens", wide(py, tokens))?;
    }
    Ok(columns)
}

/// An int64 column from a narrower one.
pub(super) fn wide<'py, T: Copy + Into<i64> + Element>(
    py: Python<'py>,
    column: &[T],
) -> Bound<'py, PyArray1<i64>> {
    column.iter().map(|&value| value.into()).collect::<Vec<i64>>().into_pyarray(py)
}

/// An int64 column from counts and times, which lie below 2^63.
pub(super) fn signed(
    py: Python<'_>,
    values: impl Iterator<Item = u64>,
) -> Bound<'_, PyArray1<i64>> {
    values.map(u64::cast_signed).collect::<Vec<i64>>().into_pyarray(py)
}
