//! The requests, and when each is sent.

use crate::error::SimError;
use crate::time::SimTime;

/// Validated request columns, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    arrivals: Vec<SimTime>,
    prompts: Vec<u32>,
    outputs: Vec<u32>,
    /// Closed loop: most requests that may be unanswered.
    max_concurrency: Option<usize>,
}

impl Workload {
    /// Check the columns and take a copy.
    ///
    /// # Errors
    /// [`SimError::ColumnLength`], [`SimError::InvalidRequest`] naming the row,
    /// [`SimError::TooMany`] past 2^32 − 1 requests.
    pub fn new(
        arrival_ns: &[i64],
        prompt_tokens: &[i64],
        output_tokens: &[i64],
        max_concurrency: Option<usize>,
    ) -> Result<Self, SimError> {
        let expected = arrival_ns.len();
        for (field, column) in [("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens)]
        {
            if column.len() != expected {
                return Err(SimError::ColumnLength { field, found: column.len(), expected });
            }
        }
        if expected >= u32::MAX as usize {
            return Err(SimError::TooMany { what: "requests", limit: u64::from(u32::MAX) - 1 });
        }
        if max_concurrency == Some(0) {
            return Err(SimError::InvalidSetting {
                field: "max_concurrency",
                value: "0".to_owned(),
                remedy: "must be at least 1",
            });
        }
        let mut arrivals = Vec::with_capacity(expected);
        let mut latest = 0;
        for (row, &nanos) in arrival_ns.iter().enumerate() {
            let Ok(time) = u64::try_from(nanos) else {
                return Err(invalid(row, "arrival_ns", nanos, "must be at least 0"));
            };
            if time < latest {
                return Err(invalid(
                    row,
                    "arrival_ns",
                    nanos,
                    "is before the row above: sort the rows",
                ));
            }
            latest = time;
            arrivals.push(SimTime::from_nanos(time));
        }
        Ok(Self {
            arrivals,
            prompts: tokens("prompt_tokens", prompt_tokens)?,
            outputs: tokens("output_tokens", output_tokens)?,
            max_concurrency,
        })
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether there are no requests.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Prompt tokens and output tokens of a request.
    pub(crate) fn lengths(&self, request: u32) -> (u32, u32) {
        (self.prompts[request as usize], self.outputs[request as usize])
    }

    /// The prompts' token counts.
    pub(crate) fn prompts(&self) -> &[u32] {
        &self.prompts
    }
}

/// Token counts up to 2^31: sums of two still fit 32 bits.
fn tokens(field: &'static str, column: &[i64]) -> Result<Vec<u32>, SimError> {
    const MOST: u32 = 1 << 30;
    let check = |(row, &count): (usize, &i64)| match u32::try_from(count) {
        Ok(tokens) if tokens <= MOST => Ok(tokens),
        _ => Err(invalid(row, field, count, "must lie between 0 and 2^30")),
    };
    column.iter().enumerate().map(check).collect()
}

fn invalid(row: usize, field: &'static str, value: i64, remedy: &'static str) -> SimError {
    SimError::InvalidRequest { row, field, value: value.to_string(), remedy }
}

/// Sends the requests: at their arrival times, or later where a closed loop holds them back.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    workload: Workload,
    next: u32,
    unanswered: usize,
    /// When the closed loop last had a place again.
    opened: SimTime,
}

impl Source {
    pub(crate) fn new(workload: Workload) -> Self {
        Self { workload, next: 0, unanswered: 0, opened: SimTime::ZERO }
    }

    pub(crate) const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Requests sent so far.
    pub(crate) const fn sent(&self) -> u32 {
        self.next
    }

    /// Requests sent and not yet answered.
    pub(crate) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// When the next request is sent, as things stand.
    #[inline]
    pub(crate) fn next_time(&self) -> Option<SimTime> {
        let arrival = *self.workload.arrivals.get(self.next as usize)?;
        match self.workload.max_concurrency {
            None => Some(arrival),
            Some(limit) if self.unanswered < limit => Some(arrival.max(self.opened)),
            Some(_) => None,
        }
    }

    /// Send the next request.
    pub(crate) fn send(&mut self) -> u32 {
        let request = self.next;
        self.next += 1;
        self.unanswered += 1;
        request
    }

    /// `count` requests were answered at `now`.
    pub(crate) fn answered(&mut self, count: usize, now: SimTime) {
        self.unanswered -= count;
        self.opened = now;
    }
}
