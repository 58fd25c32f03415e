//! Engines that come and go (`docs/spec.md`, section 13).

use std::collections::{BTreeMap, VecDeque};

use super::Simulation;
use super::handover::Handover;
use crate::error::SimError;
use crate::event::{Event, Rank};
use crate::ids::{NONE, SlotId};
use crate::router::Router;
use crate::time::{SimDuration, SimTime};

/// What happens to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It dies, with its cache, its queue and its steps in flight.
    Fail,
    /// It takes no more requests; those that it has it finishes.
    Drain,
    /// It takes requests.
    Up,
}

/// A planned change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub time: SimTime,
    /// Of which engine.
    pub engine: u32,
    /// What.
    pub change: Change,
}

/// Starts and drains engines by the length of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscaling {
    /// Engines that are up at first, and at least.
    pub min_engines: u32,
    /// Between two looks.
    pub interval: SimDuration,
    /// Waiting requests per engine beyond which another one starts.
    pub start_above: u32,
    /// Waiting requests per engine below which one drains.
    pub drain_below: u32,
    /// From the decision to start an engine until it takes requests.
    pub startup: SimDuration,
}

/// How a cluster changes, and what requests put up with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    /// Planned changes, in order of time.
    pub planned: Vec<Planned>,
    /// How often a request that was lost with its engine is sent to another one.
    pub max_retries: u32,
    /// From a request's arrival at the router until it is given up.
    pub timeout: Option<SimDuration>,
    /// Waiting requests of an engine at which it takes no new one.
    pub max_queue: Option<u32>,
    /// None: no autoscaling.
    pub autoscaling: Option<Autoscaling>,
}

/// A cluster that changes.
///
/// Its engines are of one or two sides: those that requests arrive at, and those that they are
/// handed over to.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) settings: FleetSettings,
    up: Vec<bool>,
    /// The side of each engine.
    sides: Vec<usize>,
    /// When engines that start will be up.
    starting: BTreeMap<u32, SimTime>,
    /// Planned changes to come that bring an engine up, by side.
    ups_left: [usize; 2],
    /// Requests that found no engine of a side, and the tokens that they had.
    pub(super) held: [VecDeque<(u32, u32)>; 2],
    /// The slot of each request in the engine that it was sent to last.
    slots: Vec<SlotId>,
    /// The order in which requests were sent.
    orders: Vec<u64>,
}

/// The index of the autoscaler's event, behind those of the planned changes and the engines.
const LOOK: u32 = u32::MAX;

impl Fleet {
    /// `decodes` tells the engines that requests are handed over to.
    pub(super) fn new(
        settings: FleetSettings,
        engines: usize,
        requests: usize,
        decodes: impl Fn(u32) -> bool,
    ) -> Self {
        Self {
            settings,
            up: vec![true; engines],
            sides: (0_u32..).take(engines).map(|engine| usize::from(decodes(engine))).collect(),
            starting: BTreeMap::new(),
            ups_left: [0, 0],
            held: [VecDeque::new(), VecDeque::new()],
            slots: vec![NONE; requests],
            orders: vec![0; requests],
        }
    }

    /// A request arrives for the first time.
    pub(super) fn arrived(&mut self, request: u32, order: u64) {
        self.orders[request as usize] = order;
    }

    /// The order in which a request was sent.
    pub(super) fn order(&self, request: u32) -> u64 {
        self.orders[request as usize]
    }

    pub(super) fn remember(&mut self, request: u32, slot: SlotId) {
        self.slots[request as usize] = slot;
    }

    /// Its slot in the engine that it was sent to last.
    pub(super) fn slot(&self, request: u32) -> SlotId {
        self.slots[request as usize]
    }

    /// Whether an engine of a side may come up that is down now.
    pub(super) fn may_come_up(&self, side: usize) -> bool {
        self.ups_left[side] > 0 || self.settings.autoscaling.is_some()
    }

    fn set_down(&mut self, engine: u32) {
        self.up[engine as usize] = false;
        self.starting.remove(&engine);
    }

    /// The engines of a side, in order.
    fn engines(&self, side: usize) -> impl DoubleEndedIterator<Item = u32> {
        let sides = self.sides.iter().enumerate();
        // Engines are numbered by u32.
        sides.filter_map(move |(index, &own)| (own == side).then_some(u32::try_from(index).ok()?))
    }

    fn is_up(&self, engine: u32) -> bool {
        self.up[engine as usize]
    }
}

