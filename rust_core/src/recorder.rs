//! What a run leaves behind: request columns, step columns and token times.

use std::collections::BTreeMap;

use crate::cost::StepShape;
use crate::error::SimError;
use crate::rows::Rows;
use crate::scheduler::{Row, Span};
use crate::step_ends::StepEnds;
use crate::time::SimTime;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Not answered when the run stopped.
    Unfinished = 0,
    /// All its tokens were delivered.
    Completed = 1,
    /// Refused on arrival.
    Rejected = 2,
    /// Lost with an engine and not retried again.
    Failed = 3,
    /// Given up after its time was over.
    TimedOut = 4,
}

/// A column entry for what never happened.
pub const NEVER: i64 = -1;

/// One value a request, in order of arrival; times in nanoseconds, [`NEVER`] where it did not
/// happen.
#[derive(Clone, Debug, Default)]
pub struct RequestColumns {
    /// When the request was sent.
    pub arrival_ns: Rows<i64>,
    /// When it was first scheduled.
    pub admitted_ns: Rows<i64>,
    /// End of the step that gave its first token.
    pub first_token_ns: Rows<i64>,
    /// End of the step that gave its last token.
    pub finished_ns: Rows<i64>,
    /// Tokens generated.
    pub output_tokens: Rows<u32>,
    /// Prompt tokens found in the prefix cache when it was first scheduled.
    pub cached_tokens: Rows<u32>,
    /// Times it was preempted.
    pub preemptions: Rows<u32>,
    /// Engine it was routed to, −1 if none.
    pub engine: Rows<i32>,
    /// How it ended.
    pub status: Rows<Status>,
    /// First and last step of the last span of steps that gave it tokens.
    pub(crate) span: Rows<(u32, u32)>,
    /// Earlier spans of requests that were interrupted, and their engines, in order of their ends.
    broken_spans: Vec<(u32, Span)>,
    /// The same by request, where requests are forgotten when they have ended.
    held_spans: Option<BTreeMap<u32, Vec<Span>>>,
    /// How requests went from prefill to decode engines, where there are such.
    pub handover: Option<HandoverColumns>,
    /// How often each request was lost with an engine and sent to another one, where that can be.
    pub retries: Option<Rows<u32>>,
}

/// One value a request: how it went from a prefill to a decode engine.
#[derive(Clone, Debug)]
pub struct HandoverColumns {
    /// The prefill engine, −1 if none.
    pub prefill_engine: Rows<i32>,
    /// When the decode engine had reserved blocks and the first bytes existed.
    pub transfer_start_ns: Rows<i64>,
    /// When the decode engine had all keys and values.
    pub transfer_end_ns: Rows<i64>,
    /// Tokens whose keys and values were sent.
    pub transfer_tokens: Rows<u32>,
    /// When the client saw the second token, which is the decode engine's first unless the request
    /// was lost before it came.
    pub second_token_ns: Rows<i64>,
}

impl HandoverColumns {
    pub(crate) fn new(requests: usize) -> Self {
        Self {
            prefill_engine: Rows::filled(-1, requests),
            transfer_start_ns: Rows::filled(NEVER, requests),
            transfer_end_ns: Rows::filled(NEVER, requests),
            transfer_tokens: Rows::filled(0, requests),
            second_token_ns: Rows::filled(NEVER, requests),
        }
    }
}

impl RequestColumns {
    pub(crate) fn new(requests: usize) -> Self {
        Self {
            arrival_ns: Rows::filled(NEVER, requests),
            admitted_ns: Rows::filled(NEVER, requests),
            first_token_ns: Rows::filled(NEVER, requests),
            finished_ns: Rows::filled(NEVER, requests),
            output_tokens: Rows::filled(0, requests),
            cached_tokens: Rows::filled(0, requests),
            preemptions: Rows::filled(0, requests),
            engine: Rows::filled(-1, requests),
            status: Rows::filled(Status::Unfinished, requests),
            span: Rows::filled((0, 0), requests),
            broken_spans: Vec::new(),
            held_spans: None,
            handover: None,
            retries: None,
        }
    }

    pub(crate) fn arrived(&mut self, request: u32, now: SimTime) {
        self.arrival_ns[request] = nanos(now);
    }

    pub(crate) fn rejected(&mut self, request: u32, now: SimTime) {
        self.finished_ns[request] = nanos(now);
        self.status[request] = Status::Rejected;
    }

    pub(crate) fn routed(&mut self, request: u32, engine: u32) {
        // Clusters of 2^31 engines do not exist.
        self.engine[request] = i32::try_from(engine).unwrap_or(i32::MAX);
    }

    pub(crate) fn admitted(&mut self, request: u32, cached: u32, now: SimTime) {
        let admitted = &mut self.admitted_ns[request];
        if *admitted == NEVER {
            *admitted = nanos(now);
            self.cached_tokens[request] = cached;
        }
    }

    pub(crate) fn preempted(&mut self, request: u32) {
        self.preemptions[request] += 1;
    }

    pub(crate) fn was_preempted(&self, request: u32) -> bool {
        self.preemptions[request] > 0
    }

