//! The waiting queue, first come first served; preempted requests go back to its front.

use std::collections::VecDeque;

use super::slot::SlotId;

/// Requests that wait for admission.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    queue: VecDeque<SlotId>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn front(&self) -> Option<SlotId> {
        self.queue.front().copied()
    }

    pub(crate) fn push_back(&mut self, id: SlotId) {
        self.queue.push_back(id);
    }

    pub(crate) fn push_front(&mut self, id: SlotId) {
        self.queue.push_front(id);
    }

    pub(crate) fn pop_front(&mut self) {
        self.queue.pop_front();
    }
}
