//! Sends the requests of a workload.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::error::SimError;
use crate::time::SimTime;
use crate::workload::{NOBODY, Workload};

/// Sends the requests: at their arrival times, or later where a closed loop, the answer to an
/// earlier request or the time that its client thinks about it holds them back.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    workload: Workload,
    /// The next request by arrival that was neither sent nor set aside.
    next: u32,
    /// Requests that wait for their predecessor's answer longer than for their own arrival, by the
    /// moment at which their client has thought about it.
    released: BinaryHeap<Reverse<(SimTime, u32)>>,
    /// When clients got their answers, where others wait for them.
    answers: Vec<Option<SimTime>>,
    sent: usize,
    unanswered: usize,
    /// Whether more requests will be appended.
    open: bool,
    /// Closed loop: when answers freed places that nobody has taken yet.
    places: VecDeque<SimTime>,
}

impl Source {
    pub(crate) fn new(workload: Workload, open: bool) -> Self {
        let answers = vec![None; workload.predecessors.len()];
        let mut source = Self {
            workload,
            next: 0,
            released: BinaryHeap::new(),
            answers,
            sent: 0,
            unanswered: 0,
            open,
            places: VecDeque::new(),
        };
        source.set_aside_waiting();
        source
    }

    pub(crate) const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Whether the next request is not known yet, but will be.
    #[inline]
    pub(crate) fn is_starved(&self) -> bool {
        self.open && self.next as usize == self.workload.len()
    }

    /// The earliest moment at which a request arrives that is not known yet.
    pub(crate) const fn known_until(&self) -> SimTime {
        self.workload.known_until
    }

    /// Append the requests that follow; `last`: there will be no others.
    pub(crate) fn append(
        &mut self,
        last: bool,
        append: impl FnOnce(&mut Workload) -> Result<(), SimError>,
    ) -> Result<(), SimError> {
        append(&mut self.workload)?;
        self.open = !last;
        Ok(())
    }

    /// Forget the requests before that one, which have ended.
    pub(crate) fn drop_before(&mut self, request: u32) {
        self.workload.drop_before(request);
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
        let by_arrival = self.workload.arrivals.get(self.next).map(|&arrival| (arrival, self.next));
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

    /// Pass over requests whose client waits for an answer, or thinks about it, when they arrive.
    #[inline]
    fn set_aside_waiting(&mut self) {
        while let Some(&before) = self.workload.predecessors.get(self.next as usize)
            && before != NOBODY
        {
            if let Some(answer) = self.answers[before as usize] {
                let thought = self.workload.thought(self.next, answer);
                if thought <= self.workload.arrivals[self.next] {
                    return;
                }
                self.released.push(Reverse((thought, self.next)));
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
            let thought = self.workload.thought(successor, time);
            let ready = self.workload.arrivals[successor].max(thought);
            self.released.push(Reverse((ready, successor)));
        }
    }
}
