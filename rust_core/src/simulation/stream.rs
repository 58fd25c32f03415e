//! Runs of any length in bounded memory: requests are appended while the simulation runs, and rows
//! of requests that have ended are handed out and forgotten (`docs/guides/large_runs.md`).

use super::{Options, Simulation};
use crate::engine::Engine;
use crate::error::SimError;
use crate::gap_histogram::{GapHistogram, OpenSteps};
use crate::recorder::{NEVER, RequestColumns, Status};
use crate::rows::Rows;
use crate::scheduler::Span;
use crate::time::SimTime;
use crate::workload::{NewRequests, Workload};

/// How a streamed run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Gaps between tokens are counted of requests sent then or later.
    pub warm_up: SimTime,
}

/// What a streamed run keeps besides the rows of requests that have not ended.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    settings: StreamSettings,
    /// The engine's next step when each request joined it: no earlier one gives it a token.
    joined: Rows<u32>,
    /// Requests before this one have ended, and their gaps are counted.
    ended: u32,
    open_steps: Vec<OpenSteps>,
    gaps: GapHistogram,
}

impl Stream {
    pub(super) fn new(settings: StreamSettings, engines: usize, requests: usize) -> Self {
        Self {
            settings,
            joined: Rows::filled(0, requests),
            ended: 0,
            open_steps: vec![OpenSteps::default(); engines],
            gaps: GapHistogram::default(),
        }
    }

    /// A request joins an engine whose next step has that number.
    pub(super) fn joined(&mut self, request: u32, step: usize) {
        // Steps of an engine are numbered by u32.
        self.joined[request] = u32::try_from(step).unwrap_or(u32::MAX);
    }

    /// Rows that ended elsewhere, with their gaps counted there.
    pub(super) fn pass_ended(&mut self, requests: &RequestColumns) {
        while let Some(&status) = requests.status.get(self.ended)
            && status != Status::Unfinished
        {
            self.ended += 1;
        }
    }

    /// Count the gaps of requests that have ended, in order of arrival up to the first that has not
    /// (`all`: and of those behind it), and forget the steps that nobody needs any more.
    fn settle(&mut self, requests: &mut RequestColumns, engines: &mut [Engine], all: bool) {
        while let Some(&status) = requests.status.get(self.ended) {
            if status == Status::Unfinished && !all {
                break;
            }
            if !engines.is_empty() {
                self.count(requests, engines, self.ended);
            }
            self.ended += 1;
        }
        for (open, engine) in self.open_steps.iter_mut().zip(engines) {
            if all {
                open.close_all();
            }
            let needed = open.count(engine.step_ends(), &mut self.gaps);
            engine.drop_steps_before(needed);
        }
    }

    fn count(&mut self, requests: &mut RequestColumns, engines: &[Engine], request: u32) {
        let broken = requests.take_broken_spans(request);
        let Ok(engine) = usize::try_from(requests.engine[request]) else { return };
        let sent = requests.arrival_ns[request];
        let warm = u64::try_from(sent).is_ok_and(|sent| sent >= self.settings.warm_up.as_nanos());
        if requests.status[request] == Status::Completed && sent != NEVER && warm {
            let (first, last) = requests.span[request];
            let ends = engines[engine].step_ends();
            let mut before = None;
            for span in broken.into_iter().chain([Span { request, first, last }]) {
                self.open_steps[engine].add(span);
                if let Some(before) = before {
                    self.gaps.add(ends.at(span.first as usize) - before, 1);
                }
                before = Some(ends.at(span.last as usize));
            }
        }
        self.open_steps[engine].close(self.joined[request]);
    }
}

