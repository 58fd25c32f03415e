//! The event loop: one cluster, one workload, advanced in slices.

mod departures;
mod dp_group;
mod fleet;
mod handover;
mod parts;
mod stream;

use crate::config::{EngineSettings, Role};
pub use crate::engine::Pool;
use crate::engine::{Common, Engine, EngineStats, Outcome, Records};
use crate::error::SimError;
use crate::event::{Event, EventQueue, Rank};
use crate::recorder::{Decisions, HandoverColumns, RequestColumns, StepColumns, TraceHash};
use crate::router::{Router, RoutingPolicy};
use crate::rows::Rows;
use crate::scheduler::{Ended, NewRequest, StepPlan};
use crate::source::Source;
use crate::step_ends::StepEnds;
use crate::time::{SimDuration, SimTime};
use crate::workload::Workload;
use dp_group::DpGroups;
pub use fleet::{Autoscaling, Change, FleetSettings, Planned};
use fleet::{Fleet, router_of};
use handover::Handover;
pub use handover::TransferSettings;
use parts::Parts;
use stream::Stream;
pub use stream::StreamSettings;

/// What stands between clients and engines, and what a run keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Seed of routers that draw.
    pub seed: u64,
    /// How keys and values go from prefill to decode engines, where there are such.
    pub transfer: Option<TransferSettings>,
    /// From a client's sending to the engine's queue: HTTP, tokenising.
    pub request_latency: SimDuration,
    /// From the end of a step to the client: detokenising, HTTP.
    pub response_latency: SimDuration,
    /// Keep a row a step.
    pub record_steps: bool,
    /// Keep every scheduling decision.
    pub record_decisions: bool,
    /// Take every step by itself, also where several are known in advance: slower, to compare with.
    pub step_by_step: bool,
    /// Requests are appended while the run goes on, and rows are handed out; None: a run in one
    /// piece.
    pub stream: Option<StreamSettings>,
    /// Threads for engines that know nothing of one another; results do not depend on it.
    pub threads: usize,
}

/// Where a simulation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Every request is answered.
    pub done: bool,
    /// Nothing happens before more requests are appended.
    pub needs_requests: bool,
    /// The clock.
    pub now: SimTime,
    /// Requests sent.
    pub arrived: usize,
    /// Requests completed or rejected.
    pub answered: usize,
    /// Steps of all engines.
    pub steps: u64,
}

/// A cluster and its workload.
#[derive(Clone, Debug)]
pub struct Simulation {
    now: SimTime,
    queue: EventQueue,
    source: Source,
    /// Of arriving requests, to aggregated or prefill engines.
    router: Router,
    /// What goes from prefill to decode engines.
    handover: Option<Box<Handover>>,
    /// How the cluster changes.
    fleet: Option<Box<Fleet>>,
    /// Engines that step together.
    dp_groups: Option<Box<DpGroups>>,
    engines: Vec<Engine>,
    /// Settings by pool, for the checks on arrival.
    pools: Vec<EngineSettings>,
    /// When the next request reaches an engine, as things stand.
    next_arrival: Option<SimTime>,
    /// Engines that schedule once everything else of this nanosecond has happened, in order.
    due: Vec<u32>,
    /// Scratch: what an engine decides.
    plan: StepPlan,
    /// Scratch: requests that got their last token in the step ending now.
    ended: Vec<Ended>,
    options: Options,
    /// Whether engines take steps together that nothing interrupts.
    coasts: bool,
    records: Records,
    /// Of a streamed run.
    stream: Option<Box<Stream>>,
    /// The engines, where they run on several threads: `engines` is empty then.
    parts: Option<Box<Parts>>,
    /// Nothing happens from then on in the next slices.
    until: SimTime,
    steps: u64,
}

