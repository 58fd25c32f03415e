//! Everything that can go wrong, once.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// What code of the user raised. An error carries it, so that it reaches the caller whose run it
/// ended, whoever else uses the same code at that moment.
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    /// Keep an error as it is.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// The error, if it is of that type.
    pub fn get<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

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
    /// A user's cost model failed.
    #[error("the performance model failed: {0}")]
    External(Cause),
    /// A user's routing failed.
    #[error("the router failed: {0}")]
    Routing(Cause),
    /// A user's routing chose what is not to be had.
    #[error("the router failed: {message}")]
    Router {
        /// What it did wrong.
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
