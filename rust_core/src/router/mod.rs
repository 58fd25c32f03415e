//! Which engine a request goes to (`docs/spec.md`, 2.5 and 2.8).

mod external;
mod prefix;
mod tournament;

use std::collections::VecDeque;
use std::sync::Arc;

pub use external::{Incoming, Loads, RouteRequest};
use prefix::PrefixAware;
use tournament::Tournament;

use crate::error::SimError;
use crate::ids::NONE;
use crate::rng::Rng;
use crate::time::{SimDuration, SimTime};
use crate::workload::Workload;

/// Routing policies, by the names that users give.
#[derive(Clone, Debug)]
pub enum RoutingPolicy {
    /// One engine after the other.
    RoundRobin,
    /// Any engine, all equally likely.
    Random,
    /// The engine with the fewest outstanding requests.
    LeastOutstanding,
    /// The engine with the fewest outstanding tokens.
    LeastOutstandingTokens,
    /// Of two random engines the one with fewer outstanding requests.
    PowerOfTwo,
    /// The engine of the request that it continues.
    SessionAffinity,
    /// The engine that its prefix was sent to last.
    PrefixAware {
        /// How old the router's knowledge is.
        view_delay: SimDuration,
        /// Outstanding requests more than the idlest engine has, beyond which it is left alone.
        imbalance: u64,
    },
    /// A user's own.
    External(Arc<dyn RouteRequest>),
}

impl RoutingPolicy {
    /// Names of all policies but a user's own.
    pub const NAMES: [&'static str; 7] = [
        "round_robin",
        "random",
        "least_outstanding",
        "least_outstanding_tokens",
        "power_of_two",
        "session_affinity",
        "prefix_aware",
    ];

    /// The policy of that name.
    pub fn from_name(name: &str, view_delay: SimDuration, imbalance: u64) -> Option<Self> {
        Some(match name {
            "round_robin" => Self::RoundRobin,
            "random" => Self::Random,
            "least_outstanding" => Self::LeastOutstanding,
            "least_outstanding_tokens" => Self::LeastOutstandingTokens,
            "power_of_two" => Self::PowerOfTwo,
            "session_affinity" => Self::SessionAffinity,
            "prefix_aware" => Self::PrefixAware { view_delay, imbalance },
            _ => return None,
        })
    }
}

/// A policy at work on some of a cluster's engines.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    /// The engines, in order; policies know them by their place.
    engines: Vec<u32>,
    /// The place of each engine of the cluster.
    places: Vec<u32>,
    /// Places of the engines that take requests, in order.
    up: Vec<u32>,
    choice: Choice,
}

#[derive(Clone, Debug)]
enum Choice {
    RoundRobin {
        next: u32,
    },
    Random(Rng),
    LeastOutstanding(Tournament),
    LeastOutstandingTokens(Tournament),
    PowerOfTwo {
        rng: Rng,
        loads: Vec<u64>,
    },
    SessionAffinity {
        loads: Tournament,
        engines: Vec<u32>,
    },
    PrefixAware(PrefixAware),
    External {
        route: Arc<dyn RouteRequest>,
        loads: Arc<Loads>,
    },
    /// It was settled elsewhere: the places of the next requests, in order.
    Assigned(VecDeque<u32>),
}

impl Router {
    /// A router to the first `engines` engines that is told which one takes each request.
    pub(crate) fn assigned(engines: usize, places: Vec<u32>) -> Self {
        let all: Vec<u32> = (0_u32..).take(engines).collect();
        Self {
            engines: all.clone(),
            places: all.clone(),
            up: all,
            choice: Choice::Assigned(places.into()),
        }
    }

    /// Tell the places of the requests that follow.
    pub(crate) fn assign(&mut self, places: Vec<u32>) {
        if let Choice::Assigned(known) = &mut self.choice {
            known.extend(places);
        }
    }

    /// A router to `engines`; `stream` tells the routers of one seed apart.
    pub(crate) fn new(
        policy: &RoutingPolicy,
        engines: Vec<u32>,
        workload: &Workload,
        seed: u64,
        stream: u64,
    ) -> Self {
        let count = engines.len();
        let choice = match policy {
            RoutingPolicy::RoundRobin => Choice::RoundRobin { next: 0 },
            RoutingPolicy::Random => Choice::Random(Rng::new(seed, stream)),
            RoutingPolicy::LeastOutstanding => Choice::LeastOutstanding(Tournament::new(count)),
            RoutingPolicy::LeastOutstandingTokens => {
                Choice::LeastOutstandingTokens(Tournament::new(count))
            }
            RoutingPolicy::PowerOfTwo => {
                Choice::PowerOfTwo { rng: Rng::new(seed, stream), loads: vec![0; count] }
            }
            RoutingPolicy::SessionAffinity => Choice::SessionAffinity {
                loads: Tournament::new(count),
                engines: vec![NONE; workload.predecessors.len()],
            },
            &RoutingPolicy::PrefixAware { view_delay, imbalance } => {
                let contents = workload.shared_blocks().count();
                Choice::PrefixAware(PrefixAware::new(count, contents, view_delay, imbalance))
            }
            RoutingPolicy::External(route) => {
                Choice::External { route: Arc::clone(route), loads: Arc::new(Loads::new(count)) }
            }
        };
        let last = engines.last().map_or(0, |&engine| engine as usize + 1);
        let mut places = vec![0; last];
        for (place, &engine) in (0_u32..).zip(&engines) {
            places[engine as usize] = place;
        }
        let up = (0_u32..).zip(&engines).map(|(place, _)| place).collect();
        Self { engines, places, up, choice }
    }

