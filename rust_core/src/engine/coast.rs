//! Decode steps that nothing interrupts are taken together.
//!
//! The next steps are often known: every running request decodes, none of them ends before the last
//! of these steps, blocks suffice and nobody waits. Then the engine asks to be woken when the first
//! step is due that needs its scheduler. If a request arrives before, the steps happen that would
//! have been dispatched by then, and the others are forgotten. What is recorded is what stepping
//! records, bit for bit.
//!
//! Where a sum tells when the last of them ends, as it does for costs in whole nanoseconds, nothing
//! else is worked out before they happen: an arrival then makes nothing a waste. Other costs are
//! worked out step by step beforehand.

use super::{Engine, Records};
use crate::cost::{CostModel, FixedCost, StepShape};
use crate::error::SimError;
use crate::recorder::{TraceHash, next_step};
use crate::scheduler::{Flight, StepPlan};
use crate::step_ends::StepEnds;
use crate::time::{SimDuration, SimTime};

/// Most steps that are looked ahead: where each is priced, an arrival makes the rest a waste.
const FARTHEST: u32 = 64;

/// The steps ahead of an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Coast {
    wake: Option<SimTime>,
    /// The step before them.
    latest: Latest,
    /// The number of the first of them.
    first: u32,
    /// How many there are.
    steps: u32,
    /// How many of them are dispatched whatever happens next: the first one, or none.
    dispatched: u32,
    ends: Ends,
    /// Whether the last of them ends some request.
    ends_some: bool,
    seqs: u64,
    /// Keys that the first of them reads.
    context: u64,
}

/// What is known of when the steps ahead end.
#[derive(Clone, Copy, Debug, Default)]
enum Ends {
    /// They are the last of the engine's step ends.
    #[default]
    Priced,
    /// The first takes `shortest` nanoseconds and each other one `growth` more than the one before;
    /// none waits longer for the one before it than all others do.
    Summed { shortest: u64, growth: u64 },
}

/// The latest steps of an engine while it coasts, of which at most two are in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    /// When the next step is scheduled: when the step ends that frees its place.
    scheduled: SimTime,
    /// When the latest step ends.
    end: SimTime,
    /// Whether a step is scheduled while the one before it runs.
    overlaps: bool,
}

impl Latest {
    /// When the next step starts; behind the end of the clock where that overflows.
    #[inline]
    fn next_start(&self, overhead: SimDuration) -> SimTime {
        let ready = self.scheduled.as_nanos().saturating_add(overhead.as_nanos());
        SimTime::from_nanos(ready.max(self.end.as_nanos()))
    }

    /// The next step ends at `end`.
    #[inline]
    fn push(&mut self, end: SimTime) {
        self.scheduled = if self.overlaps { self.end } else { end };
        self.end = end;
    }
}

/// Steps that happen are added up.
struct Tally {
    latest: Latest,
    hash: TraceHash,
    seqs: u64,
    /// Keys that the next step reads.
    context: u64,
    steps: u32,
}

impl Tally {
    /// Whether the next step happens, since it is dispatched before `now`.
    #[inline]
    fn goes_on(&self, coast: &Coast, now: SimTime) -> bool {
        self.steps < coast.steps && (self.latest.scheduled < now || self.steps < coast.dispatched)
    }

    /// The next step happens, and ends at `end`.
    #[inline]
    fn add(&mut self, end: SimTime) {
        self.hash.add(end.as_nanos(), self.seqs << 32 ^ self.context);
        self.context += self.seqs;
        self.latest.push(end);
        self.steps += 1;
    }
}

impl Coast {
    /// When the engine schedules after the steps ahead, without a look at each of them; None where
    /// a sum does not tell, since some step waits for its own scheduling.
    #[inline]
    fn wake_by_sum(&mut self, model: &FixedCost, overhead: SimDuration) -> Option<SimTime> {
        let Self { latest, steps, seqs, context, .. } = *self;
        let apart = if latest.overlaps { 0 } else { overhead.as_nanos() };
        let shortest = model.decode_durations(seqs)(context).as_nanos();
        if shortest == 0 || (latest.overlaps && shortest < overhead.as_nanos()) {
            return None;
        }
        let (growth, sum) = model.decodes_ns(seqs, shortest, steps)?;
        let between = u64::from(steps - 1);
        let start = latest.next_start(overhead);
        let nanos = SimDuration::from_nanos(sum.checked_add(apart.checked_mul(between)?)?);
        let end = start.after(nanos).ok()?;
        self.ends = Ends::Summed { shortest, growth };
        if !latest.overlaps {
            return Some(end);
        }
        // It schedules when the step before the last one ends.
        if between == 0 {
            return Some(latest.end);
        }
        Some(SimTime::from_nanos(end.as_nanos() - shortest - growth * between))
    }

