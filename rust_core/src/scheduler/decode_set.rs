//! The requests that get one token in every step, kept as sums.
//!
//! While nothing but decoding happens, a request's context grows by one a step. So each member is
//! stored relative to a tick that counts the steps: `computed = base + tick`. Adding a step to all
//! members is adding 1 to the tick; how many of them start a new KV block follows from a histogram
//! of (base mod block size), and who generates the last token from a calendar of ticks.
//!
//! The calendar knows its nearest entry, so that it is read only in a tick that ends some request.

use super::slot::{Slot, Slots, State};
use super::window_sums::WindowSums;
use crate::config::Window;
use crate::ids::{NONE, SlotId};

/// Buckets of the calendar: the bits of `filled`. Members further away than this share a bucket with
/// nearer ones and are passed over once a round.
const BUCKETS: usize = 64;

/// No member gets a last token.
const NEVER: u64 = u64::MAX;

/// Sums over the members and the calendar of their last tokens.
#[derive(Clone, Debug)]
pub(crate) struct DecodeSet {
    len: u32,
    block_size: u32,
    /// tick mod block size.
    phase: u32,
    tick: u64,
    base_sum: i64,
    /// The next tick in which a member gets its last token.
    next_last: u64,
    /// Which buckets have members, bit by bit.
    filled: u64,
    /// First member of each bucket; then members by the phase in which they need a new block.
    table: Box<[u32]>,
    window: Option<Box<WindowSums>>,
}

impl DecodeSet {
    pub(crate) fn new(block_size: u32, window: Window) -> Self {
        let mut table = vec![NONE; BUCKETS];
        table.resize(BUCKETS + block_size as usize, 0);
        let windowed = window != Window::None;
        Self {
            len: 0,
            block_size,
            phase: 0,
            tick: 0,
            base_sum: 0,
            next_last: NEVER,
            filled: 0,
            table: table.into_boxed_slice(),
            window: windowed.then(|| Box::new(WindowSums::new(window))),
        }
    }

    #[inline]
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Members by the phase in which they need a new block.
    #[inline]
    fn by_phase(&self) -> &[u32] {
        &self.table[BUCKETS..]
    }

    /// Blocks that the next tick takes.
    #[inline]
    pub(crate) fn blocks_needed(&self) -> u32 {
        self.by_phase()[self.phase as usize]
    }