impl Simulation {
    /// Build a cluster at time 0.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for settings out of range or a cluster without engines.
    pub fn new(
        pools: &[Pool],
        policy: &RoutingPolicy,
        workload: Workload,
        options: Options,
        fleet: Option<FleetSettings>,
    ) -> Result<Self, SimError> {
        let mut engines = Vec::new();
        let mut index = 0;
        for pool in pools {
            pool.settings.validate()?;
            let size = pool.settings.pipeline_parallel_size as usize;
            if pool.stages.len() != size || pool.hops.len() + 1 != size {
                return Err(SimError::InvalidSetting {
                    field: "pipeline_parallel_size",
                    value: size.to_string(),
                    remedy: "give a cost model for each stage and a link between each two",
                });
            }
            let common = Common::new(pool, workload.shared());
            for _ in 0..pool.count {
                engines.push(Engine::new(index, pool, &common, options.record_decisions));
                index += 1;
            }
        }
        if engines.is_empty() {
            return Err(SimError::InvalidSetting {
                field: "pools",
                value: "no engine".to_owned(),
                remedy: "a cluster needs at least one engine",
            });
        }
        let handover = Handover::new(pools, policy, &workload, options)?.map(Box::new);
        let first = |role| role == Role::Prefill || role == Role::Aggregated;
        let mut requests = RequestColumns::new(workload.len());
        if handover.is_some() {
            requests.handover = Some(HandoverColumns::new(workload.len()));
            if options.transfer.is_some_and(|transfer| transfer.layers > 0) {
                engines.iter_mut().for_each(Engine::hand_over_early);
            }
        }
        if fleet.is_some() {
            requests.retries = Some(Rows::filled(0, workload.len()));
        }
        let stream = match options.stream {
            Some(settings) => {
                stream::check(&workload, &options, fleet.is_some() || handover.is_some())?;
                requests.hold_spans();
                Some(Box::new(Stream::new(settings, engines.len(), workload.len())))
            }
            None => None,
        };
        let divides = options.threads > 1
            && handover.is_none()
            && fleet.is_none()
            && parts::are_independent(pools, policy, &workload, &options);
        let decodes = |engine| handover.as_ref().is_some_and(|own| own.decodes(engine));
        let fleet =
            fleet.map(|fleet| Box::new(Fleet::new(fleet, engines.len(), workload.len(), decodes)));
        let mut simulation = Self {
            coasts: fleet.is_none()
                && handover.is_none()
                && !(options.record_steps || options.record_decisions || options.step_by_step),
            fleet,
            dp_groups: DpGroups::new(pools)?.map(Box::new),
            now: SimTime::ZERO,
            queue: EventQueue::new(engines.len()),
            router: Router::new(policy, members(pools, first), &workload, options.seed, 0),
            handover,
            records: Records {
                requests,
                steps: options.record_steps.then(StepColumns::default),
                decisions: options.record_decisions.then(Decisions::default),
            },
            source: Source::new(workload, options.stream.is_some()),
            stream,
            parts: None,
            until: SimTime::FAR,
            engines,
            pools: pools.iter().map(|pool| pool.settings).collect(),
            next_arrival: None,
            due: Vec::new(),
            plan: StepPlan::default(),
            ended: Vec::new(),
            options,
            steps: 0,
        };
        simulation.plan_fleet()?;
        simulation.look_ahead()?;
        if divides {
            let parts = Parts::new(pools, &mut simulation, options.threads)?;
            simulation.engines = Vec::new();
            simulation.parts = Some(Box::new(parts));
        }
        Ok(simulation)
    }

    /// Process at most `max_events` events (step ends, arrivals, schedules).
    ///
    /// # Errors
    /// What cost models raise, and [`SimError::Stalled`], which is a bug.
    pub fn run_slice(&mut self, max_events: u64) -> Result<Progress, SimError> {
        if self.parts.is_some() {
            return self.run_parts(max_events);
        }
        let mut done = false;
        for _ in 0..max_events {
            if !self.advance()? {
                done = true;
                break;
            }
        }
        let needs_requests = done && self.must_wait();
        done &= !needs_requests;
        if done && self.source.unanswered() > 0 {
            return Err(SimError::Stalled { unanswered: self.source.unanswered() });
        }
        self.settle()?;
        self.settle_stream(done);
        Ok(Progress { done, needs_requests, ..self.progress() })
    }

