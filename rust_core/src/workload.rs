//! The requests, and when each is sent.

use std::sync::Arc;

use crate::error::SimError;
use crate::shared_blocks::SharedBlocks;
use crate::time::SimTime;

/// Validated request columns, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    pub(crate) arrivals: Vec<SimTime>,
    prompts: Vec<u32>,
    outputs: Vec<u32>,
    /// Closed loop: most requests that may be unanswered.
    pub(crate) max_concurrency: Option<usize>,
    /// Order of the priority policy; empty: all alike.
    priorities: Vec<i64>,
    /// The request that must be answered before each one is sent, NOBODY if none; empty: nobody
    /// waits for another.
    pub(crate) predecessors: Vec<u32>,
    /// The request that waits for each one; as long as `predecessors`.
    pub(crate) successors: Vec<u32>,
    /// Nanoseconds from the answer that a request waits for until it is sent; empty: none.
    thinks: Vec<u64>,
    shared: Arc<SharedBlocks>,
}

/// No request.
pub(crate) const NOBODY: u32 = u32::MAX;

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
            priorities: Vec::new(),
            predecessors: Vec::new(),
            successors: Vec::new(),
            thinks: Vec::new(),
            shared: Arc::default(),
        })
    }

    /// Give each request a priority.
    ///
    /// # Errors
    /// [`SimError::ColumnLength`].
    pub fn with_priorities(mut self, priorities: Vec<i64>) -> Result<Self, SimError> {
        self.check_length("priority", priorities.len())?;
        self.priorities = priorities;
        Ok(self)
    }

    /// Have requests wait for others: `after[i]` is the earlier request whose answer the client
    /// needs before it sends request i (the next turn of a session), −1 if none.
    ///
    /// # Errors
    /// [`SimError::ColumnLength`]; [`SimError::InvalidRequest`] where a request waits for itself or a
    /// later one, or two wait for the same one.
    pub fn with_after(mut self, after: &[i64]) -> Result<Self, SimError> {
        self.check_length("after", after.len())?;
        let mut successors = vec![NOBODY; after.len()];
        let mut predecessors = Vec::with_capacity(after.len());
        for (row, (request, &before)) in (0_u32..).zip(after).enumerate() {
            if before == -1 {
                predecessors.push(NOBODY);
                continue;
            }
            match u32::try_from(before) {
                Ok(before) if before < request && successors[before as usize] == NOBODY => {
                    successors[before as usize] = request;
                    predecessors.push(before);
                }
                _ => {
                    let remedy =
                        "must name an earlier request that no other one waits for, or be -1";
                    return Err(invalid(row, "after", before, remedy));
                }
            }
        }
        self.predecessors = predecessors;
        self.successors = successors;
        Ok(self)
    }

    /// Have clients think before they send a request: from the answer to the one that it waits for.
    ///
    /// # Errors
    /// [`SimError::ColumnLength`]; [`SimError::InvalidRequest`] for a time below 0 or above 2^62 ns.
    pub fn with_thinks(mut self, think_ns: &[i64]) -> Result<Self, SimError> {
        /// A moment of the clock and a think time still fit 64 bits.
        const LONGEST_NS: u64 = 1 << 62;
        self.check_length("think_ns", think_ns.len())?;
        let check = |(row, &nanos): (usize, &i64)| match u64::try_from(nanos) {
            Ok(think) if think <= LONGEST_NS => Ok(think),
            _ => Err(invalid(row, "think_ns", nanos, "must lie between 0 and 2^62")),
        };
        self.thinks = think_ns.iter().enumerate().map(check).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Say which blocks have the same content.
    ///
    /// # Errors
    /// As [`SharedBlocks::new`].
    pub fn with_blocks(mut self, offsets: &[i64], ids: &[i64]) -> Result<Self, SimError> {
        self.check_length("block_offsets", offsets.len().saturating_sub(1))?;
        self.shared = Arc::new(SharedBlocks::new(offsets, ids)?);
        Ok(self)
    }

    fn check_length(&self, field: &'static str, found: usize) -> Result<(), SimError> {
        let expected = self.len();
        if found == expected {
            Ok(())
        } else {
            Err(SimError::ColumnLength { field, found, expected })
        }
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

    /// Priority of a request.
    pub(crate) fn priority(&self, request: u32) -> i64 {
        self.priorities.get(request as usize).copied().unwrap_or(0)
    }

    /// When a client that got the `answer` that a request waits for has thought about it.
    pub(crate) fn thought(&self, request: u32, answer: SimTime) -> SimTime {
        let think = self.thinks.get(request as usize).copied().unwrap_or(0);
        SimTime::from_nanos(answer.as_nanos() + think)
    }

    /// The request whose answer another one continues.
    pub(crate) fn previous(&self, request: u32) -> Option<u32> {
        self.predecessors.get(request as usize).copied().filter(|&before| before != NOBODY)
    }

    /// Which blocks have the same content.
    pub(crate) fn shared_blocks(&self) -> &SharedBlocks {
        &self.shared
    }

    /// The same, to keep.
    pub(crate) fn shared(&self) -> Arc<SharedBlocks> {
        Arc::clone(&self.shared)
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