    /// Work out when the steps ahead end.
    #[inline]
    fn look_ahead(
        &mut self,
        arrival: Option<SimTime>,
        overhead: SimDuration,
        ends: &mut StepEnds,
        mut price: impl FnMut(u64) -> Result<SimDuration, SimError>,
    ) -> Result<(), SimError> {
        let arrival = arrival.map_or(u64::MAX, SimTime::as_nanos);
        let Self { mut latest, steps: most, seqs, mut context, .. } = *self;
        ends.reserve(most);
        let mut steps = 0;
        while steps < most && latest.scheduled.as_nanos() < arrival {
            let duration = price(context)?.at_least_one();
            let end = latest.next_start(overhead).after(duration)?;
            ends.push(end.as_nanos());
            latest.push(end);
            context += seqs;
            steps += 1;
        }
        self.wake = (steps > 0).then_some(latest.scheduled);
        self.ends_some &= steps == most;
        self.steps = steps;
        Ok(())
    }
}

impl Engine {
    /// When the engine wants to be woken, while it coasts.
    #[inline]
    pub(crate) const fn wake(&self) -> Option<SimTime> {
        self.coast.wake
    }

    /// Look ahead from here on; the moment to wake the engine, if it coasts.
    ///
    /// A request will arrive at `arrival`, if that is known: no step is worth a look from then on.
    pub(crate) fn coast(
        &mut self,
        now: SimTime,
        arrival: Option<SimTime>,
    ) -> Result<Option<SimTime>, SimError> {
        if !self.cost.is_repeatable() || self.in_flight.iter().any(Flight::ends_some) {
            return Ok(None);
        }
        let Some((latest, dispatched)) = self.latest(now) else { return Ok(None) };
        let Some(steady) = self.scheduler.steady(FARTHEST) else { return Ok(None) };
        let first = next_step(self.step_ends.count())?;
        // Steps are numbered by u32, and the number after a step's own must exist too.
        let steps = steady.steps.min(u32::MAX - 2 - first);
        self.coast = Coast {
            wake: None,
            latest,
            first,
            steps,
            dispatched,
            ends: Ends::Priced,
            ends_some: steady.ends_some && steps == steady.steps,
            seqs: steady.seqs,
            context: steady.context,
        };
        let overhead = self.scheduler.settings().step_overhead;
        let (coast, ends) = (&mut self.coast, &mut self.step_ends);
        let price = |context| self.cost.step_duration(&decode(steady.seqs, context));
        // One loop for each kind of model, rather than a choice in each step.
        match &*self.cost {
            CostModel::Fixed(model) => {
                coast.wake = coast.wake_by_sum(model, overhead);
                if coast.wake.is_none() {
                    let price = model.decode_durations(steady.seqs);
                    coast.look_ahead(arrival, overhead, ends, |context| Ok(price(context)))?;
                }
            }
            CostModel::Table(model) => match model.decodes(steady.seqs) {
                Some(mut seconds) => coast.look_ahead(arrival, overhead, ends, |context| {
                    SimDuration::from_secs_f64(seconds(context))
                })?,
                None => coast.look_ahead(arrival, overhead, ends, price)?,
            },
            _ => coast.look_ahead(arrival, overhead, ends, price)?,
        }
        Ok(coast.wake)
    }

    /// The latest steps, and how many of the next ones are dispatched at once; None where that is
    /// not known, since nothing is in flight.
    #[inline]
    fn latest(&self, now: SimTime) -> Option<(Latest, u32)> {
        let overlaps = self.depth > 1;
        let full = self.in_flight.len() == self.depth as usize;
        if !full && overlaps && self.in_flight.is_empty() {
            // Two steps would be dispatched at once.
            return None;
        }
        let scheduled = if full { self.next_end()? } else { now };
        let latest = Latest { scheduled, end: self.device_free, overlaps };
        Some((latest, u32::from(!full)))
    }