    /// Sum of the contexts of the next tick, the new tokens included.
    #[inline]
    pub(crate) fn context(&self) -> u64 {
        #[expect(
            clippy::cast_possible_wrap,
            clippy::cast_sign_loss,
            reason = "ticks stay far below 2^63 and a sum of contexts is positive"
        )]
        let context = (self.base_sum + i64::from(self.len) * (self.tick as i64 + 1)) as u64;
        context
    }

    /// The same where only a window counts.
    #[inline]
    pub(crate) fn windowed_context(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.sum(self.len, self.tick))
    }

    /// A request joins: from the next tick on it gets a token a tick until its output is complete.
    pub(crate) fn join(&mut self, slots: &mut Slots, id: SlotId) {
        let slot = &mut slots[id];
        debug_assert_eq!(slot.computed + 1, slot.num_tokens);
        let left = slot.output - slot.generated();
        slot.state = State::Decode;
        slot.base = slot.computed.wrapping_sub(low(self.tick));
        slot.last_tick = low(self.tick).wrapping_add(left);
        let bucket = bucket_of(slot.last_tick);
        slot.bucket_next = self.table[bucket];
        self.table[bucket] = id;
        self.filled |= 1 << bucket;
        self.next_last = self.next_last.min(self.tick + u64::from(left));
        self.count(slot.computed, true);
    }

    /// A request leaves; its counters are written back.
    pub(crate) fn leave(&mut self, slots: &mut Slots, id: SlotId) {
        let bucket = bucket_of(slots[id].last_tick);
        let next = slots[id].bucket_next;
        let mut link = self.table[bucket];
        if link == id {
            self.table[bucket] = next;
            if next == NONE {
                self.filled &= !(1 << bucket);
            }
        } else {
            while slots[link].bucket_next != id {
                link = slots[link].bucket_next;
            }
            slots[link].bucket_next = next;
        }
        self.write_back(&mut slots[id]);
        self.next_last = self.find_next_last(slots);
    }

    /// Empty the calendar: all members leave, and are written back one by one.
    pub(crate) fn clear_calendar(&mut self) {
        while self.filled != 0 {
            self.table[self.filled.trailing_zeros() as usize] = NONE;
            self.filled &= self.filled - 1;
        }
        self.next_last = NEVER;
    }

    /// A member that is out of the calendar leaves the sums.
    pub(crate) fn write_back(&mut self, slot: &mut Slot) {
        slot.computed = slot.base.wrapping_add(low(self.tick));
        slot.num_tokens = slot.computed + 1;
        slot.state = State::Ready;
        self.count(slot.computed, false);
    }

    /// Count a member that has `computed` tokens now, or no longer.
    #[inline]
    fn count(&mut self, computed: u32, joins: bool) {
        #[expect(clippy::cast_possible_wrap, reason = "ticks stay far below 2^63")]
        let base = i64::from(computed) - self.tick as i64;
        let behind = computed % self.block_size;
        let wraps = if behind > self.phase { self.block_size } else { 0 };
        let members = &mut self.table[BUCKETS + (self.phase + wraps - behind) as usize];
        if joins {
            *members += 1;
            self.len += 1;
            self.base_sum += base;
        } else {
            *members -= 1;
            self.len -= 1;
            self.base_sum -= base;
        }
        if let Some(window) = &mut self.window {
            if joins {
                window.join(base, self.tick);
            } else {
                window.leave(base, self.tick);
            }
        }
    }

    /// Give every member a token; those for which it is the last one leave, and are appended to
    /// `last`.
    #[inline]
    pub(crate) fn advance(&mut self, slots: &mut Slots, last: &mut Vec<SlotId>) {
        self.tick += 1;
        if let Some(window) = &mut self.window {
            window.advance(self.len, self.tick);
        }
        self.phase += 1;
        if self.phase == self.block_size {
            self.phase = 0;
        }
        if self.tick == self.next_last {
            self.take_last(slots, last);
        }
    }

    /// The members with their last token in this tick leave.
    fn take_last(&mut self, slots: &mut Slots, last: &mut Vec<SlotId>) {
        let tick = low(self.tick);
        let bucket = bucket_of(tick);
        let (mut id, mut kept) = (self.table[bucket], NONE);
        while id != NONE {
            let slot = &mut slots[id];
            let next = slot.bucket_next;
            if slot.last_tick == tick {
                self.write_back(slot);
                last.push(id);
            } else {
                slot.bucket_next = kept;
                kept = id;
            }
            id = next;
        }
        self.table[bucket] = kept;
        if kept == NONE {
            self.filled &= !(1 << bucket);
        }
        self.next_last = self.find_next_last(slots);
    }

    fn find_next_last(&self, slots: &Slots) -> u64 {
        let tick = low(self.tick);
        let mut nearest = u32::MAX;
        // From the bucket of the next tick on.
        let mut filled = self.filled.rotate_right(tick.wrapping_add(1) % u64::BITS);
        while filled != 0 {
            let ahead = filled.trailing_zeros() + 1;
            let mut id = self.table[bucket_of(tick.wrapping_add(ahead))];
            while id != NONE {
                let slot = &slots[id];
                nearest = nearest.min(slot.last_tick.wrapping_sub(tick));
                id = slot.bucket_next;
            }
            if nearest <= ahead {
                break;
            }
            filled &= filled - 1;
        }
        if nearest == u32::MAX { NEVER } else { self.tick + u64::from(nearest) }
    }

    /// Ticks up to the one in which some member gets its last token; [`u64::MAX`] without members.
    #[inline]
    pub(crate) const fn ticks_to_last(&self) -> u64 {
        if self.next_last == NEVER { NEVER } else { self.next_last - self.tick }
    }

    /// Blocks that the next `ticks` ticks take.
    pub(crate) fn blocks_in(&self, ticks: u32) -> u32 {
        let (by_phase, rest) = (self.by_phase(), (ticks % self.block_size) as usize);
        let (before, after) = by_phase.split_at(self.phase as usize);
        let some: u32 = match rest.checked_sub(after.len()) {
            None => after[..rest].iter().sum(),
            Some(wrapped) => after.iter().sum::<u32>() + before[..wrapped].iter().sum::<u32>(),
        };
        // Every member takes a block in a round of all phases.
        ticks / self.block_size * self.len + some
    }

    /// The first `ticks` ticks, or as many of them as `free` blocks allow.
    pub(crate) fn ticks_within(&self, ticks: u32, free: u32) -> u32 {
        let most = u64::from(ticks.div_ceil(self.block_size)) * u64::from(self.len);
        if most <= u64::from(free) {
            return ticks;
        }
        let (before, after) = self.by_phase().split_at(self.phase as usize);
        let mut left = free;
        for (tick, blocks) in (0..ticks).zip(after.iter().chain(before).cycle()) {
            let Some(rest) = left.checked_sub(*blocks) else { return tick };
            left = rest;
        }
        ticks
    }

    /// Give every member `ticks` tokens, the last of none among them.
    pub(crate) fn skip(&mut self, ticks: u32) {
        debug_assert!(u64::from(ticks) < self.ticks_to_last());
        self.tick += u64::from(ticks);
        self.phase = (self.phase + ticks) % self.block_size;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn low(tick: u64) -> u32 {
    tick as u32
}

const fn bucket_of(tick: u32) -> usize {
    tick as usize & (BUCKETS - 1)
}
