//! What the scheduler decides for one step.

use crate::cost::StepShape;
use crate::ids::SlotId;
use crate::time::SimTime;

/// An unbroken row of steps in each of which a request got a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) request: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// A request that entered `running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) request: u32,
    /// Tokens it found in the prefix cache.
    pub(crate) cached: u32,
    /// Prompt and generated tokens it asked the cache for.
    pub(crate) queried: u32,
}

/// A request whose blocks were reserved for keys and values that a prefill engine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) request: u32,
    pub(crate) slot: SlotId,
    /// Tokens that must be sent.
    pub(crate) tokens: u32,
    /// Tokens that it found in the prefix cache instead.
    pub(crate) cached: u32,
}

/// One scheduled request, as decision traces have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The request.
    pub request: u32,
    /// Tokens computed before the step.
    pub computed: u32,
    /// Tokens scheduled.
    pub tokens: u32,
    /// Whether the step gives it a token.
    pub yields: bool,
    /// Whether that is its last one.
    pub last: bool,
}

/// What one call of the scheduler decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepPlan {
    /// Number of the step in its engine.
    pub(crate) step: u32,
    pub(crate) shape: StepShape,
    pub(crate) admitted: Vec<Admission>,
    /// Requests that were preempted.
    pub(crate) preempted: Vec<u32>,
    /// Requests whose first token this step gives.
    pub(crate) first_tokens: Vec<u32>,
    /// Requests whose second token it gives, in prefill and decode engines.
    pub(crate) second_tokens: Vec<u32>,
    /// Spans that ended before this step because a request was preempted or left out.
    pub(crate) broken_spans: Vec<Span>,
    /// Every scheduled request in order, where decisions are recorded.
    pub(crate) rows: Vec<Row>,
    /// Slots whose last token this step gives, in scheduled order.
    pub(crate) finishing: Vec<SlotId>,
    /// Slots that wait for the token this step gives, where the layers lie in several stages.
    pub(super) awaited: Vec<SlotId>,
}

impl StepPlan {
    pub(crate) fn reset(&mut self, step: u32) {
        self.step = step;
        self.shape = StepShape::default();
        self.admitted.clear();
        self.preempted.clear();
        self.first_tokens.clear();
        self.second_tokens.clear();
        self.broken_spans.clear();
        self.rows.clear();
        self.finishing.clear();
        self.awaited.clear();
    }

    /// Whether no request was scheduled.
    pub(crate) const fn is_empty(&self) -> bool {
        self.shape.tokens() == 0
    }

    /// What is left of it once it is dispatched, to end at `end`; `overlaps`: while the step before
    /// it is in flight.
    #[inline]
    pub(crate) fn dispatched(&self, end: SimTime, overlaps: bool) -> Flight {
        if self.finishing.is_empty()
            && self.first_tokens.is_empty()
            && self.second_tokens.is_empty()
            && self.awaited.is_empty()
        {
            return Flight::uneventful(end, self.step, overlaps);
        }
        self.eventful(end, overlaps)
    }

    fn eventful(&self, end: SimTime, overlaps: bool) -> Flight {
        let parts = [&self.first_tokens, &self.second_tokens, &self.finishing, &self.awaited];
        let [first_tokens, second_tokens, finishing, _] = parts.map(|part| count(part));
        let mut ids = Few::default();
        for part in parts {
            ids.extend(part);
        }
        Flight { end, step: self.step, overlaps, first_tokens, second_tokens, finishing, ids }
    }
}

/// A dispatched step until its output is processed: little more than a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// When it ends.
    pub(crate) end: SimTime,
    /// Number of the step in its engine.
    pub(crate) step: u32,
    /// Whether it was decided while the step before it was in flight.
    pub(crate) overlaps: bool,
    /// How many of `ids` are requests that get their first token.
    first_tokens: u32,
    /// How many are requests that get the first one of a decode engine, after these.
    second_tokens: u32,
    /// How many are slots that get their last one, after these; the others await theirs.
    finishing: u32,
    ids: Few,
}

impl Flight {
    /// A step that changes the state of no request when it ends.
    #[inline]
    pub(crate) const fn uneventful(end: SimTime, step: u32, overlaps: bool) -> Self {
        Self {
            end,
            step,
            overlaps,
            first_tokens: 0,
            second_tokens: 0,
            finishing: 0,
            ids: Few { len: 0, near: [0; NEAR], far: Vec::new() },
        }
    }

    /// Whether it changes the state of no request when it ends.
    #[inline]
    pub(crate) const fn is_uneventful(&self) -> bool {
        self.ids.len == 0
    }

    /// Requests whose first token it gives.
    #[inline]
    pub(crate) fn first_tokens(&self) -> &[u32] {
        &self.ids.as_slice()[..self.first_tokens as usize]
    }

    /// Requests whose second token it gives, the first one of a decode engine.
    #[inline]
    pub(crate) fn second_tokens(&self) -> &[u32] {
        &self.ids.as_slice()[self.first_tokens as usize..][..self.second_tokens as usize]
    }

    /// Slots whose last token it gives, in scheduled order.
    #[inline]
    pub(crate) fn finishing(&self) -> &[SlotId] {
        let before = self.first_tokens + self.second_tokens;
        &self.ids.as_slice()[before as usize..][..self.finishing as usize]
    }

    /// Slots that wait for the token it gives.
    #[inline]
    pub(super) fn awaited(&self) -> &[SlotId] {
        &self.ids.as_slice()[(self.first_tokens + self.second_tokens + self.finishing) as usize..]
    }

    /// Whether it gives some request its last token.
    #[inline]
    pub(crate) const fn ends_some(&self) -> bool {
        self.finishing > 0
    }

    /// Forget a request that was aborted: the step gives it no token.
    pub(super) fn forget(&mut self, id: SlotId, request: u32) {
        let others = |ids: &[u32], own: u32| -> Vec<u32> {
            ids.iter().copied().filter(|&other| other != own).collect()
        };
        let left = StepPlan {
            step: self.step,
            first_tokens: others(self.first_tokens(), request),
            second_tokens: others(self.second_tokens(), request),
            finishing: others(self.finishing(), id),
            awaited: others(self.awaited(), id),
            ..StepPlan::default()
        };
        *self = left.dispatched(self.end, self.overlaps);
    }
}

/// Requests of one engine are counted by u32.
fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

/// Numbers, of which there are seldom more than a few.
#[derive(Clone, Debug, Default)]
struct Few {
    len: u32,
    near: [u32; NEAR],
    /// All of them, once there are more than fit.
    far: Vec<u32>,
}

const NEAR: usize = 3;

impl Few {
    #[inline]
    fn extend(&mut self, numbers: &[u32]) {
        let len = self.len as usize;
        if let Some(places) = self.near.get_mut(len..len + numbers.len()) {
            for (place, &number) in places.iter_mut().zip(numbers) {
                *place = number;
            }
        } else {
            if self.far.is_empty() {
                self.far.extend_from_slice(&self.near[..len]);
            }
            self.far.extend_from_slice(numbers);
        }
        self.len += count(numbers);
    }

    #[inline]
    fn as_slice(&self) -> &[u32] {
        self.near.get(..self.len as usize).unwrap_or(&self.far)
    }
}
