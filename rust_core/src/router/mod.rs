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

/// A policy at work on some of a cluster's engines.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// The engines, in order; policies know them by their place.
    engines: Vec<u32>,
    /// The place of each engine of the cluster.
    places: Vec<u32>,
    choice: Choice,
}

#[derive(Clone, Debug)]
enum Choice {
    RoundRobin { next: u32 },
    LeastOutstanding(LeastOutstanding),
}

impl Router {
    pub(crate) fn new(policy: RoutingPolicy, engines: Vec<u32>) -> Self {
        let choice = match policy {
            RoutingPolicy::RoundRobin => Choice::RoundRobin { next: 0 },
            RoutingPolicy::LeastOutstanding => {
                Choice::LeastOutstanding(LeastOutstanding::new(engines.len()))
            }
        };
        let last = engines.last().map_or(0, |&engine| engine as usize + 1);
        let mut places = vec![0; last];
        for (place, &engine) in (0_u32..).zip(&engines) {
            places[engine as usize] = place;
        }
        Self { engines, places, choice }
    }

    /// Choose an engine for the next request.
    pub(crate) fn route(&mut self) -> u32 {
        let place = match &mut self.choice {
            Choice::RoundRobin { next } => {
                let place = *next;
                *next = if place as usize + 1 == self.engines.len() { 0 } else { place + 1 };
                place
            }
            Choice::LeastOutstanding(router) => router.route(),
        };
        self.engines[place as usize]
    }

    /// `count` requests of `engine` were answered.
    pub(crate) fn answered(&mut self, engine: u32, count: usize) {
        if let Choice::LeastOutstanding(router) = &mut self.choice {
            router.answered(self.places[engine as usize], count);
        }
    }
}
