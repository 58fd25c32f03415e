//! The eviction order of cached free blocks: a list through a slab, so that a block that is hit
//! leaves from anywhere in constant time.

use super::prefix::CopyId;
use crate::ids::{NONE, SlotId};

/// Index of an entry.
pub(super) type EntryId = u32;

/// What an entry of the eviction order holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// One block of shared content.
    Copy(CopyId),
    /// Blocks `low..high` of one request, the last to be evicted first.
    Range { owner: SlotId, low: u32, high: u32 },
}

#[derive(Clone, Debug)]
struct Entry {
    cached: Cached,
    prev: EntryId,
    next: EntryId,
}

/// The order, next to be evicted first.
#[derive(Clone, Debug)]
pub(super) struct EvictionOrder {
    entries: Vec<Entry>,
    free: Vec<EntryId>,
    head: EntryId,
    tail: EntryId,
    /// Blocks behind all entries that nobody will look for: they are alike, and only counted.
    loose: u32,
}

impl EvictionOrder {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), head: NONE, tail: NONE, loose: 0 }
    }

    pub(super) const fn head(&self) -> EntryId {
        self.head
    }

    pub(super) fn get(&self, id: EntryId) -> Cached {
        self.entries[id as usize].cached
    }

    pub(super) fn set(&mut self, id: EntryId, cached: Cached) {
        self.entries[id as usize].cached = cached;
    }

    /// Append blocks that nobody will look for.
    pub(super) fn push_loose(&mut self, blocks: u32) {
        self.loose += blocks;
    }

    /// Evict blocks that nobody will look for, where there is nothing else.
    pub(super) fn evict_loose(&mut self, blocks: u32) {
        debug_assert!(self.head == NONE);
        self.loose -= blocks;
    }

    pub(super) fn push(&mut self, cached: Cached) -> EntryId {
        let loose = std::mem::take(&mut self.loose);
        if loose > 0 {
            self.insert_after(self.tail, Cached::Range { owner: NONE, low: 0, high: loose });
        }
        self.insert_after(self.tail, cached)
    }

    /// Insert behind `place`; NONE: at the head.
    pub(super) fn insert_after(&mut self, place: EntryId, cached: Cached) -> EntryId {
        let next = if place == NONE { self.head } else { self.entries[place as usize].next };
        let entry = Entry { cached, prev: place, next };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            // At most one entry a KV block, and blocks are counted by u32.
            #[expect(clippy::cast_possible_truncation, reason = "blocks are counted by u32")]
            let id = self.entries.len() as EntryId;
            self.entries.push(entry);
            id
        };
        if place == NONE {
            self.head = id;
        } else {
            self.entries[place as usize].next = id;
        }
        if next == NONE {
            self.tail = id;
        } else {
            self.entries[next as usize].prev = id;
        }
        id
    }

    pub(super) fn remove(&mut self, id: EntryId) {
        let Entry { prev, next, .. } = self.entries[id as usize];
        if prev == NONE {
            self.head = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
        self.free.push(id);
    }
}
