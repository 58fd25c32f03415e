//! Events and their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::SimTime;

/// What happens. At the same nanosecond, in the order of the variants: first steps end, then
/// transfers begin and end, then engines come and go, then requests time out, then others arrive,
/// then engines schedule; so a schedule sees everything of its nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// An engine's step ends.
    StepEnd,
    /// A transfer between engines begins, or may have ended.
    Transfer,
    /// An engine dies, drains or comes up, or the autoscaler looks.
    Fleet,
    /// A request times out, if it is unanswered.
    Timeout,
    /// A request arrives. Arrivals are read from their columns and never enter the queue.
    Arrival,
    /// An engine schedules.
    Schedule,
}

/// A moment, a rank and the index of an engine, or of the request of a transfer: a total order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) time: SimTime,
    pub(crate) rank: Rank,
    pub(crate) index: u32,
}

/// Future events, earliest first. The order depends on the events alone, not on when they were
/// pushed: nothing that slices or threads a run can change it.
///
/// The first event is held outside the heap, so that a cluster of one engine never touches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventQueue {
    first: Option<Event>,
    rest: BinaryHeap<Reverse<Event>>,
}

impl EventQueue {
    #[inline]
    pub(crate) fn push(&mut self, event: Event) {
        match self.first {
            None => self.first = Some(event),
            Some(first) if event < first => {
                self.rest.push(Reverse(first));
                self.first = Some(event);
            }
            Some(_) => self.rest.push(Reverse(event)),
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<Event> {
        self.first
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.first.take();
        self.first = self.rest.pop().map(|Reverse(next)| next);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_time_goes_by_rank_then_engine() {
        let at = |nanos, rank, index| Event { time: SimTime::from_nanos(nanos), rank, index };
        let ordered = [
            at(1, Rank::Schedule, 9),
            at(2, Rank::StepEnd, 0),
            at(2, Rank::StepEnd, 1),
            at(2, Rank::Transfer, 7),
            at(2, Rank::Arrival, 0),
            at(2, Rank::Schedule, 0),
            at(3, Rank::StepEnd, 0),
        ];
        let mut queue = EventQueue::default();
        for index in [3, 0, 5, 2, 6, 4, 1] {
            queue.push(ordered[index]);
        }
        let popped: Vec<Event> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(popped, ordered);
    }
}
