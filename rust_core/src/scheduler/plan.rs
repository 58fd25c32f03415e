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
    /// When it ends.
    pub(crate) end: SimTime,
    /// Whether it was decided while the step before it was in flight.
    pub(crate) overlaps: bool,
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
    pub(super) fn reset(&mut self, step: u32) {
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

    /// Forget a request that was aborted: the step gives it no token.
    pub(super) fn forget(&mut self, id: SlotId, request: u32) {
        self.finishing.retain(|&other| other != id);
        self.awaited.retain(|&other| other != id);
        self.first_tokens.retain(|&other| other != request);
        self.second_tokens.retain(|&other| other != request);
    }

    /// Whether it gives some request its last token.
    #[inline]
    pub(crate) const fn ends_some(&self) -> bool {
        !self.finishing.is_empty()
    }

    /// Make it the plan of a decode step that was taken without being planned.
    pub(crate) fn resume(&mut self, step: u32, shape: StepShape, end: SimTime, overlaps: bool) {
        self.reset(step);
        self.shape = shape;
        self.end = end;
        self.overlaps = overlaps;
    }

    /// Whether no request was scheduled.
    pub(crate) const fn is_empty(&self) -> bool {
        self.shape.tokens() == 0
    }
}
