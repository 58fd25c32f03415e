//! Decode steps that nothing interrupts are taken together.
//!
//! After a dispatch the next steps are often known: every running request decodes, none of them
//! ends before the last of these steps, blocks suffice and nobody waits. Their ends are worked out
//! at once, and the engine asks to be woken when the first step is due that needs its scheduler. If
//! a request arrives before, the steps happen that would have been dispatched by then, and the
//! others are forgotten. What is recorded is what stepping records, bit for bit.
//!
//! Where a sum tells when the last of them ends, as it does for costs in whole nanoseconds, nothing
//! else is worked out before they happen: an arrival then makes nothing a waste.

use std::sync::Arc;

use super::{Engine, Records};
use crate::cost::{CostModel, FixedCost, StepShape};
use crate::error::SimError;
use crate::recorder::{TraceHash, next_step};
use crate::scheduler::{Flight, StepPlan};
use crate::time::{SimDuration, SimTime};

/// Most steps that are looked ahead: where each is priced, an arrival makes the rest a waste.
const FARTHEST: u32 = 64;

/// The steps ahead of an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Coast {
    wake: Option<SimTime>,
    /// The number of the first of them.
    first: u32,
    /// How many there are.
    steps: u32,
    /// Whether their ends are worked out: they are the last of the engine's step ends then.
    priced: bool,
    /// Whether the last of them ends some request.
    ends_some: bool,
    seqs: u64,
    /// Keys that the first of them reads.
    context: u64,
}

/// The latest steps of an engine while it coasts, of which at most two are in flight.
#[derive(Clone, Copy, Debug)]
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
    overhead: SimDuration,
    hash: TraceHash,
    busy_ns: u64,
    seqs: u64,
    /// Keys that the next step reads.
    context: u64,
    steps: u32,
}

impl Tally {
    /// The next step happens, and ends at `end`.
    #[inline]
    fn add(&mut self, end: SimTime) {
        self.busy_ns += end.as_nanos() - self.latest.next_start(self.overhead).as_nanos();
        self.hash.add(end.as_nanos());
        self.hash.add(self.seqs << 32 ^ self.context);
        self.context += self.seqs;
        self.latest.push(end);
        self.steps += 1;
    }
}

impl Engine {
    /// When the engine wants to be woken, while it coasts.
    #[inline]
    pub(crate) const fn wake(&self) -> Option<SimTime> {
        self.coast.wake
    }

    /// Look ahead after a dispatch; the moment to wake the engine, if it coasts from here.
    ///
    /// A request will arrive at `arrival`, if that is known: no step is worth a look from then on.
    pub(crate) fn coast(&mut self, arrival: Option<SimTime>) -> Result<Option<SimTime>, SimError> {
        if self.in_flight.len() < self.depth as usize
            || !self.cost.is_repeatable()
            || self.in_flight.iter().any(Flight::ends_some)
        {
            return Ok(None);
        }
        let Some(steady) = self.scheduler.steady(FARTHEST) else { return Ok(None) };
        let Some(latest) = self.latest() else { return Ok(None) };
        let first = next_step(self.step_ends.count())?;
        // Steps are numbered by u32, and the number after a step's own must exist too.
        let steps = steady.steps.min(u32::MAX - 2 - first);
        self.coast = Coast {
            wake: None,
            first,
            steps,
            priced: false,
            ends_some: steady.ends_some && steps == steady.steps,
            seqs: steady.seqs,
            context: steady.context,
        };
        // One loop for each kind of model, rather than a choice in each step.
        let cost = Arc::clone(&self.cost);
        match &*cost {
            CostModel::Fixed(model) => {
                self.coast.wake = self.wake_by_sum(model, latest);
                if self.coast.wake.is_none() {
                    let price = model.decode_durations(steady.seqs);
                    self.look_ahead(latest, arrival, |context| Ok(price(context)))?;
                }
            }
            model => self.look_ahead(latest, arrival, |context| {
                model.step_duration(&decode(steady.seqs, context))
            })?,
        }
        Ok(self.coast.wake)
    }

