//! Engines that come and go, requests that are given up (`docs/spec.md`, section 13).

use std::collections::{BTreeMap, VecDeque};

use super::Simulation;
use crate::error::SimError;
use crate::event::{Event, Rank};
use crate::ids::{NONE, SlotId};
use crate::recorder::Status;
use crate::scheduler::Lost;
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
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) settings: FleetSettings,
    up: Vec<bool>,
    /// When engines that start will be up.
    starting: BTreeMap<u32, SimTime>,
    /// Planned changes to come that bring an engine up.
    ups_left: usize,
    /// Requests that found no engine, and the tokens that they had.
    held: VecDeque<(u32, u32)>,
    /// The slot of each request in its engine.
    slots: Vec<SlotId>,
    /// The order in which requests were sent.
    orders: Vec<u64>,
}

/// The index of the autoscaler's event, behind those of the planned changes and the engines.
const LOOK: u32 = u32::MAX;

impl Fleet {
    pub(super) fn new(settings: FleetSettings, engines: usize, requests: usize) -> Self {
        let ups = settings.planned.iter().filter(|planned| planned.change == Change::Up);
        Self {
            ups_left: ups.count(),
            settings,
            up: vec![true; engines],
            starting: BTreeMap::new(),
            held: VecDeque::new(),
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
}

impl Simulation {
    /// Push what is planned, and have the engines beyond the least number stay down.
    pub(super) fn plan_fleet(&mut self) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        for (index, planned) in (0_u32..).zip(&fleet.settings.planned) {
            if planned.engine as usize >= self.engines.len() {
                return Err(SimError::InvalidSetting {
                    field: "fleet.engine",
                    value: planned.engine.to_string(),
                    remedy: "there is no such engine",
                });
            }
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
            for engine in (0_u32..).zip(&mut fleet.up).skip(scaling.min_engines as usize) {
                *engine.1 = false;
                self.router.set_up(engine.0, false);
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
            fleet.ups_left -= 1;
            return self.engine_up(engine);
        }
        for member in self.comrades(engine) {
            let Some(fleet) = &mut self.fleet else { continue };
            fleet.set_down(member);
            self.router.set_up(member, false);
        }
        if change == Change::Fail { self.fail(engine) } else { Ok(()) }
    }

    fn engine_up(&mut self, engine: u32) -> Result<(), SimError> {
        for member in self.comrades(engine) {
            let Some(fleet) = &mut self.fleet else { continue };
            fleet.starting.remove(&member);
            fleet.up[member as usize] = true;
            self.router.set_up(member, true);
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        for (request, generated) in std::mem::take(&mut fleet.held) {
            self.send_to_engine(request, generated)?;
        }
        Ok(())
    }

    /// An engine has died, with its group if it has one: their requests go elsewhere, or fail.
    fn fail(&mut self, engine: u32) -> Result<(), SimError> {
        self.lose_group_steps(engine);
        let mut all_lost = Vec::new();
        for member in self.comrades(engine) {
            let processed = self.engines[member as usize].processed();
            let lost = self.engines[member as usize].fail(self.now)?;
            for lost in &lost {
                self.router.answered(member, lost.request, self.source.workload());
                if let Some(span) = lost.span {
                    self.records.requests.span_broken(member, span);
                }
                if lost.token_was_due {
                    self.records.requests.span_shortened(member, lost.request, processed);
                }
            }
            all_lost.extend(lost);
        }
        all_lost.sort_unstable_by_key(|lost| lost.request);
        for lost in all_lost {
            let most = self.fleet.as_ref().map_or(0, |fleet| fleet.settings.max_retries);
            let Some(retries) = &mut self.records.requests.retries else { continue };
            let retries = &mut retries[lost.request];
            if *retries < most {
                *retries += 1;
                self.send_to_engine(lost.request, lost.generated)?;
            } else {
                self.give_up(lost.request, Status::Failed, lost.generated)?;
            }
        }
        Ok(())
    }

    /// A request ends without all its tokens.
    fn give_up(&mut self, request: u32, status: Status, generated: u32) -> Result<(), SimError> {
        let seen = self.now.after(self.options.response_latency)?;
        self.records.requests.gave_up(request, status, generated, seen);
        self.source.answered(request, seen);
        self.look_ahead()
    }

    /// A request's time is over.
    pub(super) fn time_out(&mut self, request: u32) -> Result<(), SimError> {
        if self.records.requests.status[request] != Status::Unfinished {
            return Ok(());
        }
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if let Some(place) = fleet.held.iter().position(|&(held, _)| held == request) {
            let generated = fleet.held.remove(place).map_or(0, |(_, generated)| generated);
            return self.give_up(request, Status::TimedOut, generated);
        }
        let slot = fleet.slots[request as usize];
        let Ok(index) = u32::try_from(self.records.requests.engine[request]) else {
            return Ok(());
        };
        let engine = &mut self.engines[index as usize];
        let Lost { generated, .. } = engine.abort(slot)?;
        if !self.is_busy(index) {
            self.mark_due(index);
        }
        self.router.answered(index, request, self.source.workload());
        self.give_up(request, Status::TimedOut, generated)
    }

    /// A request finds no engine up: it waits for one, or fails if none will come.
    pub(super) fn hold(&mut self, request: u32, generated: u32) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if fleet.ups_left == 0 && fleet.settings.autoscaling.is_none() {
            return self.give_up(request, Status::Failed, generated);
        }
        fleet.held.push_back((request, generated));
        Ok(())
    }

    /// The autoscaler looks at the queues and starts or drains one engine.
    fn look_at_queues(&mut self) -> Result<(), SimError> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let Some(scaling) = fleet.settings.autoscaling else { return Ok(()) };
        let up = || (0_u32..).zip(&fleet.up).filter(|(_, up)| **up).map(|(index, _)| index);
        let waiting: usize = up().map(|index| self.engines[index as usize].waiting()).sum();
        let (waiting, count) = ((waiting + fleet.held.len()) as u64, up().count() as u64);
        if waiting > u64::from(scaling.start_above) * count {
            let idle = |&(index, up): &(u32, &bool)| !up && !fleet.starting.contains_key(&index);
            if let Some((engine, _)) = (0_u32..).zip(&fleet.up).find(idle) {
                let time = self.now.after(scaling.startup)?;
                fleet.starting.insert(engine, time);
                let planned = u32::try_from(fleet.settings.planned.len()).unwrap_or(LOOK);
                let index = planned.saturating_add(engine);
                self.queue.push(Event { time, rank: Rank::Fleet, index });
            }
        } else if waiting < u64::from(scaling.drain_below) * count
            && fleet.starting.is_empty()
            && count > u64::from(scaling.min_engines)
            && let Some(engine) = up().last()
        {
            fleet.set_down(engine);
            self.router.set_up(engine, false);
        }
        if self.source.unanswered() > 0 || self.source.next_time().is_some() {
            let time = self.now.after(scaling.interval)?;
            self.queue.push(Event { time, rank: Rank::Fleet, index: LOOK });
        }
        Ok(())
    }
}

impl Fleet {
    fn set_down(&mut self, engine: u32) {
        self.up[engine as usize] = false;
        self.starting.remove(&engine);
    }
}
