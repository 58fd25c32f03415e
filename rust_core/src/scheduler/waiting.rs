//! The waiting queue.

use std::collections::{BTreeMap, VecDeque};

use super::slot::{Order, Slots};
use crate::config::SchedulingPolicy;
use crate::ids::SlotId;
use crate::time::SimTime;

/// Requests that wait for admission.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// First come, first served; preempted requests go back to the front.
    Fcfs(VecDeque<SlotId>),
    /// By order, preempted requests among the others.
    Priority(BTreeMap<Order, SlotId>),
}

impl Waiting {
    pub(crate) fn new(policy: SchedulingPolicy) -> Self {
        match policy {
            SchedulingPolicy::Fcfs => Self::Fcfs(VecDeque::new()),
            SchedulingPolicy::Priority => Self::Priority(BTreeMap::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Fcfs(queue) => queue.len(),
            Self::Priority(queue) => queue.len(),
        }
    }

    pub(crate) fn front(&self) -> Option<SlotId> {
        match self {
            Self::Fcfs(queue) => queue.front().copied(),
            Self::Priority(queue) => queue.values().next().copied(),
        }
    }

    /// When the first of the waiting requests joined the engine.
    pub(crate) fn earliest(&self, slots: &Slots) -> Option<SimTime> {
        match self {
            // Preempted requests, at the front, joined before all others.
            Self::Fcfs(queue) => queue.front().map(|&id| slots.joined(id)),
            Self::Priority(queue) => queue.values().map(|&id| slots.joined(id)).min(),
        }
    }

    /// A new request joins.
    pub(crate) fn push(&mut self, slots: &Slots, id: SlotId) {
        match self {
            Self::Fcfs(queue) => queue.push_back(id),
            Self::Priority(queue) => {
                queue.insert(slots.order(id), id);
            }
        }
    }

    /// A request that was taken out, or preempted, comes back.
    pub(crate) fn put_back(&mut self, slots: &Slots, id: SlotId) {
        match self {
            Self::Fcfs(queue) => queue.push_front(id),
            Self::Priority(_) => self.push(slots, id),
        }
    }

    pub(crate) fn pop_front(&mut self) {
        match self {
            Self::Fcfs(queue) => {
                queue.pop_front();
            }
            Self::Priority(queue) => {
                queue.pop_first();
            }
        }
    }

    /// Take out a request from anywhere; it is near the front.
    pub(crate) fn remove(&mut self, slots: &Slots, id: SlotId) {
        match self {
            Self::Fcfs(queue) => {
                if let Some(place) = queue.iter().position(|&other| other == id) {
                    queue.remove(place);
                }
            }
            Self::Priority(queue) => {
                queue.remove(&slots.order(id));
            }
        }
    }
}
