//! Which content is cached, and where it stands in the eviction order.

use std::collections::BTreeMap;

use super::Hit;
use super::eviction::{Cached, EntryId, EvictionOrder};
use crate::ids::{NONE, SlotId};

/// Index of a cached block of shared content.
pub(super) type CopyId = u32;

/// One block of shared content. vLLM does not deduplicate, so a content may have several.
#[derive(Clone, Debug)]
struct Copy {
    content: u32,
    /// Requests that hold it.
    references: u32,
    /// Its place in the eviction order while nobody does.
    entry: EntryId,
    /// Its neighbours among the blocks of the same content.
    older: CopyId,
    younger: CopyId,
}

/// All blocks of one content, oldest first.
#[derive(Clone, Copy, Debug)]
struct Copies {
    /// The one that hits.
    oldest: CopyId,
    youngest: CopyId,
}

#[derive(Clone, Debug)]
pub(super) struct PrefixCache {
    order: EvictionOrder,
    copies: Vec<Copy>,
    free_copies: Vec<CopyId>,
    /// The blocks of each shared content.
    contents: Vec<Copies>,
    /// By slot: the blocks that its request holds and others may share, from its first block on.
    held: Vec<Vec<CopyId>>,
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
            contents: vec![Copies { oldest: NONE, youngest: NONE }; contents as usize],
            held: Vec::new(),
            private: BTreeMap::new(),
        }
    }

    pub(super) fn look_up(&self, shared: &[u32], owner: SlotId, limit: u32) -> Hit {
        let mut hit = Hit::default();
        for &content in shared.iter().take(limit as usize) {
            let copy = self.contents[content as usize].oldest;
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

    pub(super) fn take_hit(&mut self, hit: Hit, shared: &[u32], owner: SlotId) {
        let mut held = self.take_held(owner);
        for &content in &shared[..hit.shared as usize] {
            let id = self.contents[content as usize].oldest;
            let copy = &mut self.copies[id as usize];
            if copy.references == 0 {
                self.order.remove(copy.entry);
                copy.entry = NONE;
            }
            copy.references += 1;
            held.push(id);
        }
        self.held[owner as usize] = held;
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
            if entry == NONE {
                self.order.evict_loose(blocks);
                return;
            }
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
        let Copy { content, older, younger, .. } = self.copies[id as usize];
        let ends = &mut self.contents[content as usize];
        if older == NONE {
            ends.oldest = younger;
        } else {
            self.copies[older as usize].younger = younger;
        }
        if younger == NONE {
            ends.youngest = older;
        } else {
            self.copies[younger as usize].older = older;
        }
        self.free_copies.push(id);
    }

    /// Shared blocks that the request in a slot holds.
    pub(super) fn held(&self, shared: &[u32], owner: SlotId) -> u32 {
        if shared.is_empty() {
            return 0;
        }
        // Every content has at most 2^32 blocks.
        let held = self.held.get(owner as usize).map_or(0, Vec::len);
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    fn take_held(&mut self, owner: SlotId) -> Vec<CopyId> {
        let slots = self.held.len().max(owner as usize + 1);
        self.held.resize_with(slots, Vec::new);
        std::mem::take(&mut self.held[owner as usize])
    }

    /// The first `full` blocks of a request are filled, or about to be: it holds a block of each of
    /// their contents.
    pub(super) fn register(&mut self, shared: &[u32], full: u32, owner: SlotId) {
        let full = shared.len().min(full as usize);
        let mut held = self.take_held(owner);
        for &content in shared.get(held.len()..full).unwrap_or_default() {
            held.push(self.add_copy(content));
        }
        self.held[owner as usize] = held;
    }

    /// One more block of a content, the youngest one, which a request holds.
    fn add_copy(&mut self, content: u32) -> CopyId {
        let ends = &mut self.contents[content as usize];
        let older = ends.youngest;
        let copy = Copy { content, references: 1, entry: NONE, older, younger: NONE };
        let id = if let Some(id) = self.free_copies.pop() {
            self.copies[id as usize] = copy;
            id
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "blocks are counted by u32")]
            let id = self.copies.len() as CopyId;
            self.copies.push(copy);
            id
        };
        ends.youngest = id;
        if older == NONE {
            ends.oldest = id;
        } else {
            self.copies[older as usize].younger = id;
        }
        id
    }

    /// A request gives back its private blocks `low..high`.
    pub(super) fn release_private(&mut self, low: u32, high: u32, owner: SlotId) {
        if low < high {
            if owner == NONE {
                self.order.push_loose(high - low);
                return;
            }
            let entry = self.order.push(Cached::Range { owner, low, high });
            self.private.entry(owner).or_default().push(entry);
        }
    }

    /// A request gives back its shared blocks, last first; returns how many became free.
    pub(super) fn release_shared(&mut self, owner: SlotId) -> u32 {
        let (mut freed, mut held) = (0, self.take_held(owner));
        while let Some(id) = held.pop() {
            let copy = &mut self.copies[id as usize];
            copy.references -= 1;
            if copy.references == 0 {
                copy.entry = self.order.push(Cached::Copy(id));
                freed += 1;
            }
        }
        self.held[owner as usize] = held;
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
