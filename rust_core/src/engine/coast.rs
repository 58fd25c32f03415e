//! Decode steps that nothing interrupts are taken together.
//!
//! After a dispatch the next steps are often known: every running request decodes, none of them
//! ends, blocks suffice and nobody waits. Their times are worked out at once, and the engine asks
//! to be woken when the first step is due that needs its scheduler. If a request arrives before,
//! the steps happen that would have been dispatched by then, and the others are forgotten. What is
//! recorded is what stepping records, bit for bit.

use super::{Engine, Records};
use crate::cost::StepShape;
use crate::error::SimError;
use crate::recorder::next_step;
use crate::time::{SimDuration, SimTime};

/// Most steps that are looked ahead: an arrival makes the rest of them a waste.
const FARTHEST: u32 = 64;

/// A step that will be dispatched if nothing happens.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    scheduled: SimTime,
    duration: SimDuration,
    end: SimTime,
}

/// The steps ahead of an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Coast {
    ahead: Vec<Ahead>,
    wake: Option<SimTime>,
    seqs: u64,
    /// Keys that the first of them reads.
    context: u64,
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
        if self.in_flight.len() < self.depth
            || !self.cost.is_repeatable()
            || self.in_flight.iter().any(|plan| plan.ends_some())
        {
            return Ok(None);
        }
        let Some(steady) = self.scheduler.steady(FARTHEST) else { return Ok(None) };
        self.coast.seqs = steady.seqs;
        self.coast.context = steady.context;
        self.coast.ahead.clear();
        let mut device_free = self.device_free;
        let mut context = steady.context;
        for number in 0..steady.steps as usize {
            let scheduled = self.due(number);
            if arrival.is_some_and(|arrival| scheduled >= arrival) {
                break;
            }
            let duration = self.cost.step_duration(&decode(steady.seqs, context))?;
            let start = scheduled.after(self.overhead)?.max(device_free);
            let end = start.after(duration)?;
            self.coast.ahead.push(Ahead { scheduled, duration, end });
            device_free = end;
            context += steady.seqs;
        }
        let steps = self.coast.ahead.len();
        self.coast.wake = (steps > 0).then(|| self.due(steps));
        Ok(self.coast.wake)
    }

    /// When the step `number` ahead is scheduled: when the one ends that frees its place.
    fn due(&self, number: usize) -> SimTime {
        match self.in_flight.get(number) {
            Some(plan) => plan.end,
            None => self.coast.ahead[number - self.depth].end,
        }
    }

    /// Stop coasting: what was dispatched before `now` happens. Returns the number of steps.
    ///
    /// Steps that end in this very nanosecond stay in flight, to be completed as any other.
    pub(crate) fn land(
        &mut self,
        now: SimTime,
        response_latency: SimDuration,
        records: &mut Records,
    ) -> Result<u64, SimError> {
        self.coast.wake = None;
        let ahead = std::mem::take(&mut self.coast.ahead);
        let dispatched = ahead.partition_point(|step| step.scheduled < now);
        let (seqs, first) = (self.coast.seqs, next_step(self.step_ends.end())?);
        let mut context = self.coast.context;
        for step in &ahead[..dispatched] {
            self.record_shape(&decode(seqs, context), step.duration.as_nanos(), step.end);
            self.device_free = step.end;
            context += seqs;
        }
        // At most FARTHEST.
        let steps = u32::try_from(dispatched).unwrap_or(u32::MAX);
        self.scheduler.coast(steps);
        while self.next_end().is_some_and(|end| end < now) {
            let delivered = self.next_end().unwrap_or(now).after(response_latency)?;
            let mut ended = Vec::new();
            self.complete(delivered, records, &mut ended);
            debug_assert!(ended.is_empty(), "coasting engines have no request that ends");
        }
        let mut context = self.coast.context;
        for (number, step) in (first..).zip(&ahead[..dispatched]) {
            if step.end < now {
                self.scheduler.completed(number);
            } else {
                let mut plan = self.spare.pop().unwrap_or_default();
                plan.resume(number, decode(seqs, context), step.end, !self.in_flight.is_empty());
                self.in_flight.push_back(plan);
            }
            context += seqs;
        }
        self.coast.ahead = ahead;
        Ok(dispatched as u64)
    }

    /// Ends of the steps in flight.
    pub(crate) fn ends(&self) -> impl Iterator<Item = SimTime> {
        self.in_flight.iter().map(|plan| plan.end)
    }
}

/// A step of one token for each of `seqs` requests.
fn decode(seqs: u64, context: u64) -> StepShape {
    StepShape {
        decode_seqs: seqs,
        decode_context_tokens: context,
        sampled_seqs: seqs,
        ..StepShape::default()
    }
}
