//! Keys that decoding requests read in layers with a window, kept as a sum.
//!
//! A member's context is base + tick + 1, so a window acts on it at a tick that is known when it
//! joins. A histogram of those ticks is enough: at such a tick all members concerned have one base.

use crate::config::Window;

/// The sum for one kind of window.
#[derive(Clone, Debug)]
pub(crate) enum WindowSums {
    /// No layer has one.
    None,
    /// A context counts until it fills the window, and the window from then on.
    Sliding {
        window: u32,
        /// Members that do not fill the window.
        short: u32,
        short_base_sum: i64,
        /// How many members fill the window at a tick, by tick mod window.
        filling: Box<[u32]>,
    },
    /// A context counts from the last multiple of the window.
    Chunked {
        window: u32,
        sum: u64,
        /// How many members begin a chunk at a tick, by tick mod window.
        beginning: Box<[u32]>,
    },
}

impl WindowSums {
    pub(crate) fn new(window: Window) -> Self {
        match window {
            Window::None => Self::None,
            Window::Sliding(window) => Self::Sliding {
                window,
                short: 0,
                short_base_sum: 0,
                filling: vec![0; window as usize].into_boxed_slice(),
            },
            Window::Chunked(window) => Self::Chunked {
                window,
                sum: 0,
                beginning: vec![0; window as usize].into_boxed_slice(),
            },
        }
    }

    /// Keys that `len` members read in the tick after `tick`.
    #[inline]
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "ticks stay far below 2^63 and a sum of contexts is positive"
    )]
    pub(crate) fn sum(&self, len: u32, tick: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Sliding { window, short, short_base_sum, .. } => {
                let growing = short_base_sum + i64::from(*short) * (tick as i64 + 1);
                growing as u64 + u64::from(len - short) * u64::from(*window)
            }
            Self::Chunked { sum, .. } => *sum,
        }
    }

    pub(crate) fn join(&mut self, base: i64, tick: u64) {
        match self {
            Self::None => {}
            Self::Sliding { window, short, short_base_sum, filling } => {
                if let Some(index) = filled(base, tick, *window) {
                    *short += 1;
                    *short_base_sum += base;
                    filling[index] += 1;
                }
            }
            Self::Chunked { window, sum, beginning } => {
                *sum += in_chunk(base, tick, *window);
                beginning[remainder(-base, *window)] += 1;
            }
        }
    }

    pub(crate) fn leave(&mut self, base: i64, tick: u64) {
        match self {
            Self::None => {}
            Self::Sliding { window, short, short_base_sum, filling } => {
                if let Some(index) = filled(base, tick, *window) {
                    *short -= 1;
                    *short_base_sum -= base;
                    filling[index] -= 1;
                }
            }
            Self::Chunked { window, sum, beginning } => {
                *sum -= in_chunk(base, tick, *window);
                beginning[remainder(-base, *window)] -= 1;
            }
        }
    }

    /// `tick` begins with `len` members.
    #[inline]
    pub(crate) fn advance(&mut self, len: u32, tick: u64) {
        match self {
            Self::None => {}
            Self::Sliding { window, short, short_base_sum, filling } => {
                let index = remainder(signed(tick), *window);
                let full = std::mem::take(&mut filling[index]);
                *short -= full;
                *short_base_sum -= i64::from(full) * (i64::from(*window) - 1 - signed(tick));
            }
            Self::Chunked { window, sum, beginning } => {
                let begins = beginning[remainder(signed(tick), *window)];
                *sum += u64::from(len);
                *sum -= u64::from(begins) * u64::from(*window);
            }
        }
    }
}

/// Where the histogram has the tick at which a member's next context fills the window; None where
/// it does already.
fn filled(base: i64, tick: u64, window: u32) -> Option<usize> {
    let at = i64::from(window) - 1 - base;
    (at > signed(tick)).then(|| remainder(at, window))
}

/// Keys of the member's own chunk in the tick after `tick`.
fn in_chunk(base: i64, tick: u64, window: u32) -> u64 {
    remainder(base + signed(tick), window) as u64 + 1
}

#[expect(clippy::cast_possible_wrap, reason = "ticks stay far below 2^63")]
const fn signed(tick: u64) -> i64 {
    tick as i64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder lies between 0 and the window, a u32"
)]
fn remainder(value: i64, window: u32) -> usize {
    value.rem_euclid(i64::from(window)) as usize
}
