//! The requests, and when each is sent.

use std::sync::Arc;

use crate::error::SimError;
use crate::rows::Rows;
use crate::shared_blocks::SharedBlocks;
use crate::time::SimTime;

/// Validated request columns, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    pub(crate) arrivals: Rows<SimTime>,
    prompts: Rows<u32>,
    outputs: Rows<u32>,
    /// Closed loop: most requests that may be unanswered.
    pub(crate) max_concurrency: Option<usize>,
    /// Order of the priority policy; empty: all alike.
    priorities: Rows<i64>,
    /// The request that must be answered before each one is sent, NOBODY if none; empty: nobody
    /// waits for another.
    pub(crate) predecessors: Vec<u32>,
    /// The request that waits for each one; as long as `predecessors`.
    pub(crate) successors: Vec<u32>,
    /// Nanoseconds from the answer that a request waits for until it is sent; empty: none.
    thinks: Vec<u64>,
    /// Requests that will be appended arrive no earlier.
    pub(crate) known_until: SimTime,
    shared: Arc<SharedBlocks>,
}

/// Columns of requests that follow, in order of arrival.
#[derive(Clone, Copy, Debug)]
pub struct NewRequests<'columns> {
    /// Nanoseconds.
    pub arrival_ns: &'columns [i64],
    /// Tokens.
    pub prompt_tokens: &'columns [i64],
    /// Tokens.
    pub output_tokens: &'columns [i64],
    /// Order of the priority policy; None: 0.
    pub priorities: Option<&'columns [i64]>,
}

