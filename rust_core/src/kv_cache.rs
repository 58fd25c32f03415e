//! Paged KV-cache accounting.
//!
//! Without prefix caching blocks are interchangeable, so the cache is a count. A request holds
//! ⌈computed / block size⌉ blocks at any time, which its slot knows.

/// The KV blocks of one engine.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    block_size: u32,
    usable: u32,
    free: u32,
    /// Fewest blocks ever free.
    low_water: u32,
}

impl KvCache {
    pub(crate) const fn new(block_size: u32, usable: u32) -> Self {
        Self { block_size, usable, free: usable, low_water: usable }
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

    #[inline]
    pub(crate) const fn free(&self) -> u32 {
        self.free
    }

    /// Most blocks that were ever in use.
    pub(crate) const fn peak_used(&self) -> u32 {
        self.usable - self.low_water
    }

    /// Take free blocks; the caller has checked that there are enough.
    #[inline]
    pub(crate) fn take(&mut self, blocks: u32) {
        self.free -= blocks;
        self.low_water = self.low_water.min(self.free);
    }

    /// Give blocks back.
    pub(crate) fn release(&mut self, blocks: u32) {
        self.free += blocks;
        debug_assert!(self.free <= self.usable);
    }
}