    /// Have everything on record that was dispatched before now.
    fn settle(&mut self) -> Result<(), SimError> {
        for index in 0..self.engines.len() {
            if self.engines[index].wake().is_some() {
                // Engines are numbered by u32.
                self.land(u32::try_from(index).unwrap_or(u32::MAX))?;
            }
        }
        Ok(())
    }

    /// Where the simulation stands.
    pub fn progress(&self) -> Progress {
        let arrived = self.source.sent();
        Progress {
            done: false,
            needs_requests: false,
            now: self.now,
            arrived,
            answered: arrived - self.source.unanswered(),
            steps: self.steps,
        }
    }

    /// Process the next event; false if there is none.
    #[inline]
    fn advance(&mut self) -> Result<bool, SimError> {
        if self.must_wait() {
            return Ok(false);
        }
        let event = self.queue.peek();
        // Everything of this nanosecond comes before the schedules that are due in it.
        if let Some(&engine) = self.due.first()
            && !self.happens_now(event)
        {
            self.due.remove(0);
            self.schedule(engine)?;
            return Ok(true);
        }
        match (event, self.next_arrival) {
            (None, None) => return Ok(false),
            (Some(event), None) => self.handle(event)?,
            (None, Some(time)) => self.arrive(time)?,
            (Some(event), Some(time)) => {
                if (event.time, event.rank) < (time, Rank::Arrival) {
                    self.handle(event)?;
                } else {
                    self.arrive(time)?;
                }
            }
        }
        Ok(true)
    }

    /// Whether a step ends or a request arrives in this nanosecond; `event` is the queue's first.
    #[inline]
    fn happens_now(&self, event: Option<Event>) -> bool {
        event.is_some_and(|event| event.time <= self.now)
            || self.next_arrival.is_some_and(|time| time <= self.now)
    }

    /// Process an event of the queue, which is its first.
    #[inline]
    fn handle(&mut self, event: Event) -> Result<(), SimError> {
        self.queue.pop(event);
        self.now = event.time;
        match event.rank {
            Rank::StepEnd if !self.end_step(event.index)? => return Ok(()),
            Rank::StepEnd | Rank::Arrival | Rank::Schedule => {}
            Rank::Transfer => return self.transfer(event.index),
            Rank::Fleet => return self.change_fleet(event.index),
            Rank::Timeout => return self.time_out(event.index),
        }
        if self.due.is_empty() && !self.happens_now(self.queue.peek()) {
            return self.schedule(event.index);
        }
        self.mark_due(event.index);
        Ok(())
    }

    /// The step of an engine ends that was to end next; false if there is none, because the engine
    /// died.
    #[inline]
    fn end_step(&mut self, index: u32) -> Result<bool, SimError> {
        let engine = &mut self.engines[index as usize];
        let latency = self.options.response_latency;
        if engine.wake().is_some() {
            let (plan, records) = (&mut self.plan, &mut self.records);
            self.steps += engine.land(self.now, latency, plan, records)?;
        }
        let ends = engine.next_end() == Some(self.now);
        if ends {
            let delivered = self.now.after(latency)?;
            engine.complete(delivered, &mut self.records, &mut self.ended);
        }
        self.queue.set_step_end(index, engine.next_end());
        if ends && self.dp_groups.is_some() {
            self.group_step_ends(index);
        }
        if !self.ended.is_empty() {
            self.leave(index, self.now.after(latency)?)?;
        }
        Ok(ends)
    }

    /// The requests in `ended` leave an engine: answered, or for a decode engine.
    fn leave(&mut self, engine: u32, delivered: SimTime) -> Result<(), SimError> {
        let ended = std::mem::take(&mut self.ended);
        let router = router_of(&mut self.router, &mut self.handover, engine);
        for end in &ended {
            router.answered(engine, end.span.request, self.source.workload());
        }
        for end in &ended {
            match end.held_by {
                None => self.source.answered(end.span.request, delivered),
                Some(slot) => self.prompt_is_done(engine, end.span.request, slot)?,
            }
        }
        self.ended = ended;
        self.ended.clear();
        self.look_ahead()
    }

    /// Find out when the next request reaches an engine, as things stand.
    fn look_ahead(&mut self) -> Result<(), SimError> {
        self.next_arrival = match self.source.next_time() {
            Some(sent) => Some(sent.after(self.options.request_latency)?),
            None => None,
        };
        Ok(())
    }