/// The columns of [`NewRequests`], owned.
pub(crate) struct OwnColumns {
    pub(crate) arrival_ns: Vec<i64>,
    pub(crate) prompt_tokens: Vec<i64>,
    pub(crate) output_tokens: Vec<i64>,
    pub(crate) priorities: Vec<i64>,
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
        check_count(expected)?;
        if max_concurrency == Some(0) {
            return Err(SimError::InvalidSetting {
                field: "max_concurrency",
                value: "0".to_owned(),
                remedy: "must be at least 1",
            });
        }
        Ok(Self {
            arrivals: times(0, SimTime::ZERO, arrival_ns)?.into(),
            prompts: tokens("prompt_tokens", 0, prompt_tokens)?.into(),
            outputs: tokens("output_tokens", 0, output_tokens)?.into(),
            max_concurrency,
            priorities: Rows::default(),
            predecessors: Vec::new(),
            successors: Vec::new(),
            thinks: Vec::new(),
            known_until: SimTime::ZERO,
            shared: Arc::default(),
        })
    }

    /// Give each request a priority.
    ///
    /// # Errors
    /// [`SimError::ColumnLength`].
    pub fn with_priorities(mut self, priorities: Vec<i64>) -> Result<Self, SimError> {
        self.check_length("priority", priorities.len())?;
        self.priorities = priorities.into();
        Ok(self)
    }

    /// Let every request begin with the same tokens, which fill `blocks` blocks.
    #[must_use]
    pub fn with_common_blocks(mut self, blocks: u32) -> Self {
        self.shared = Arc::new(SharedBlocks::for_everyone(blocks));
        self
    }

    /// The workload of some of the requests, in order.
    pub(crate) fn subset(&self, requests: &[u32]) -> Self {
        let of = |column: &Rows<u32>| requests.iter().map(|&request| column[request]).collect();
        let (prompts, outputs): (Vec<u32>, Vec<u32>) = (of(&self.prompts), of(&self.outputs));
        let arrivals: Vec<SimTime> =
            requests.iter().map(|&request| self.arrivals[request]).collect();
        let mut priorities = Vec::new();
        if self.priorities.end() > 0 {
            priorities.extend(requests.iter().map(|&request| self.priority(request)));
        }
        Self {
            arrivals: arrivals.into(),
            prompts: prompts.into(),
            outputs: outputs.into(),
            priorities: priorities.into(),
            shared: Arc::new(self.shared.subset(requests)),
            known_until: self.known_until,
            ..Self::default()
        }
    }

    /// Columns of some of the requests, to be appended elsewhere.
    pub(crate) fn columns_of(&self, requests: &[u32]) -> OwnColumns {
        let of = |value: &dyn Fn(u32) -> i64| requests.iter().map(|&r| value(r)).collect();
        OwnColumns {
            arrival_ns: of(&|request| self.arrivals[request].as_nanos().cast_signed()),
            prompt_tokens: of(&|request| self.prompts[request].into()),
            output_tokens: of(&|request| self.outputs[request].into()),
            priorities: of(&|request| self.priority(request)),
        }
    }

    /// Add the requests that follow; no other will arrive before `until_ns`.
    ///
    /// # Errors
    /// As [`Workload::new`]; rows are counted from the first request of all.
    pub(crate) fn append(&mut self, new: &NewRequests<'_>, until_ns: i64) -> Result<(), SimError> {
        let (start, expected) = (self.len(), new.arrival_ns.len());
        let columns = [
            ("prompt_tokens", new.prompt_tokens.len()),
            ("output_tokens", new.output_tokens.len()),
            ("priority", new.priorities.map_or(expected, <[i64]>::len)),
        ];
        if let Some(&(field, found)) = columns.iter().find(|(_, found)| *found != expected) {
            return Err(SimError::ColumnLength { field, found, expected });
        }
        check_count(start + expected)?;
        let arrivals = times(start, self.known_until, new.arrival_ns)?;
        let latest = arrivals.last().copied().unwrap_or(self.known_until);
        self.known_until = latest.max(SimTime::from_nanos(u64::try_from(until_ns).unwrap_or(0)));
        self.arrivals.extend(arrivals);
        self.prompts.extend(tokens("prompt_tokens", start, new.prompt_tokens)?);
        self.outputs.extend(tokens("output_tokens", start, new.output_tokens)?);
        let missing = start - self.priorities.end();
        match new.priorities {
            Some(priorities) => {
                self.priorities.extend_with(0, missing);
                self.priorities.extend(priorities.iter().copied());
            }
            None if self.priorities.end() > 0 => self.priorities.extend_with(0, expected),
            None => {}
        }
        Ok(())
    }

    /// Forget the requests before that one, which have ended.
    pub(crate) fn drop_before(&mut self, request: u32) {
        self.arrivals.drop_before(request);
        self.prompts.drop_before(request);
        self.outputs.drop_before(request);
        if self.priorities.end() > 0 {
            self.priorities.drop_before(request);
        }
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

    /// Say which blocks have the same content; requests may `return` to where they have been.
    ///
    /// # Errors
    /// As [`SharedBlocks::new`].
    pub fn with_blocks(
        mut self,
        offsets: &[i64],
        ids: &[i64],
        returns: bool,
    ) -> Result<Self, SimError> {
        self.check_length("block_offsets", offsets.len().saturating_sub(1))?;
        self.shared = Arc::new(SharedBlocks::new(offsets, ids, returns)?);
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
        self.arrivals.end()
    }

    /// Whether there are no requests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prompt tokens and output tokens of a request.
    pub(crate) fn lengths(&self, request: u32) -> (u32, u32) {
        (self.prompts[request], self.outputs[request])
    }

    /// Priority of a request.
    pub(crate) fn priority(&self, request: u32) -> i64 {
        self.priorities.get(request).copied().unwrap_or(0)
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

    /// Tokens that requests ask for.
    pub(crate) fn outputs(&self) -> &[u32] {
        self.outputs.as_slice()
    }

    /// The prompts' token counts.
    pub(crate) fn prompts(&self) -> &[u32] {
        self.prompts.as_slice()
    }
}

/// Requests are numbered by u32.
fn check_count(requests: usize) -> Result<(), SimError> {
    if requests >= u32::MAX as usize {
        return Err(SimError::TooMany { what: "requests", limit: u64::from(u32::MAX) - 1 });
    }
    Ok(())
}

/// Arrivals from row `start` on, none before `latest`.
fn times(start: usize, mut latest: SimTime, column: &[i64]) -> Result<Vec<SimTime>, SimError> {
    let check = |(row, &nanos): (usize, &i64)| {
        let Ok(time) = u64::try_from(nanos).map(SimTime::from_nanos) else {
            return Err(invalid(row, "arrival_ns", nanos, "must be at least 0"));
        };
        if time < latest {
            let remedy = "is before the row above: sort the rows";
            return Err(invalid(row, "arrival_ns", nanos, remedy));
        }
        latest = time;
        Ok(time)
    };
    (start..).zip(column).map(check).collect()
}

/// Token counts up to 2^30, from row `start` on: sums of two still fit 32 bits.
fn tokens(field: &'static str, start: usize, column: &[i64]) -> Result<Vec<u32>, SimError> {
    const MOST: u32 = 1 << 30;
    let check = |(row, &count): (usize, &i64)| match u32::try_from(count) {
        Ok(tokens) if tokens <= MOST => Ok(tokens),
        _ => Err(invalid(row, field, count, "must lie between 0 and 2^30")),
    };
    (start..).zip(column).map(check).collect()
}

fn invalid(row: usize, field: &'static str, value: i64, remedy: &'static str) -> SimError {
    SimError::InvalidRequest { row, field, value: value.to_string(), remedy }
}
