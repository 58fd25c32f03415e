//! Everything that can go wrong, once.

use thiserror::Error;

/// An error of the simulator; panics are bugs and cannot be reached from user input.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SimError {
    /// A cost model or a conversion gave a time that is no time.
    #[error("a duration of {seconds} s is not a finite time of at least 0 s below 292 years")]
    InvalidDuration {
        /// The value in question.
        seconds: f64,
    },
    /// The clock would pass 2^63 ns.
    #[error("the clock overflows: {duration_ns} ns after {now_ns} ns is past 292 years")]
    ClockOverflow {
        /// Where the clock stood.
        now_ns: u64,
        /// How far it should have moved.
        duration_ns: u64,
    },
    /// A setting is out of range.
    #[error("{field}={value}: {remedy}")]
    InvalidSetting {
        /// The setting's name, vLLM's where it has one.
        field: &'static str,
        /// The value as text.
        value: String,
        /// What is allowed.
        remedy: &'static str,
    },
    /// A request column is malformed.
    #[error("request {row}: {field}={value} {remedy}")]
    InvalidRequest {
        /// Index of the request.
        row: usize,
        /// The column.
        field: &'static str,
        /// The value as text.
        value: String,
        /// What is allowed.
        remedy: &'static str,
    },
    /// Request columns differ in length.
    #[error("column {field} has {found} rows, arrival_ns has {expected}: give one row a request")]
    ColumnLength {
        /// The column.
        field: &'static str,
        /// Its rows.
        found: usize,
        /// Rows of the first column.
        expected: usize,
    },
    /// A user's cost model failed; the binding keeps the original exception.
    #[error("the performance model failed: {message}")]
    External {
        /// What it said.
        message: String,
    },
    /// A user's routing failed; the binding keeps the original exception.
    #[error("the router failed: {message}")]
    Router {
        /// What it said, or what it did wrong.
        message: String,
    },
    /// More of something than an index can hold.
    #[error("more than {limit} {what} in one simulation: split the run")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// Requests remain but nothing will ever happen: a bug in the engine.
    #[error("internal error: {unanswered} requests are unanswered but no event is left")]
    Stalled {
        /// Number of such requests.
        unanswered: usize,
    },
}
