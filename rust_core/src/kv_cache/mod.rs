//! Paged KV cache with vLLM's prefix caching (docs/spec.md, sections 9 and 10).
//!
//! Blocks have no numbers here: what a run decides depends only on how many are free, which content
//! is cached, and in which order cached blocks are evicted. vLLM's free list always starts with the
//! blocks that have no hash (they are freed to its front), so it is a count followed by the eviction
//! order of the cached ones.
//!
//! Content that several requests share is kept block by block. Everything else, most of a workload,
//! belongs to one request and is kept as ranges: a request's private blocks cost the same whatever
//! their number.

mod eviction;
mod prefix;

use crate::ids::{NONE, SlotId};
use prefix::PrefixCache;

/// What a request's prefix finds in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Cached blocks of shared content, from the first block on.
    shared: u32,
    /// Cached blocks of the request's own content after them.
    private: u32,
    /// How many of the shared ones other requests hold.
    in_use: u32,
}

impl Hit {
    /// Blocks that need not be computed.
    pub(crate) const fn blocks(self) -> u32 {
        self.shared + self.private
    }

    /// Blocks that are free now and would not be after taking the hit.
    pub(crate) const fn taken_from_free(self) -> u32 {
        self.blocks() - self.in_use
    }
}

/// The KV blocks of one engine.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    block_size: u32,
    usable: u32,
    /// Free blocks without a hash: the head of the free list.
    blank: u32,
    /// Free blocks with a hash: its rest.
    cached: u32,
    /// Fewest blocks ever free.
    low_water: u32,
    prefix: Option<PrefixCache>,
}

impl KvCache {
    /// A cache of `usable` blocks; `shared_contents` is how many contents of blocks several requests
    /// share, None without prefix caching.
    pub(crate) fn new(block_size: u32, usable: u32, shared_contents: Option<u32>) -> Self {
        Self {
            block_size,
            usable,
            blank: usable,
            cached: 0,
            low_water: usable,
            prefix: shared_contents.map(PrefixCache::new),
        }
    }

    /// Blocks that `tokens` tokens fill.
    #[inline]
    pub(crate) const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
    }

    /// Blocks that a request with `computed` tokens needs besides its own for `new` more.
    #[inline]
    pub(crate) const fn blocks_to_extend(&self, computed: u32, new: u32) -> u32 {
        self.blocks_for(computed + new) - self.blocks_for(computed)
    }

    /// Full blocks among `tokens` tokens.
    #[inline]
    pub(crate) const fn full_blocks(&self, tokens: u32) -> u32 {
        tokens / self.block_size
    }

    /// Tokens in `blocks` full blocks.
    pub(crate) const fn tokens_in(&self, blocks: u32) -> u32 {
        blocks * self.block_size
    }

    #[inline]
    pub(crate) const fn free(&self) -> u32 {
        self.blank + self.cached
    }

    /// Blocks in use.
    pub(crate) const fn used(&self) -> u32 {
        self.usable - self.free()
    }

    /// Most blocks that were ever in use.
    pub(crate) const fn peak_used(&self) -> u32 {
        self.usable - self.low_water
    }

    /// Whether finished blocks stay findable.
    pub(crate) const fn caches_prefixes(&self) -> bool {
        self.prefix.is_some()
    }

    /// The longest cached prefix of a request, at most `limit` blocks: `shared` are the contents of
    /// its first blocks, `owner` its slot.
    pub(crate) fn look_up(&self, shared: &[u32], owner: SlotId, limit: u32) -> Hit {
        let Some(prefix) = &self.prefix else { return Hit::default() };
        prefix.look_up(shared, owner, limit)
    }

    /// Take the blocks of a hit.
    pub(crate) fn take_hit(&mut self, hit: Hit, shared: &[u32], owner: SlotId) {
        if hit.blocks() > 0
            && let Some(prefix) = &mut self.prefix
        {
            prefix.take_hit(hit, shared, owner);
            self.cached -= hit.taken_from_free();
            self.low_water = self.low_water.min(self.free());
        }
    }

    /// Take free blocks from the head of the list, evicting what was cached in them; the caller has
    /// checked that there are enough.
    #[inline]
    pub(crate) fn take(&mut self, blocks: u32) {
        let from_blank = blocks.min(self.blank);
        self.blank -= from_blank;
        let evicted = blocks - from_blank;
        if evicted > 0 {
            self.cached -= evicted;
            if let Some(prefix) = &mut self.prefix {
                prefix.evict(evicted);
            }
        }
        self.low_water = self.low_water.min(self.free());
    }

    /// Make blocks findable that several requests share: those of the first `full` blocks of the
    /// request in slot `owner` that are not yet.
    #[inline]
    pub(crate) fn register(&mut self, shared: &[u32], full: u32, owner: SlotId) {
        if !shared.is_empty()
            && let Some(prefix) = &mut self.prefix
        {
            prefix.register(shared, full, owner);
        }
    }

    /// Give back all blocks of the request in slot `owner`: `blocks` of them, of which the first
    /// `full` stay findable. They are freed from last to first. `returns`: whether it will look for
    /// them again.
    pub(crate) fn release(
        &mut self,
        blocks: u32,
        full: u32,
        shared: &[u32],
        owner: SlotId,
        returns: bool,
    ) {
        self.register(shared, full, owner);
        let Some(prefix) = &mut self.prefix else {
            self.blank += blocks;
            debug_assert!(self.free() <= self.usable);
            return;
        };
        let kept = prefix.held(shared, owner);
        let full = full.max(kept);
        self.blank += blocks - full;
        self.cached += full - kept;
        prefix.release_private(kept, full, if returns { owner } else { NONE });
        if kept > 0 {
            self.cached += prefix.release_shared(owner);
        }
        debug_assert!(self.free() <= self.usable);
    }

    /// A request has left: nobody will look for its private blocks again.
    pub(crate) fn forget(&mut self, owner: SlotId) {
        if let Some(prefix) = &mut self.prefix {
            prefix.forget(owner);
        }
    }
}
