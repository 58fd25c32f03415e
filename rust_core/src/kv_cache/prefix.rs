//! Which content is cached, and where it stands in the eviction order.

use std::collections::BTreeMap;

use super::Hit;
use super::eviction::{Cached, EntryId, EvictionOrder};
use crate::ids::{NONE, SlotId};

/// Index of a cached block of shared content.
pub(crate) type CopyId = u32;

/// One block of shared content. vLLM does not deduplicate, so a content may have several.
#[derive(Clone, Debug)]
struct Copy {
    content: u32,
    /// Requests that hold it.
    references: u32,
    /// Its place in the eviction order while nobody does.
    entry: EntryId,
    /// The next younger block of the same content.
    younger: CopyId,
}

#[derive(Clone, Debug)]
pub(super) struct PrefixCache {
    order: EvictionOrder,
    copies: Vec<Copy>,
    free_copies: Vec<CopyId>,
    /// The oldest block of each shared content: the one that hits.
    oldest: Vec<CopyId>,
    /// Cached private blocks of requests that are still in the engine (preempted ones), oldest
    /// entries first.
    private: BTreeMap<SlotId, Vec<EntryId>>,
}

impl PrefixCache {
    pub(super) fn new(contents: u32) -> Self {
        Self {
            order: EvictionOrder::new(),
            copies: Vec::new(),
            free_copies: Vec::new(),
            oldest: vec![NONE; contents as usize],
            private: BTreeMap::new(),
        }
    }

    pub(super) fn look_up(&self, shared: &[u32], owner: SlotId, limit: u32) -> Hit {
        let mut hit = Hit::default();
        for &content in shared.iter().take(limit as usize) {
            let copy = self.oldest[content as usize];
            if copy == NONE {
                return hit;
            }
            hit.shared += 1;
            hit.in_use += u32::from(self.copies[copy as usize].references > 0);
        }
        if hit.shared as usize == shared.len()
            && let Some(entries) = self.private.get(&owner)
        {
            while hit.blocks() < limit && self.oldest_with(entries, hit.blocks()).is_some() {
                hit.private += 1;
            }
        }
        hit
    }

    /// The oldest entry that holds a request's block `index`.
    fn oldest_with(&self, entries: &[EntryId], index: u32) -> Option<EntryId> {
        entries.iter().copied().find(|&entry| match self.order.get(entry) {
            Cached::Range { low, high, .. } => (low..high).contains(&index),
            Cached::Copy(_) => false,
        })
    }

    pub(super) fn take_hit(
        &mut self,
        hit: Hit,
        shared: &[u32],
        owner: SlotId,
        held: &mut Vec<CopyId>,
    ) {
        for &content in &shared[..hit.shared as usize] {
            let id = self.oldest[content as usize];
            let copy = &mut self.copies[id as usize];
            if copy.references == 0 {
                self.order.remove(copy.entry);
                copy.entry = NONE;
            }
            copy.references += 1;
            held.push(id);
        }
        for index in hit.shared..hit.blocks() {
            self.take_private(owner, index);
        }
    }

    /// Take one block out of the range that holds it. Only resumed requests come here.
    fn take_private(&mut self, owner: SlotId, index: u32) {
        let Some(mut entries) = self.private.remove(&owner) else { return };
        if let Some(entry) = self.oldest_with(&entries, index)
            && let Cached::Range { low, high, .. } = self.order.get(entry)
        {
            // The part above is evicted first, so it comes first.
            match (low < index, index + 1 < high) {
                (false, false) => {
                    self.order.remove(entry);
                    entries.retain(|&other| other != entry);
                }
                (true, false) => self.order.set(entry, Cached::Range { owner, low, high: index }),
                (false, true) => {
                    self.order.set(entry, Cached::Range { owner, low: index + 1, high });
                }
                (true, true) => {
                    self.order.set(entry, Cached::Range { owner, low: index + 1, high });
                    let below = Cached::Range { owner, low, high: index };
                    let below = self.order.insert_after(entry, below);
                    let place = entries.iter().position(|&other| other == entry).unwrap_or(0);
                    entries.insert(place + 1, below);
                }
            }
        }
        if !entries.is_empty() {
            self.private.insert(owner, entries);
        }
    }

    /// Drop the content of the next `blocks` blocks in the eviction order.
    pub(super) fn evict(&mut self, mut blocks: u32) {
        while blocks > 0 {
            let entry = self.order.head();
            match self.order.get(entry) {
                Cached::Copy(copy) => {
                    self.order.remove(entry);
                    self.drop_copy(copy);
                    blocks -= 1;
                }
                Cached::Range { owner, low, high } => {
                    let evicted = blocks.min(high - low);
                    blocks -= evicted;
                    if evicted < high - low {
                        let rest = Cached::Range { owner, low, high: high - evicted };
                        self.order.set(entry, rest);
                        continue;
                    }
                    self.order.remove(entry);
                    if owner != NONE {
                        self.drop_private(owner, entry);
                    }
                }
            }
        }
    }

    fn drop_private(&mut self, owner: SlotId, entry: EntryId) {
        if let Some(entries) = self.private.get_mut(&owner) {
            entries.retain(|&other| other != entry);
            if entries.is_empty() {
                self.private.remove(&owner);
            }
        }
    }

    fn drop_copy(&mut self, id: CopyId) {
        let Copy { content, younger, .. } = self.copies[id as usize];
        let mut link = self.oldest[content as usize];
        if link == id {
            self.oldest[content as usize] = younger;
        } else {
            while self.copies[link as usize].younger != id {
                link = self.copies[link as usize].younger;
            }
            self.copies[link as usize].younger = younger;
        }
        self.free_copies.push(id);
    }

    /// A request that holds a block of this content, just filled or about to be.
    pub(super) fn register(&mut self, content: u32) -> CopyId {
        let copy = Copy { content, references: 1, entry: NONE, younger: NONE };
        let id = if let Some(id) = self.free_copies.pop() {
            self.copies[id as usize] = copy;
            id
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "blocks are counted by u32")]
            let id = self.copies.len() as CopyId;
            self.copies.push(copy);
            id
        };
        let mut link = self.oldest[content as usize];
        if link == NONE {
            self.oldest[content as usize] = id;
        } else {
            while self.copies[link as usize].younger != NONE {
                link = self.copies[link as usize].younger;
            }
            self.copies[link as usize].younger = id;
        }
        id
    }

    /// A request gives back its private blocks `low..high`.
    pub(super) fn release_private(&mut self, low: u32, high: u32, owner: SlotId) {
        if low < high {
            let entry = self.order.push(Cached::Range { owner, low, high });
            if owner != NONE {
                self.private.entry(owner).or_default().push(entry);
            }
        }
    }

    /// A request gives back its shared blocks, last first; returns how many became free.
    pub(super) fn release_shared(&mut self, held: &mut Vec<CopyId>) -> u32 {
        let mut freed = 0;
        while let Some(id) = held.pop() {
            let copy = &mut self.copies[id as usize];
            copy.references -= 1;
            if copy.references == 0 {
                copy.entry = self.order.push(Cached::Copy(id));
                freed += 1;
            }
        }
        freed
    }

    /// Nobody will look for this request's private blocks again; they stay until evicted.
    pub(super) fn forget(&mut self, owner: SlotId) {
        for entry in self.private.remove(&owner).unwrap_or_default() {
            if let Cached::Range { low, high, .. } = self.order.get(entry) {
                self.order.set(entry, Cached::Range { owner: NONE, low, high });
            }
        }
    }
}