    /// The next request reaches the front end's far side at `time`.
    fn arrive(&mut self, time: SimTime) -> Result<(), SimError> {
        self.now = time;
        let sent = self.source.next_time().unwrap_or(time);
        let Some(request) = self.source.send() else { return Ok(()) };
        self.records.requests.arrived(request, sent);
        let (prompt, output) = self.source.workload().lengths(request);
        if self.effective_output(prompt, output).is_none() {
            self.reject(request)?;
        } else {
            if let Some(fleet) = &mut self.fleet {
                fleet.arrived(request, self.source.sent() as u64);
                if let Some(timeout) = fleet.settings.timeout {
                    let time = time.after(timeout)?;
                    self.queue.push(Event { time, rank: Rank::Timeout, index: request });
                }
            }
            self.send_to_engine(request, 0)?;
        }
        self.look_ahead()
    }

    fn reject(&mut self, request: u32) -> Result<(), SimError> {
        let refused = self.now.after(self.options.response_latency)?;
        self.records.requests.rejected(request, refused);
        self.source.answered(request, refused);
        self.look_ahead()
    }

    /// Tokens that a request generates; None if some engine could not take it (2.3, 12.2).
    fn effective_output(&self, prompt: u32, output: u32) -> Option<u32> {
        let mut effective = output;
        for pool in &self.pools {
            // A request that is lost with its decode engine begins anew in a prefill engine.
            if pool.role == Role::Prefill && self.fleet.is_none() {
                pool.effective_output(prompt, output.min(1))?;
            } else {
                let own = pool.effective_output(prompt, output)?;
                if pool.role == Role::Decode || self.fleet.is_some() {
                    effective = effective.min(own);
                }
            }
        }
        Some(effective)
    }

    /// Route a request, which has `generated` tokens if it was lost with another engine.
    fn send_to_engine(&mut self, request: u32, generated: u32) -> Result<(), SimError> {
        if self.fleet.is_some() && !self.router.any_up() {
            return self.hold(request, generated);
        }
        let index = self.router.route(self.now, request, self.source.workload())?;
        if let Some(fleet) = &self.fleet
            && let Some(most) = fleet.settings.max_queue
            && self.is_new(request)
            && self.engines[index as usize].waiting() >= most as usize
        {
            self.router.answered(index, request, self.source.workload());
            return self.reject(request);
        }
        self.records.requests.routed(request, index);
        let workload = self.source.workload();
        let (prompt, output) = workload.lengths(request);
        let output = if self.handover.is_some() || self.fleet.is_some() {
            self.effective_output(prompt, output).unwrap_or(output)
        } else {
            output
        };
        let engine = &mut self.engines[index as usize];
        let hands_over = self.handover.is_some() && output > generated + 1;
        // Distinct, as a server's clock readings are: with ties, requests could take turns in
        // preempting each other for ever.
        let arrival =
            self.fleet.as_ref().map_or(self.source.sent() as u64, |fleet| fleet.order(request));
        let new = NewRequest {
            request,
            prompt,
            output: if self.handover.is_some() {
                generated + 1
            } else if self.fleet.is_some() {
                output
            } else {
                engine.settings().effective_output(prompt, output).unwrap_or(output)
            },
            priority: workload.priority(request),
            arrival,
            generated,
            remote: false,
            hands_over,
        };
        if let Some(handover) = &mut self.handover {
            handover.note_sent(&mut self.records.requests, &new, output, index);
        }
        if engine.wake().is_some() {
            self.land(index)?;
        }
        let engine = &mut self.engines[index as usize];
        let slot = engine.enqueue(&new, self.now, &mut self.records);
        if let Some(stream) = &mut self.stream {
            stream.joined(request, engine.step_ends().count());
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.remember(request, slot);
        }
        if let Some(handover) = &mut self.handover {
            handover.note_slot(request, slot);
        }
        if !self.is_busy(index) {
            self.mark_due(index);
        }
        Ok(())
    }