    pub(crate) fn first_token(&mut self, request: u32, now: SimTime) {
        self.first_token_ns[request] = nanos(now);
    }

    /// A request ends without all its tokens.
    pub(crate) fn gave_up(&mut self, request: u32, status: Status, output: u32, now: SimTime) {
        self.finished_ns[request] = nanos(now);
        self.output_tokens[request] = output;
        self.status[request] = status;
    }

    /// A request's latest span on a dead engine counts a token of a step from `processed` on, which
    /// never ended.
    pub(crate) fn span_shortened(&mut self, engine: u32, request: u32, processed: u32) {
        let of_request = |(of, span): &(u32, Span)| *of == engine && span.request == request;
        if let Some(place) = self.broken_spans.iter().rposition(of_request) {
            let span = &mut self.broken_spans[place].1;
            if span.first >= processed {
                self.broken_spans.remove(place);
            } else {
                span.last = span.last.min(processed - 1);
            }
        }
    }

    /// What was sent of a request's keys and values is of no use any more.
    pub(crate) fn transfer_lost(&mut self, request: u32) {
        if let Some(handover) = &mut self.handover {
            handover.transfer_start_ns[request] = NEVER;
            handover.transfer_end_ns[request] = NEVER;
            handover.transfer_tokens[request] = 0;
        }
    }

    pub(crate) fn second_token(&mut self, request: u32, now: SimTime) {
        if let Some(handover) = &mut self.handover {
            handover.second_token_ns[request] = nanos(now);
        }
    }

    pub(crate) fn span_broken(&mut self, engine: u32, span: Span) {
        match &mut self.held_spans {
            Some(held) => held.entry(span.request).or_default().push(span),
            None => self.broken_spans.push((engine, span)),
        }
    }

    /// Keep broken spans by request from now on, each of which has one engine.
    pub(crate) fn hold_spans(&mut self) {
        self.held_spans = Some(BTreeMap::new());
    }

    /// The broken spans of a request that has ended, in order of time.
    pub(crate) fn take_broken_spans(&mut self, request: u32) -> Vec<Span> {
        self.held_spans.as_mut().and_then(|held| held.remove(&request)).unwrap_or_default()
    }

    /// Make room for more requests.
    pub(crate) fn extend(&mut self, requests: usize) {
        let times = [
            &mut self.arrival_ns,
            &mut self.admitted_ns,
            &mut self.first_token_ns,
            &mut self.finished_ns,
        ];
        for column in times {
            column.extend_with(NEVER, requests);
        }
        let counts = [&mut self.output_tokens, &mut self.cached_tokens, &mut self.preemptions];
        for column in counts {
            column.extend_with(0, requests);
        }
        self.engine.extend_with(-1, requests);
        self.status.extend_with(Status::Unfinished, requests);
        self.span.extend_with((0, 0), requests);
    }

    /// Take over another run's row; `engines` are our numbers of its engines.
    pub(crate) fn copy_row(&mut self, to: u32, other: &Self, from: u32, engines: &[u32]) {
        self.arrival_ns[to] = other.arrival_ns[from];
        self.admitted_ns[to] = other.admitted_ns[from];
        self.first_token_ns[to] = other.first_token_ns[from];
        self.finished_ns[to] = other.finished_ns[from];
        self.output_tokens[to] = other.output_tokens[from];
        self.cached_tokens[to] = other.cached_tokens[from];
        self.preemptions[to] = other.preemptions[from];
        self.status[to] = other.status[from];
        self.span[to] = other.span[from];
        if let Ok(engine) = usize::try_from(other.engine[from]) {
            self.routed(to, engines[engine]);
        }
    }

    /// Take over another run's broken spans; `requests` and `engines` are our numbers of its own.
    pub(crate) fn copy_broken_spans(
        &mut self,
        other: &Self,
        requests: &Rows<u32>,
        engines: &[u32],
    ) {
        self.broken_spans.extend(other.broken_spans.iter().map(|&(engine, span)| {
            (engines[engine as usize], Span { request: requests[span.request], ..span })
        }));
    }

    /// Forget them, to take them over anew.
    pub(crate) fn forget_broken_spans(&mut self) {
        self.broken_spans.clear();
    }

    /// Forget the requests before that one, which have ended.
    pub(crate) fn drop_before(&mut self, request: u32) {
        let times = [
            &mut self.arrival_ns,
            &mut self.admitted_ns,
            &mut self.first_token_ns,
            &mut self.finished_ns,
        ];
        for column in times {
            column.drop_before(request);
        }
        let counts = [&mut self.output_tokens, &mut self.cached_tokens, &mut self.preemptions];
        for column in counts {
            column.drop_before(request);
        }
        self.engine.drop_before(request);
        self.status.drop_before(request);
        self.span.drop_before(request);
    }

    pub(crate) fn completed(&mut self, span: Span, output: u32, now: SimTime) {
        let request = span.request;
        self.finished_ns[request] = nanos(now);
        self.output_tokens[request] = output;
        self.span[request] = (span.first, span.last);
        self.status[request] = Status::Completed;
    }