    /// Whether any engine takes requests.
    pub(crate) fn any_up(&self) -> bool {
        !self.up.is_empty()
    }

    /// An engine takes requests from now on, or none.
    pub(crate) fn set_up(&mut self, engine: u32, up: bool) {
        let place = self.places[engine as usize];
        match (self.up.binary_search(&place), up) {
            (Err(at), true) => self.up.insert(at, place),
            (Ok(at), false) => {
                self.up.remove(at);
            }
            _ => return,
        }
        match &mut self.choice {
            Choice::RoundRobin { .. }
            | Choice::Random(_)
            | Choice::PowerOfTwo { .. }
            | Choice::Assigned(_) => {}
            Choice::LeastOutstanding(loads)
            | Choice::LeastOutstandingTokens(loads)
            | Choice::SessionAffinity { loads, .. } => loads.set_up(place, up),
            Choice::PrefixAware(router) => router.set_up(place, up),
            Choice::External { loads, .. } => loads.set_up(place, up),
        }
    }

    /// Choose an engine for a request, one of those that are up: there is one.
    ///
    /// # Errors
    /// What a user's own policy raises.
    #[inline]
    pub(crate) fn route(
        &mut self,
        now: SimTime,
        request: u32,
        workload: &Workload,
    ) -> Result<u32, SimError> {
        let place = match &mut self.choice {
            Choice::RoundRobin { next } => {
                let at = self.up.partition_point(|place| place < next);
                let place = self.up[if at == self.up.len() { 0 } else { at }];
                *next = place + 1;
                place
            }
            Choice::Random(rng) => self.up[rng.below(count(&self.up)) as usize],
            Choice::Assigned(places) => places.pop_front().unwrap_or(0),
            Choice::LeastOutstanding(loads) => {
                let place = loads.winner();
                loads.add(place, 1);
                place
            }
            Choice::LeastOutstandingTokens(loads) => {
                let place = loads.winner();
                loads.add(place, tokens(request, workload));
                place
            }
            Choice::PowerOfTwo { rng, loads } => {
                let place = better_of_two(rng, loads, &self.up);
                loads[place as usize] += 1;
                place
            }
            Choice::SessionAffinity { loads, engines } => {
                let known = workload.previous(request).map(|before| engines[before as usize]);
                let place = match known {
                    Some(place) if place != NONE && !loads.is_down(place) => place,
                    _ => loads.winner(),
                };
                if let Some(engine) = engines.get_mut(request as usize) {
                    *engine = place;
                }
                loads.add(place, 1);
                place
            }
            Choice::PrefixAware(router) => {
                let shared = workload.shared_blocks();
                router.route(now, request, |request| shared.of(request))
            }
            Choice::External { route, loads } => {
                let (prompt, output) = workload.lengths(request);
                let previous = workload.previous(request);
                let incoming = Incoming { request, now, prompt, output, previous };
                let place = checked(route.route(&incoming, loads)?, &self.engines, &self.up)?;
                loads.add(place, tokens(request, workload));
                place
            }
        };
        Ok(self.engines[place as usize])
    }

    /// A request of `engine` is outstanding no more.
    #[inline]
    pub(crate) fn answered(&mut self, engine: u32, request: u32, workload: &Workload) {
        let place = self.places[engine as usize];
        match &mut self.choice {
            Choice::RoundRobin { .. } | Choice::Random(_) | Choice::Assigned(_) => {}
            Choice::LeastOutstanding(loads) | Choice::SessionAffinity { loads, .. } => {
                loads.remove(place, 1);
            }
            Choice::LeastOutstandingTokens(loads) => {
                loads.remove(place, tokens(request, workload));
            }
            Choice::PowerOfTwo { loads, .. } => loads[place as usize] -= 1,
            Choice::PrefixAware(router) => router.answered(place),
            Choice::External { loads, .. } => loads.remove(place, tokens(request, workload)),
        }
    }
}

/// What a request weighs where tokens are counted.
fn tokens(request: u32, workload: &Workload) -> u64 {
    let (prompt, output) = workload.lengths(request);
    u64::from(prompt) + u64::from(output)
}

/// Two different engines at random; the first where both have as much to do.
fn better_of_two(rng: &mut Rng, loads: &[u64], up: &[u32]) -> u32 {
    let count = count(up);
    if count == 1 {
        return up[0];
    }
    let first = rng.below(count);
    let second = rng.below(count - 1);
    let second = if second >= first { second + 1 } else { second };
    let (first, second) = (up[first as usize], up[second as usize]);
    if loads[second as usize] < loads[first as usize] { second } else { first }
}

/// Clusters of 2^32 engines do not exist.
fn count(up: &[u32]) -> u32 {
    u32::try_from(up.len()).unwrap_or(u32::MAX)
}

fn checked(place: u64, engines: &[u32], up: &[u32]) -> Result<u32, SimError> {
    let last = engines.len() - 1;
    let message = match u32::try_from(place) {
        Ok(place) if up.binary_search(&place).is_ok() => return Ok(place),
        Ok(found) if (found as usize) <= last => format!("it chose engine {place}, which is down"),
        _ => format!("it chose engine {place}, but there are engines 0 to {last}"),
    };
    Err(SimError::Router { message })
}
