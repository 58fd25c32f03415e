//! The requests that get one token in every step, kept as sums.
//!
//! While nothing but decoding happens, a request's context grows by one a step. So each member is
//! stored relative to a tick that counts the steps: `computed = base + tick`. Adding a step to all
//! members is adding 1 to the tick; how many of them start a new KV block follows from a histogram
//! of (base mod block size), and who generates the last token from a calendar of ticks.

use super::slot::{Slots, State};
use super::window_sums::WindowSums;
use crate::config::Window;
use crate::ids::{NONE, SlotId};

/// Buckets of the calendar; a power of two. Members further away than this share a bucket with
/// nearer ones and are passed over once a round.
const BUCKETS: usize = 256;

/// Sums over the members and the calendar of their last tokens.
#[derive(Clone, Debug)]
pub(crate) struct DecodeSet {
    len: u32,
    tick: u64,
    base_sum: i64,
    /// tick mod block size.
    phase: usize,
    /// Members by the phase in which they need a new block.
    by_phase: Vec<u32>,
    window: WindowSums,
    /// First member of each bucket.
    buckets: Box<[SlotId]>,
}

impl DecodeSet {
    pub(crate) fn new(block_size: u32, window: Window) -> Self {
        Self {
            len: 0,
            tick: 0,
            base_sum: 0,
            phase: 0,
            by_phase: vec![0; block_size as usize],
            window: WindowSums::new(window),
            buckets: vec![NONE; BUCKETS].into_boxed_slice(),
        }
    }

    #[inline]
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Blocks that the next tick takes.
    #[inline]
    pub(crate) fn blocks_needed(&self) -> u32 {
        self.by_phase[self.phase]
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
        self.window.sum(self.len, self.tick)
    }

    /// A request joins: from the next tick on it gets a token a tick until its output is complete.
    pub(crate) fn join(&mut self, slots: &mut Slots, id: SlotId) {
        let tick = self.tick;
        let slot = &mut slots[id];
        debug_assert_eq!(slot.computed + 1, slot.num_tokens);
        slot.state = State::Decode;
        #[expect(clippy::cast_possible_wrap, reason = "ticks stay far below 2^63")]
        let base = i64::from(slot.computed) - tick as i64;
        slot.base = base;
        slot.last_tick = tick + u64::from(slot.output - slot.generated());
        let bucket = bucket_of(slot.last_tick);
        let next = self.buckets[bucket];
        slot.bucket_prev = NONE;
        slot.bucket_next = next;
        if next != NONE {
            slots[next].bucket_prev = id;
        }
        self.buckets[bucket] = id;
        self.len += 1;
        self.base_sum += base;
        self.window.join(base, tick);
        let phase = self.phase_of(base);
        self.by_phase[phase] += 1;
    }

    /// A request leaves; its counters are written back.
    pub(crate) fn leave(&mut self, slots: &mut Slots, id: SlotId) {
        let (prev, next) = (slots[id].bucket_prev, slots[id].bucket_next);
        if prev == NONE {
            self.buckets[bucket_of(slots[id].last_tick)] = next;
        } else {
            slots[prev].bucket_next = next;
        }
        if next != NONE {
            slots[next].bucket_prev = prev;
        }
        let slot = &mut slots[id];
        #[expect(
            clippy::cast_possible_wrap,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "base + tick is the member's token count, a u32"
        )]
        let computed = (slot.base + self.tick as i64) as u32;
        slot.computed = computed;
        slot.num_tokens = computed + 1;
        slot.state = State::Ready;
        let base = slot.base;
        self.len -= 1;
        self.base_sum -= base;
        self.window.leave(base, self.tick);
        let phase = self.phase_of(base);
        self.by_phase[phase] -= 1;
    }

    /// Give every member a token, and append those to `last` for which it is the last one.
    #[inline]
    pub(crate) fn advance(&mut self, slots: &Slots, last: &mut Vec<SlotId>) {
        self.tick += 1;
        self.window.advance(self.len, self.tick);
        self.phase += 1;
        if self.phase == self.by_phase.len() {
            self.phase = 0;
        }
        let mut id = self.buckets[bucket_of(self.tick)];
        while id != NONE {
            let slot = &slots[id];
            if slot.last_tick == self.tick {
                last.push(id);
            }
            id = slot.bucket_next;
        }
    }

    /// Ticks before the one in which some member gets its last token, at most `most`.
    pub(crate) fn steps_before_last(&self, slots: &Slots, most: u32) -> u32 {
        for ahead in 1..=most {
            let tick = self.tick + u64::from(ahead);
            let mut id = self.buckets[bucket_of(tick)];
            while id != NONE {
                let slot = &slots[id];
                if slot.last_tick == tick {
                    return ahead - 1;
                }
                id = slot.bucket_next;
            }
        }
        most
    }

    /// Blocks that the next `ticks` ticks take.
    pub(crate) fn blocks_in(&self, ticks: u32) -> u32 {
        let size = self.by_phase.len();
        (0..ticks as usize).map(|tick| self.by_phase[(self.phase + tick) % size]).sum()
    }

    /// The first `ticks` ticks, or as many of them as `free` blocks allow.
    pub(crate) fn steps_within(&self, ticks: u32, free: u32) -> u32 {
        let (size, mut left) = (self.by_phase.len(), free);
        for tick in 0..ticks {
            let Some(rest) = left.checked_sub(self.by_phase[(self.phase + tick as usize) % size])
            else {
                return tick;
            };
            left = rest;
        }
        ticks
    }

    /// Give every member `ticks` tokens, the last of none among them.
    pub(crate) fn skip(&mut self, ticks: u32) {
        self.tick += u64::from(ticks);
        self.phase = (self.phase + ticks as usize) % self.by_phase.len();
    }

    fn phase_of(&self, base: i64) -> usize {
        #[expect(
            clippy::cast_possible_wrap,
            clippy::cast_possible_truncation,
            reason = "the remainder lies between 0 and the block size"
        )]
        let phase = (-base).rem_euclid(self.by_phase.len() as i64) as usize;
        phase
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn bucket_of(tick: u64) -> usize {
    tick as usize & (BUCKETS - 1)
}