    /// Call `take` with the engine and each span of the completed requests that `wanted` selects:
    /// each request's spans in order of time, by request.
    pub(crate) fn for_each_span(
        &self,
        wanted: impl Fn(usize) -> bool,
        mut take: impl FnMut(usize, Span),
    ) {
        let mut broken: Vec<&(u32, Span)> =
            self.broken_spans.iter().filter(|(_, span)| wanted(span.request as usize)).collect();
        broken.sort_by_key(|(_, span)| span.request);
        let mut earlier = broken.into_iter().peekable();
        for (request, &(first, last)) in (0_u32..).zip(self.span.as_slice()) {
            let row = request as usize;
            let selected = self.status[request] == Status::Completed && wanted(row);
            let engine = usize::try_from(self.engine[request]).unwrap_or(0);
            while let Some(&(earlier_engine, span)) =
                earlier.next_if(|(_, span)| span.request == request)
            {
                if selected {
                    take(earlier_engine as usize, span);
                }
            }
            if selected {
                take(engine, Span { request, first, last });
            }
        }
    }

    /// Token times of the given requests at the client, one after the other, and where each one's
    /// begin; `latency` nanoseconds lie between the end of a step and the client.
    pub fn token_times(
        &self,
        step_ends: &[&StepEnds],
        requests: &[usize],
        latency: i64,
    ) -> (Vec<i64>, Vec<i64>) {
        let mut wanted = vec![false; self.span.end()];
        for &request in requests {
            wanted[request] = true;
        }
        let mut spans = Vec::new();
        self.for_each_span(|request| wanted[request], |engine, span| spans.push((engine, span)));
        let mut times = Vec::new();
        let mut offsets = vec![0];
        for &request in requests {
            let from = spans.partition_point(|(_, span)| (span.request as usize) < request);
            let own = spans[from..].iter().take_while(|(_, span)| span.request as usize == request);
            for &(engine, span) in own {
                let steps = (span.last - span.first + 1) as usize;
                let ends = step_ends[engine].ends_from(span.first as usize).take(steps);
                times.extend(ends.map(|end| end.cast_signed() + latency));
            }
            offsets.push(i64::try_from(times.len()).unwrap_or(i64::MAX));
        }
        (times, offsets)
    }
}

/// What happens to a scheduler, in the words of decision traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// A request enters; the index is its number.
    Add = 0,
    /// The scheduler is called; the index is the decision's.
    Schedule = 1,
    /// The output of a scheduled step is processed; the index is its decision's.
    Update = 2,
}

/// Every decision of every engine, as decision traces have them.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// (engine, what, index), in order of time.
    pub log: Vec<(u32, Call, usize)>,
    /// One entry a call of a scheduler.
    pub steps: Vec<Decision>,
    /// The rows of all steps, one after the other.
    pub rows: Vec<Row>,
    /// The preempted requests of all steps, one after the other.
    pub preempted: Vec<u32>,
}

/// What one call of a scheduler decided; it owns the rows and preempted requests up to its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// End of its rows.
    pub rows_end: usize,
    /// End of its preempted requests.
    pub preempted_end: usize,
    /// Free KV blocks after it.
    pub free_blocks: u32,
    /// Waiting requests after it.
    pub waiting: usize,
    /// Running requests after it.
    pub running: u32,
}

/// One value a step; times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct StepColumns {
    /// Engine.
    pub engine: Vec<u32>,
    /// Start.
    pub start_ns: Vec<u64>,
    /// End.
    pub end_ns: Vec<u64>,
    /// Sums over its requests.
    pub shape: Vec<StepShape>,
    /// Requests preempted while scheduling it.
    pub preempted: Vec<u32>,
    /// Running requests after scheduling it.
    pub running: Vec<u32>,
    /// Waiting requests after scheduling it.
    pub waiting: Vec<u64>,
    /// Free KV blocks after scheduling it.
    pub free_blocks: Vec<u32>,
}

/// Times fit i64: the clock ends at 2^63.
pub(crate) const fn nanos(time: SimTime) -> i64 {
    time.as_nanos().cast_signed()
}

/// Steps are numbered by u32 in each engine.
pub(crate) fn next_step(steps: usize) -> Result<u32, SimError> {
    match u32::try_from(steps) {
        // The number after a step's own must exist too.
        Ok(step) if step < u32::MAX - 1 => Ok(step),
        _ => Err(SimError::TooMany { what: "steps of one engine", limit: u64::from(u32::MAX) - 2 }),
    }
}

/// A 64-bit hash of a run: equal runs have equal hashes, and a difference shows with near certainty.
///
/// It is the sum of one mix for each word and its place. Places differ, so their order need not be
/// hashed, and a processor mixes several words at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceHash(u64);

impl TraceHash {
    /// Add a word at a place that no other has, such as the end of a step: multiply and fold, as
    /// wyhash does.
    #[inline]
    pub fn add(&mut self, place: u64, word: u64) {
        let product =
            u128::from(place ^ 0xA076_1D64_78BD_642F) * u128::from(word ^ 0xE703_7ED1_A0B4_28DB);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.0 = self.0.wrapping_add(folded);
    }

    /// The hash so far.
    pub const fn get(self) -> u64 {
        self.0
    }
}