    /// When the engine schedules after the steps ahead, without a look at each of them; None where
    /// a sum does not tell, since some step waits for its own scheduling.
    #[inline]
    fn wake_by_sum(&self, model: &FixedCost, latest: Latest) -> Option<SimTime> {
        let Coast { steps, seqs, context, .. } = self.coast;
        let overhead = self.scheduler.settings().step_overhead.as_nanos();
        let (summed, apart) = if latest.overlaps { (steps - 1, 0) } else { (steps, overhead) };
        let Some(between) = summed.checked_sub(1) else { return Some(latest.end) };
        // The first is the shortest.
        let shortest = model.decode_durations(seqs)(context);
        if shortest.as_nanos() == 0 || (latest.overlaps && shortest.as_nanos() < overhead) {
            return None;
        }
        let running = model.decodes_ns(seqs, shortest, summed)?;
        let nanos = running.checked_add(apart.checked_mul(u64::from(between))?)?;
        let start = latest.next_start(self.scheduler.settings().step_overhead);
        start.after(SimDuration::from_nanos(nanos)).ok()
    }

    /// Work out when the steps ahead end.
    #[inline]
    fn look_ahead(
        &mut self,
        mut latest: Latest,
        arrival: Option<SimTime>,
        price: impl Fn(u64) -> Result<SimDuration, SimError>,
    ) -> Result<(), SimError> {
        let arrival = arrival.map_or(u64::MAX, SimTime::as_nanos);
        let overhead = self.scheduler.settings().step_overhead;
        let Coast { steps: most, seqs, mut context, .. } = self.coast;
        self.step_ends.reserve(most);
        let mut steps = 0;
        while steps < most && latest.scheduled.as_nanos() < arrival {
            let duration = price(context)?.at_least_one();
            let end = latest.next_start(overhead).after(duration)?;
            self.step_ends.push(end.as_nanos());
            latest.push(end);
            context += seqs;
            steps += 1;
        }
        let coast = &mut self.coast;
        coast.wake = (steps > 0).then_some(latest.scheduled);
        coast.priced = true;
        coast.ends_some &= steps == most;
        coast.steps = steps;
        Ok(())
    }

    /// The latest of the steps in flight; None where there is none.
    fn latest(&self) -> Option<Latest> {
        let (oldest, latest) = (self.in_flight.front()?, self.in_flight.back()?);
        let overlaps = self.depth > 1;
        Some(Latest { scheduled: oldest.end, end: latest.end, overlaps })
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
        let Some((steps, latest)) = self.record_dispatched(now)? else { return Ok(0) };
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
    fn record_dispatched(&mut self, now: SimTime) -> Result<Option<(u32, Latest)>, SimError> {
        let Some(latest) = self.latest() else { return Ok(None) };
        let Coast { first, steps: ahead, priced, seqs, context, .. } = self.coast;
        let overhead = self.scheduler.settings().step_overhead;
        let (hash, busy_ns, steps) = (self.hash, 0, 0);
        let mut tally = Tally { latest, overhead, hash, busy_ns, seqs, context, steps };
        match &*self.cost {
            CostModel::Fixed(model) if !priced => {
                let price = model.decode_durations(seqs);
                self.step_ends.reserve(ahead);
                while tally.steps < ahead && tally.latest.scheduled < now {
                    let duration = price(tally.context).at_least_one();
                    let end = tally.latest.next_start(overhead).after(duration)?;
                    self.step_ends.push(end.as_nanos());
                    tally.add(end);
                }
            }
            _ => {
                for end in self.step_ends.ends_after(first as usize, latest.end.as_nanos()) {
                    if tally.latest.scheduled >= now {
                        break;
                    }
                    tally.add(SimTime::from_nanos(end));
                }
            }
        }
        self.hash = tally.hash;
        self.counts.busy_ns += tally.busy_ns;
        self.device_free = tally.latest.end;
        let experts = self.cost.experts(&decode(seqs, context));
        self.totals.add_decodes(tally.steps, seqs, context, experts);
        Ok(Some((tally.steps, tally.latest)))
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