    /// Whether a request has not been lost before.
    fn is_new(&self, request: u32) -> bool {
        let retries = self.records.requests.retries.as_ref();
        retries.is_none_or(|retries| retries[request] == 0)
    }

    /// Have an engine schedule at the end of this nanosecond.
    fn mark_due(&mut self, engine: u32) {
        let engine = self.leader(engine);
        if let Err(place) = self.due.binary_search(&engine) {
            self.due.insert(place, engine);
        }
    }

    fn schedule(&mut self, index: u32) -> Result<(), SimError> {
        if self.dp_groups.is_some() && self.schedule_group(index)? {
            return Ok(());
        }
        // Of several engines the router may choose another.
        let arrival = if self.engines.len() == 1 { self.next_arrival } else { None };
        let engine = &mut self.engines[index as usize];
        let mut next = engine.next_end();
        loop {
            if self.coasts
                && let Some(wake) = engine.coast(self.now, arrival)?
            {
                next = Some(wake);
                break;
            }
            if !engine.can_dispatch() {
                break;
            }
            match engine.schedule(self.now, &mut self.plan, &mut self.records)? {
                Outcome::Step(end) => {
                    self.steps += 1;
                    next = next.or(Some(end));
                }
                Outcome::Again => {}
                Outcome::WaitUntil(time) => {
                    self.queue.push(Event { time, rank: Rank::Schedule, index });
                    break;
                }
                Outcome::Idle => break,
            }
        }
        self.queue.set_step_end(index, next);
        if self.handover.is_some() {
            self.follow_schedule(index)?;
        }
        Ok(())
    }

    /// An engine stops coasting: the steps happen that were dispatched before now, and those in
    /// flight end one by one.
    fn land(&mut self, index: u32) -> Result<(), SimError> {
        let engine = &mut self.engines[index as usize];
        let latency = self.options.response_latency;
        self.steps += engine.land(self.now, latency, &mut self.plan, &mut self.records)?;
        self.queue.set_step_end(index, engine.next_end());
        Ok(())
    }

    /// The engines, in order, on whatever thread they run.
    fn all_engines(&self) -> Vec<&Engine> {
        self.parts.as_ref().map_or_else(|| self.engines.iter().collect(), |parts| parts.engines())
    }

    /// The request columns so far, after [`Simulation::collect`].
    pub const fn requests(&self) -> &RequestColumns {
        &self.records.requests
    }

    /// Prompt tokens by request.
    pub fn prompt_tokens(&self) -> &[u32] {
        self.source.workload().prompts()
    }

    /// Tokens that requests asked for.
    pub fn requested_tokens(&self) -> &[u32] {
        self.source.workload().outputs()
    }

    /// The step columns so far, if they are recorded.
    pub const fn steps(&self) -> Option<&StepColumns> {
        self.records.steps.as_ref()
    }

    /// Every decision so far, if they are recorded.
    pub const fn decisions(&self) -> Option<&Decisions> {
        self.records.decisions.as_ref()
    }

    /// Nanoseconds between the end of a step and the client.
    pub const fn response_latency_ns(&self) -> i64 {
        self.options.response_latency.as_nanos().cast_signed()
    }

    /// End times of the steps of each engine.
    pub fn step_ends(&self) -> Vec<&StepEnds> {
        self.all_engines().into_iter().map(Engine::step_ends).collect()
    }

    /// Totals by engine.
    pub fn engine_stats(&self) -> Vec<EngineStats> {
        self.all_engines().into_iter().map(Engine::stats).collect()
    }

    /// One hash over every step of every engine.
    pub fn trace_hash(&self) -> u64 {
        let mut hash = TraceHash::default();
        for (engine, own) in (0..).zip(self.all_engines()) {
            hash.add(engine, own.hash());
        }
        hash.get()
    }
}

/// The engines whose pool has a role that `wanted` selects.
fn members(pools: &[Pool], wanted: impl Fn(Role) -> bool) -> Vec<u32> {
    let roles = pools.iter().flat_map(|pool| (0..pool.count).map(|_| pool.settings.role));
    (0_u32..).zip(roles).filter(|&(_, role)| wanted(role)).map(|(index, _)| index).collect()
}
