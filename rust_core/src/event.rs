//! Events and their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::min_tree::MinTree;
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
/// Nearly all events are ends of steps, and an engine has one that is next: those are kept by
/// engine, so that one that moves leaves nothing behind, and the others in a heap.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue {
    /// When each engine's next step ends, [`NEVER`] where none is known.
    step_ends: MinTree,
    others: BinaryHeap<Reverse<Event>>,
}

/// Behind every moment of the clock.
const NEVER: u64 = u64::MAX;

impl EventQueue {
    /// No events yet, in a cluster of that many engines.
    pub(crate) fn new(engines: usize) -> Self {
        Self { step_ends: MinTree::new(engines, NEVER), others: BinaryHeap::new() }
    }

    /// The next step of an engine ends at `time`, whatever was known before; None: no step runs.
    #[inline]
    pub(crate) fn set_step_end(&mut self, engine: u32, time: Option<SimTime>) {
        self.step_ends.set(engine, time.map_or(NEVER, SimTime::as_nanos));
    }

    /// An event that is no end of a step.
    pub(crate) fn push(&mut self, event: Event) {
        debug_assert!(event.rank != Rank::StepEnd);
        self.others.push(Reverse(event));
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<Event> {
        let other = self.others.peek().map(|&Reverse(other)| other);
        let (nanos, index) = self.step_ends.first();
        if nanos == NEVER {
            return other;
        }
        let step_end = Event { time: SimTime::from_nanos(nanos), rank: Rank::StepEnd, index };
        Some(other.map_or(step_end, |other| other.min(step_end)))
    }

    /// Take out the first event, which is `event`; the end of a step stays until the engine's next
    /// one is set.
    #[inline]
    pub(crate) fn pop(&mut self, event: Event) {
        if event.rank != Rank::StepEnd {
            self.others.pop();
        }
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
            at(3, Rank::StepEnd, 2),
        ];
        let mut queue = EventQueue::new(3);
        for index in [3, 0, 5, 2, 6, 4, 1] {
            let event = ordered[index];
            if event.rank == Rank::StepEnd {
                queue.set_step_end(event.index, Some(event.time));
            } else {
                queue.push(event);
            }
        }
        let mut popped = Vec::new();
        while let Some(event) = queue.peek() {
            queue.pop(event);
            if event.rank == Rank::StepEnd {
                queue.set_step_end(event.index, None);
            }
            popped.push(event);
        }
        assert_eq!(popped, ordered);
    }
}