impl Simulation {
    /// Push what is planned, and have the engines beyond the least number stay down.
    pub(super) fn plan_fleet(&mut self) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        for (index, planned) in (0_u32..).zip(&fleet.settings.planned) {
            let Some(&side) = fleet.sides.get(planned.engine as usize) else {
                return Err(SimError::InvalidSetting {
                    field: "fleet.engine",
                    value: planned.engine.to_string(),
                    remedy: "there is no such engine",
                });
            };
            fleet.ups_left[side] += usize::from(planned.change == Change::Up);
            self.queue.push(Event { time: planned.time, rank: Rank::Fleet, index });
        }
        if let Some(scaling) = fleet.settings.autoscaling {
            if self.dp_groups.is_some() {
                return Err(SimError::InvalidSetting {
                    field: "autoscaling",
                    value: "engines that step together".to_owned(),
                    remedy: "they come and go as a whole: leave autoscaling out",
                });
            }
            if scaling.interval == SimDuration::default() || scaling.min_engines == 0 {
                return Err(SimError::InvalidSetting {
                    field: "autoscaling",
                    value: "0".to_owned(),
                    remedy: "interval and min_engines must be at least 1",
                });
            }
            for side in [0, 1] {
                let beyond: Vec<u32> =
                    fleet.engines(side).skip(scaling.min_engines as usize).collect();
                for engine in beyond {
                    fleet.set_down(engine);
                    router_of(&mut self.router, &mut self.handover, engine).set_up(engine, false);
                }
            }
            let time = SimTime::ZERO.after(scaling.interval)?;
            self.queue.push(Event { time, rank: Rank::Fleet, index: LOOK });
        }
        Ok(())
    }

    /// A planned change, an engine that has started, or a look of the autoscaler.
    pub(super) fn change_fleet(&mut self, index: u32) -> Result<(), SimError> {
        if index == LOOK {
            return self.look_at_queues();
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let planned = fleet.settings.planned.len();
        let Some(&Planned { engine, change, .. }) = fleet.settings.planned.get(index as usize)
        else {
            // Engines that start are numbered behind the planned changes.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it was added to an engine's index"
            )]
            let engine = (index as usize - planned) as u32;
            if fleet.starting.get(&engine) == Some(&self.now) {
                return self.engine_up(engine);
            }
            return Ok(());
        };
        if change == Change::Up {
            fleet.ups_left[fleet.sides[engine as usize]] -= 1;
            return self.engine_up(engine);
        }
        for member in self.comrades(engine) {
            self.take_down(member);
        }
        if change == Change::Fail { self.fail(engine) } else { Ok(()) }
    }

    /// An engine gets no more requests.
    fn take_down(&mut self, engine: u32) {
        if let Some(fleet) = &mut self.fleet {
            fleet.set_down(engine);
            router_of(&mut self.router, &mut self.handover, engine).set_up(engine, false);
        }
    }

    fn engine_up(&mut self, engine: u32) -> Result<(), SimError> {
        for member in self.comrades(engine) {
            let Some(fleet) = &mut self.fleet else { continue };
            fleet.starting.remove(&member);
            fleet.up[member as usize] = true;
            router_of(&mut self.router, &mut self.handover, member).set_up(member, true);
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let side = fleet.sides[engine as usize];
        for (request, generated) in std::mem::take(&mut fleet.held[side]) {
            if side == 0 {
                self.send_to_engine(request, generated)?;
            } else {
                self.route_handover(request)?;
            }
        }
        Ok(())
    }

    /// The autoscaler looks at the queues and starts or drains one engine of each side.
    fn look_at_queues(&mut self) -> Result<(), SimError> {
        let Some(scaling) = self.fleet.as_ref().and_then(|fleet| fleet.settings.autoscaling) else {
            return Ok(());
        };
        for side in [0, 1] {
            self.look_at_side(side, &scaling)?;
        }
        if self.source.unanswered() > 0 || self.source.next_time().is_some() {
            let time = self.now.after(scaling.interval)?;
            self.queue.push(Event { time, rank: Rank::Fleet, index: LOOK });
        }
        Ok(())
    }

    fn look_at_side(&mut self, side: usize, scaling: &Autoscaling) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let up: Vec<u32> = fleet.engines(side).filter(|&engine| fleet.is_up(engine)).collect();
        let waiting: usize = up.iter().map(|&index| self.engines[index as usize].waiting()).sum();
        let waiting = (waiting + fleet.held[side].len()) as u64;
        let count = up.len() as u64;
        if waiting > u64::from(scaling.start_above) * count {
            let starts = |engine: &u32| fleet.starting.contains_key(engine);
            let idle = fleet.engines(side).find(|own| !fleet.is_up(*own) && !starts(own));
            if let Some(engine) = idle {
                let time = self.now.after(scaling.startup)?;
                fleet.starting.insert(engine, time);
                let planned = u32::try_from(fleet.settings.planned.len()).unwrap_or(LOOK);
                let index = planned.saturating_add(engine);
                self.queue.push(Event { time, rank: Rank::Fleet, index });
            }
        } else if waiting < u64::from(scaling.drain_below) * count
            && !fleet.starting.keys().any(|&engine| fleet.sides[engine as usize] == side)
            && count > u64::from(scaling.min_engines)
            && let Some(&engine) = up.last()
        {
            self.take_down(engine);
        }
        Ok(())
    }
}

/// The router that chooses among an engine and its like.
pub(super) fn router_of<'a>(
    arrivals: &'a mut Router,
    handover: &'a mut Option<Box<Handover>>,
    engine: u32,
) -> &'a mut Router {
    match handover {
        Some(handover) if handover.decodes(engine) => &mut handover.router,
        _ => arrivals,
    }
}
