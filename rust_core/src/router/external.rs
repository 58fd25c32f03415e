//! Routing by code of the user.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::SimError;
use crate::time::SimTime;

/// Chooses an engine for each request.
pub trait RouteRequest: Send + Sync {
    /// The place of an engine among those that `loads` describes.
    ///
    /// # Errors
    /// [`SimError::Routing`].
    fn route(&self, incoming: &Incoming, loads: &Arc<Loads>) -> Result<u64, SimError>;
}

impl fmt::Debug for dyn RouteRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RouteRequest")
    }
}

/// A request that needs an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its number.
    pub request: u32,
    /// The clock.
    pub now: SimTime,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Tokens that it asks for.
    pub output: u32,
    /// The request whose answer it continues.
    pub previous: Option<u32>,
}

/// What engines have to do: shared with the user's code, which may look at it between requests.
#[derive(Debug)]
pub struct Loads {
    requests: Vec<AtomicU64>,
    tokens: Vec<AtomicU64>,
    down: Vec<AtomicBool>,
}

impl Loads {
    pub(super) fn new(engines: usize) -> Self {
        let zeros = || (0..engines).map(|_| AtomicU64::new(0)).collect();
        let down = (0..engines).map(|_| AtomicBool::new(false)).collect();
        Self { requests: zeros(), tokens: zeros(), down }
    }

    /// Whether an engine takes requests; None if there is no such engine.
    pub fn is_up(&self, place: usize) -> Option<bool> {
        self.down.get(place).map(|down| !down.load(Ordering::Relaxed))
    }

    pub(super) fn set_up(&self, place: u32, up: bool) {
        self.down[place as usize].store(!up, Ordering::Relaxed);
    }

    /// Number of engines.
    pub fn engines(&self) -> usize {
        self.requests.len()
    }

    /// Outstanding requests of an engine; None if there is no such engine.
    pub fn requests(&self, place: usize) -> Option<u64> {
        self.requests.get(place).map(|load| load.load(Ordering::Relaxed))
    }

    /// Their prompt tokens and requested tokens together.
    pub fn tokens(&self, place: usize) -> Option<u64> {
        self.tokens.get(place).map(|load| load.load(Ordering::Relaxed))
    }

    pub(super) fn add(&self, place: u32, tokens: u64) {
        self.requests[place as usize].fetch_add(1, Ordering::Relaxed);
        self.tokens[place as usize].fetch_add(tokens, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, place: u32, tokens: u64) {
        self.requests[place as usize].fetch_sub(1, Ordering::Relaxed);
        self.tokens[place as usize].fetch_sub(tokens, Ordering::Relaxed);
    }
}

impl Clone for Loads {
    fn clone(&self) -> Self {
        let copy = |loads: &[AtomicU64]| {
            loads.iter().map(|load| AtomicU64::new(load.load(Ordering::Relaxed))).collect()
        };
        let down =
            self.down.iter().map(|down| AtomicBool::new(down.load(Ordering::Relaxed))).collect();
        Self { requests: copy(&self.requests), tokens: copy(&self.tokens), down }
    }
}
