//! Which engine a request goes to.

mod least_outstanding;

use least_outstanding::LeastOutstanding;

/// Routing policies, by the names that users give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingPolicy {
    /// One engine after the other.
    RoundRobin,
    /// The engine with the fewest unanswered requests.
    LeastOutstanding,
}

impl RoutingPolicy {
    /// All policies and their names.
    pub const ALL: [(&'static str, Self); 2] =
        [("round_robin", Self::RoundRobin), ("least_outstanding", Self::LeastOutstanding)];

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, policy)| policy)
    }
}

/// A policy at work.
#[derive(Clone, Debug)]
pub(crate) enum Router {
    RoundRobin { engines: u32, next: u32 },
    LeastOutstanding(LeastOutstanding),
}

impl Router {
    pub(crate) fn new(policy: RoutingPolicy, engines: u32) -> Self {
        match policy {
            RoutingPolicy::RoundRobin => Self::RoundRobin { engines, next: 0 },
            RoutingPolicy::LeastOutstanding => {
                Self::LeastOutstanding(LeastOutstanding::new(engines as usize))
            }
        }
    }

    /// Choose an engine for the next request.
    pub(crate) fn route(&mut self) -> u32 {
        match self {
            Self::RoundRobin { engines, next } => {
                let engine = *next;
                *next = if engine + 1 == *engines { 0 } else { engine + 1 };
                engine
            }
            Self::LeastOutstanding(router) => router.route(),
        }
    }

    /// `count` requests of `engine` were answered.
    pub(crate) fn answered(&mut self, engine: u32, count: usize) {
        if let Self::LeastOutstanding(router) = self {
            router.answered(engine, count);
        }
    }
}