/// Refuse what a streamed run cannot do.
pub(super) fn check(
    workload: &Workload,
    options: &Options,
    engines_interact: bool,
) -> Result<(), SimError> {
    let refuse =
        |field, remedy| Err(SimError::InvalidSetting { field, value: "given".to_owned(), remedy });
    if !workload.predecessors.is_empty() {
        return refuse("after", "requests of a streamed run cannot wait for one another");
    }
    if engines_interact {
        return refuse("fleet or roles", "streamed clusters are aggregated and do not change");
    }
    if options.record_steps || options.record_decisions {
        return refuse("record_steps or record_decisions", "streamed runs keep neither");
    }
    Ok(())
}

impl Simulation {
    /// Append requests to a streamed run: they arrive no earlier than those before them. None
    /// arrives before `until_ns` after them; `last`: none arrives at all.
    ///
    /// # Errors
    /// As [`Workload::new`](crate::workload::Workload::new), and where the run is not streamed.
    pub fn feed(
        &mut self,
        new: &NewRequests<'_>,
        until_ns: i64,
        last: bool,
    ) -> Result<(), SimError> {
        let Some(stream) = &mut self.stream else {
            return Err(SimError::InvalidSetting {
                field: "streaming",
                value: "off".to_owned(),
                remedy: "only streamed runs take requests while they run",
            });
        };
        let (first, added) = (self.source.workload().len(), new.arrival_ns.len());
        self.source.append(last, |workload| workload.append(new, until_ns))?;
        self.records.requests.extend(added);
        stream.joined.extend_with(0, added);
        if self.parts.is_some() {
            // Requests are numbered by u32.
            return self.feed_parts(u32::try_from(first).unwrap_or(u32::MAX), last);
        }
        self.look_ahead()
    }

    /// Whether nothing may happen yet: the next request is not known, or the run pauses here.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        self.pauses() || self.is_starved()
    }

    /// Whether all that happens before the end of this part of the run has happened.
    #[inline]
    fn pauses(&self) -> bool {
        self.until < SimTime::FAR && {
            let next = self.next_event().into_iter().chain(self.next_arrival).min();
            next.is_some_and(|time| time >= self.until)
        }
    }

    #[inline]
    fn next_event(&self) -> Option<SimTime> {
        match self.due.first() {
            Some(_) => Some(self.now),
            None => self.queue.peek().map(|event| event.time),
        }
    }

    #[inline]
    fn is_starved(&self) -> bool {
        self.next_arrival.is_none() && self.source.is_starved() && {
            self.next_event().is_none_or(|time| {
                time.as_nanos()
                    >= self.source.known_until().as_nanos()
                        + self.options.request_latency.as_nanos()
            })
        }
    }

    /// Count and forget what is final.
    pub(super) fn settle_stream(&mut self, all: bool) {
        if let Some(stream) = &mut self.stream {
            stream.settle(&mut self.records.requests, &mut self.engines, all);
        }
    }

    /// Treat requests without an answer as ended: the run stops here.
    pub fn close_stream(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.close();
            self.collect();
        }
        // Without engines of its own a divided cluster has nothing to count.
        self.settle_stream(true);
    }

    /// Rows from the first one kept on that are final, of a streamed run.
    pub fn ended_rows(&self) -> usize {
        let first = self.records.requests.status.first();
        self.stream.as_ref().map_or(0, |stream| (stream.ended - first) as usize)
    }

    /// Forget that many rows, at most the final ones.
    pub fn drop_rows(&mut self, count: usize) {
        let count = count.min(self.ended_rows());
        let Some(stream) = &mut self.stream else { return };
        let first = self.records.requests.status.first();
        // No more than the requests, which are numbered by u32.
        let before = first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        stream.joined.drop_before(before);
        self.records.requests.drop_before(before);
        self.source.drop_before(before);
    }

    /// Gaps between tokens of the requests that have ended, of a streamed run.
    pub fn gap_histogram(&self) -> Option<GapHistogram> {
        let stream = self.stream.as_ref()?;
        Some(self.parts.as_ref().map_or_else(|| stream.gaps.clone(), |parts| parts.gaps()))
    }
}
