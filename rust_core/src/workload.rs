//! The requests, and when each is sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

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
    /// Order of the priority policy; empty: all alike.
    priorities: Vec<i64>,
    /// The request that must be answered before each one is sent, NOBODY if none; empty: nobody
    /// waits for another.
    predecessors: Vec<u32>,
    /// The request that waits for each one; as long as `predecessors`.
    successors: Vec<u32>,
    shared: Arc<SharedBlocks>,
}

/// No request.
const NOBODY: u32 = u32::MAX;

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

    /// Which blocks have the same content.
    pub(crate) fn shared(&self) -> Arc<SharedBlocks> {
        Arc::clone(&self.shared)
    }

    /// The prompts' token counts.
    pub(crate) fn prompts(&self) -> &[u32] {
        &self.prompts
    }
}

/// Which blocks of which requests have the same content.
///
/// Contents are named by numbers: two requests' blocks have the same one exactly when all their
/// tokens up to the end of the block are equal. Only those that at least two requests have are kept;
/// whatever follows is a request's own.
#[derive(Clone, Debug, Default)]
pub struct SharedBlocks {
    /// Where each request's contents begin, and one end more; empty: nothing is shared.
    offsets: Vec<usize>,
    contents: Vec<u32>,
    count: u32,
}

impl SharedBlocks {
    /// Find what is shared: request i's blocks have the contents `ids[offsets[i]..offsets[i + 1]]`,
    /// from its first block on.
    ///
    /// # Errors
    /// [`SimError::InvalidRequest`] where the offsets do not delimit `ids`.
    pub fn new(offsets: &[i64], ids: &[i64]) -> Result<Self, SimError> {
        let bounds = check_offsets(offsets, ids.len())?;
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let mut shared: Vec<i64> =
            sorted.chunk_by(|a, b| a == b).filter(|run| run.len() > 1).map(|run| run[0]).collect();
        shared.dedup();
        let mut table = Self { offsets: vec![0], contents: Vec::new(), count: 0 };
        for pair in bounds.windows(2) {
            for id in &ids[pair[0]..pair[1]] {
                // Contents are chained, so nothing after a content of one's own is shared.
                let Ok(content) = shared.binary_search(id) else { break };
                table.contents.push(to_u32(content)?);
            }
            table.offsets.push(table.contents.len());
        }
        table.count = to_u32(shared.len())?;
        Ok(table)
    }

    /// Contents of a request's first blocks.
    #[inline]
    pub(crate) fn of(&self, request: u32) -> &[u32] {
        let request = request as usize;
        match (self.offsets.get(request), self.offsets.get(request + 1)) {
            (Some(&from), Some(&to)) => &self.contents[from..to],
            _ => &[],
        }
    }

    /// How many contents are shared.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }
}

fn to_u32(index: usize) -> Result<u32, SimError> {
    let limit = u64::from(u32::MAX);
    u32::try_from(index).map_err(|_| SimError::TooMany { what: "shared blocks", limit })
}

fn check_offsets(offsets: &[i64], total: usize) -> Result<Vec<usize>, SimError> {
    let mut bounds = Vec::with_capacity(offsets.len());
    let mut previous = 0;
    for (row, &offset) in offsets.iter().enumerate() {
        match usize::try_from(offset) {
            Ok(bound) if bound >= previous && bound <= total => {
                bounds.push(bound);
                previous = bound;
            }
            _ => {
                return Err(invalid(
                    row,
                    "block_offsets",
                    offset,
                    "must rise up to the number of ids",
                ));
            }
        }
    }
    Ok(bounds)
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

/// Sends the requests: at their arrival times, or later where a closed loop or the answer to an
/// earlier request holds them back.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    workload: Workload,
    /// The next request by arrival that was neither sent nor set aside.
    next: u32,
    /// Requests whose predecessor is answered later than they arrive, by the time of the answer.
    released: BinaryHeap<Reverse<(SimTime, u32)>>,
    /// When clients got their answers, where others wait for them.
    answers: Vec<Option<SimTime>>,
    sent: usize,
    unanswered: usize,
    /// Closed loop: when answers freed places that nobody has taken yet.
    places: VecDeque<SimTime>,
}

impl Source {
    pub(crate) fn new(workload: Workload) -> Self {
        let answers = vec![None; workload.predecessors.len()];
        let mut source = Self {
            workload,
            next: 0,
            released: BinaryHeap::new(),
            answers,
            sent: 0,
            unanswered: 0,
            places: VecDeque::new(),
        };
        source.set_aside_waiting();
        source
    }

    pub(crate) const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Requests sent so far.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// Requests sent and not yet answered.
    pub(crate) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// The next request to send and the moment from which its client is ready.
    #[inline]
    fn candidate(&self) -> Option<(SimTime, u32)> {
        let by_arrival =
            self.workload.arrivals.get(self.next as usize).map(|&arrival| (arrival, self.next));
        match (by_arrival, self.released.peek()) {
            (Some(one), Some(&Reverse(other))) => Some(one.min(other)),
            (one, other) => one.or(other.map(|&Reverse(released)| released)),
        }
    }

    /// When the next request is sent, as things stand.
    #[inline]
    pub(crate) fn next_time(&self) -> Option<SimTime> {
        let (ready, _) = self.candidate()?;
        match self.workload.max_concurrency {
            Some(limit) if self.unanswered + self.places.len() >= limit => {
                self.places.front().map(|&place| ready.max(place))
            }
            _ => Some(ready),
        }
    }

    /// Send the next request.
    pub(crate) fn send(&mut self) -> Option<u32> {
        let (_, request) = self.candidate()?;
        if let Some(limit) = self.workload.max_concurrency
            && self.unanswered + self.places.len() >= limit
        {
            self.places.pop_front();
        }
        if request == self.next {
            self.next += 1;
            self.set_aside_waiting();
        } else {
            self.released.pop();
        }
        self.sent += 1;
        self.unanswered += 1;
        Some(request)
    }

    /// Pass over requests that wait for an answer that has not come, or comes after they arrive.
    #[inline]
    fn set_aside_waiting(&mut self) {
        while let Some(&before) = self.workload.predecessors.get(self.next as usize)
            && before != NOBODY
        {
            match self.answers[before as usize] {
                Some(time) if time <= self.workload.arrivals[self.next as usize] => return,
                Some(time) => self.released.push(Reverse((time, self.next))),
                None => {}
            }
            self.next += 1;
        }
    }

    /// The client gets the answer to a request at `time`.
    pub(crate) fn answered(&mut self, request: u32, time: SimTime) {
        self.unanswered -= 1;
        if self.workload.max_concurrency.is_some() {
            self.places.push_back(time);
        }
        let Some(&successor) = self.workload.successors.get(request as usize) else { return };
        self.answers[request as usize] = Some(time);
        if successor < self.next {
            let ready = self.workload.arrivals[successor as usize].max(time);
            self.released.push(Reverse((ready, successor)));
        }
    }
}