    /// Stop coasting: what was dispatched before `now` happens. Returns the number of steps.
    ///
    /// Steps that end in this very nanosecond stay in flight, to be completed as any other.
    pub(crate) fn land(
        &mut self,
        now: SimTime,
        response_latency: SimDuration,
        plan: &mut StepPlan,
        records: &mut Records,
    ) -> Result<u64, SimError> {
        let Coast { first, steps: ahead, ends_some, .. } = self.coast;
        self.coast.wake = None;
        let (steps, latest) = self.record_dispatched(now);
        self.step_ends.keep(first as usize + steps as usize, latest.end.as_nanos());
        if steps == 0 {
            return Ok(0);
        }
        let ends_some = ends_some && steps == ahead;
        self.scheduler.coast(steps - u32::from(ends_some));
        if ends_some {
            self.scheduler.coast_to_end(first + steps - 1, plan);
        }
        while self.next_end().is_some_and(|end| end < now) {
            let delivered = self.next_end().unwrap_or(now).after(response_latency)?;
            let mut ended = Vec::new();
            self.complete(delivered, records, &mut ended);
            debug_assert!(ended.is_empty(), "coasting engines have no request that ends");
        }
        // All have ended but the latest one, or two.
        let before_last = latest.overlaps && steps > 1 && latest.scheduled >= now;
        let flying = u32::from(latest.end >= now) + u32::from(before_last);
        if flying < steps {
            self.scheduler.completed(first + steps - flying - 1);
        }
        if before_last {
            self.fly(Flight::uneventful(latest.scheduled, first + steps - 2, false));
        }
        if ends_some {
            self.fly(plan.dispatched(latest.end, false));
        } else if latest.end >= now {
            self.fly(Flight::uneventful(latest.end, first + steps - 1, false));
        }
        debug_assert!(!ends_some || flying > 0, "what ends some request ends now or later");
        Ok(u64::from(steps))
    }

    fn fly(&mut self, mut flight: Flight) {
        flight.overlaps = !self.in_flight.is_empty();
        self.in_flight.push_back(flight);
    }

    /// Record the steps ahead that were dispatched before `now`: their number, and the latest ones.
    fn record_dispatched(&mut self, now: SimTime) -> (u32, Latest) {
        let coast = &self.coast;
        let Coast { latest, first, seqs, context, .. } = *coast;
        let overhead = self.scheduler.settings().step_overhead;
        let start = latest.next_start(overhead);
        let mut tally = Tally { latest, hash: self.hash, seqs, context, steps: 0 };
        let mut busy_ns = 0;
        match coast.ends {
            Ends::Summed { shortest, growth } => {
                self.step_ends.reserve(coast.steps);
                let apart = if latest.overlaps { 0 } else { overhead.as_nanos() };
                let (mut end, mut gap) = (start.as_nanos(), shortest);
                while tally.goes_on(coast, now) {
                    end += gap;
                    self.step_ends.push(end);
                    tally.add(SimTime::from_nanos(end));
                    gap = if tally.steps == 1 { gap + apart } else { gap } + growth;
                }
                let waits = apart * u64::from(tally.steps.saturating_sub(1));
                busy_ns = end - start.as_nanos() - waits;
            }
            Ends::Priced => {
                for end in self.step_ends.ends_after(first as usize, latest.end.as_nanos()) {
                    if !tally.goes_on(coast, now) {
                        break;
                    }
                    busy_ns += end - tally.latest.next_start(overhead).as_nanos();
                    tally.add(SimTime::from_nanos(end));
                }
            }
        }
        self.hash = tally.hash;
        self.counts.busy_ns += busy_ns;
        self.device_free = tally.latest.end;
        let experts = self.cost.experts(&decode(seqs, context));
        self.totals.add_decodes(tally.steps, seqs, context, experts);
        (tally.steps, tally.latest)
    }
}

/// A step of one token for each of `seqs` requests.
#[inline]
fn decode(seqs: u64, context: u64) -> StepShape {
    StepShape {
        decode_seqs: seqs,
        decode_context_tokens: context,
        sampled_seqs: seqs,
        ..StepShape::default()
    }
}
