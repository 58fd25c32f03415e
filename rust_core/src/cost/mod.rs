//! What a step costs. Models see sums over a step's requests, never a list of them: that is what
//! keeps a decode step independent of the batch size.

mod fixed;
mod operation;
mod roofline;
mod table;

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

pub use fixed::FixedCost;
pub use operation::{FEATURE_NAMES, Kind, Operation, Runs};
pub use roofline::{
    AllReduce, Bound, Mixture, OperationCost, PhaseRates, Provenance, Roofline, RooflineHardware,
};
pub use table::{Curve, Function, PrefillSurface, Surface, Table, Term};

use crate::config::Window;
use crate::error::SimError;
use crate::time::SimDuration;

/// Sums over the requests of a step (docs/spec.md, section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Requests with a chunk of prompt (or of recomputed tokens).
    pub prefill_seqs: u64,
    /// New tokens of those chunks.
    pub prefill_tokens: u64,
    /// Causal query-key pairs of those chunks: sum of n·c + n(n+1)/2.
    pub prefill_attention_pairs: u64,
    /// Keys those chunks read: sum of c + n.
    pub prefill_context_tokens: u64,
    /// Requests that extend their output by one token.
    pub decode_seqs: u64,
    /// Keys those requests read: sum of c + 1.
    pub decode_context_tokens: u64,
    /// Requests that get a token from this step, so need logits.
    pub sampled_seqs: u64,
    /// Query-key pairs of prompt chunks in layers that see a window only.
    pub prefill_window_pairs: u64,
    /// Keys that prompt chunks read in those layers.
    pub prefill_window_tokens: u64,
    /// Keys that decoding requests read in those layers.
    pub decode_window_tokens: u64,
}

impl StepShape {
    /// Tokens that pass through the layers.
    pub const fn tokens(&self) -> u64 {
        self.prefill_tokens + self.decode_seqs
    }

    /// Add a chunk of `new` tokens on top of `computed` ones.
    pub(crate) fn add_prefill(&mut self, computed: u64, new: u64, window: Window) {
        self.prefill_seqs += 1;
        self.prefill_tokens += new;
        self.prefill_attention_pairs += new * computed + new * (new + 1) / 2;
        self.prefill_context_tokens += computed + new;
        let (pairs, keys) = window.of_chunk(computed, new);
        self.prefill_window_pairs += pairs;
        self.prefill_window_tokens += keys;
    }

    /// Add `seqs` decoding requests whose contexts, new tokens included, sum to `context`, and to
    /// `windowed` where only a window counts.
    pub(crate) fn add_decode(&mut self, seqs: u64, context: u64, windowed: u64) {
        self.decode_seqs += seqs;
        self.decode_context_tokens += context;
        self.decode_window_tokens += windowed;
    }

    /// A step of `seqs` whole prompts of `tokens` new tokens, each on top of `cached` ones.
    pub fn prefill(seqs: u64, tokens: u64, cached: u64, window: Window) -> Self {
        let mut one = Self::default();
        one.add_prefill(cached, tokens, window);
        Self {
            prefill_seqs: seqs,
            prefill_tokens: seqs * one.prefill_tokens,
            prefill_attention_pairs: seqs * one.prefill_attention_pairs,
            prefill_context_tokens: seqs * one.prefill_context_tokens,
            prefill_window_pairs: seqs * one.prefill_window_pairs,
            prefill_window_tokens: seqs * one.prefill_window_tokens,
            sampled_seqs: seqs,
            ..one
        }
    }

    /// A step of one token for each of `seqs` requests whose contexts are `context` tokens long.
    pub fn decode(seqs: u64, context: u64, window: Window) -> Self {
        let mut shape = Self { sampled_seqs: seqs, ..Self::default() };
        let windowed = context.checked_sub(1).map_or(0, |computed| window.keys(computed));
        shape.add_decode(seqs, seqs * context, seqs * windowed);
        shape
    }
}

impl AddAssign for StepShape {
    fn add_assign(&mut self, other: Self) {
        self.prefill_seqs += other.prefill_seqs;
        self.prefill_tokens += other.prefill_tokens;
        self.prefill_attention_pairs += other.prefill_attention_pairs;
        self.prefill_context_tokens += other.prefill_context_tokens;
        self.decode_seqs += other.decode_seqs;
        self.decode_context_tokens += other.decode_context_tokens;
        self.sampled_seqs += other.sampled_seqs;
        self.prefill_window_pairs += other.prefill_window_pairs;
        self.prefill_window_tokens += other.prefill_window_tokens;
        self.decode_window_tokens += other.decode_window_tokens;
    }
}

/// What all steps of an engine add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTotals {
    /// The sums of all steps.
    pub shape: StepShape,
    /// Number of steps.
    pub steps: u64,
    /// Steps in which some request got a token.
    pub sampling_steps: u64,
    /// Distinct experts that the steps woke in an expert layer, summed.
    pub experts: f64,
}

impl StepTotals {
    /// Count one more step.
    #[inline]
    pub(crate) fn add(&mut self, shape: &StepShape, experts: f64) {
        self.experts += experts;
        self.shape += *shape;
        self.steps += 1;
        self.sampling_steps += u64::from(shape.sampled_seqs > 0);
    }

    /// Count that many decode steps of the same `seqs` requests, the first of which reads `context`
    /// keys and wakes as many experts as all others.
    #[inline]
    pub(crate) fn add_decodes(&mut self, steps: u32, seqs: u64, context: u64, experts: f64) {
        if experts != 0.0 {
            // One by one, as steps are added: the sum is rounded the same way.
            for _ in 0..steps {
                self.experts += experts;
            }
        }
        let steps = u64::from(steps);
        self.shape.decode_seqs += steps * seqs;
        self.shape.decode_context_tokens +=
            steps * context + seqs * (steps * steps.saturating_sub(1) / 2);
        self.shape.sampled_seqs += steps * seqs;
        self.steps += steps;
        self.sampling_steps += steps;
    }
}

/// A user's own cost model.
pub trait StepCost: Send + Sync {
    /// Seconds that the step takes.
    ///
    /// # Errors
    /// Whatever stops the model; the simulation ends with it.
    fn step_seconds(&self, step: &StepShape) -> Result<f64, SimError>;
}

/// The closed set of cost models, with one door for user code.
#[derive(Clone)]
pub enum CostModel {
    /// Whole nanoseconds, linear in the step's sums.
    Fixed(FixedCost),
    /// Operation by operation.
    Roofline(Arc<Roofline>),
    /// Measured kernels.
    Table(Arc<Table>),
    /// User code.
    External(Arc<dyn StepCost>),
}

impl CostModel {
    /// Whether asking twice gives the same and changes nothing: true but for user code.
    #[inline]
    pub(crate) const fn is_repeatable(&self) -> bool {
        !matches!(self, Self::External(_))
    }

    /// How long the step takes, at least 1 ns.
    ///
    /// # Errors
    /// [`SimError::InvalidDuration`] where a model gives no proper time, and what external models
    /// raise.
    #[inline]
    pub fn step_duration(&self, step: &StepShape) -> Result<SimDuration, SimError> {
        let duration = match self {
            Self::Fixed(model) => model.step_duration(step),
            Self::Roofline(model) => SimDuration::from_secs_f64(model.step_seconds(step))?,
            Self::Table(model) => SimDuration::from_secs_f64(model.step_seconds(step))?,
            Self::External(model) => SimDuration::from_secs_f64(model.step_seconds(step)?)?,
        };
        Ok(duration.at_least_one())
    }

    /// How long the step takes in a group whose engines, this one among them, have `group_tokens`
    /// tokens in theirs; user code sees its own engine's step alone.
    ///
    /// # Errors
    /// As [`CostModel::step_duration`].
    pub fn group_step_duration(
        &self,
        step: &StepShape,
        group_tokens: u64,
    ) -> Result<SimDuration, SimError> {
        let seconds = match self {
            Self::Fixed(model) => {
                return Ok(model.group_step_duration(step, group_tokens).at_least_one());
            }
            Self::Roofline(model) => model.group_step_seconds(step, group_tokens),
            Self::Table(model) => model.group_step_seconds(step, group_tokens),
            Self::External(model) => model.step_seconds(step)?,
        };
        Ok(SimDuration::from_secs_f64(seconds)?.at_least_one())
    }

    /// Unrounded seconds of the step.
    ///
    /// # Errors
    /// As [`CostModel::step_duration`].
    pub fn step_seconds(&self, step: &StepShape) -> Result<f64, SimError> {
        match self {
            Self::Fixed(model) => Ok(model.step_duration(step).as_nanos() as f64 / 1e9),
            Self::Roofline(model) => Ok(model.step_seconds(step)),
            Self::Table(model) => Ok(model.step_seconds(step)),
            Self::External(model) => model.step_seconds(step),
        }
    }

    /// The step's components, where the model has them.
    pub fn breakdown(&self, step: &StepShape) -> Option<Vec<OperationCost>> {
        match self {
            Self::Roofline(model) => Some(model.breakdown(step)),
            Self::Table(model) => Some(model.breakdown(step)),
            Self::Fixed(_) | Self::External(_) => None,
        }
    }

    /// Distinct experts that a step wakes in an expert layer; 0 for models without any.
    #[inline]
    pub fn experts(&self, step: &StepShape) -> f64 {
        match self {
            Self::Roofline(model) => model.experts(step),
            Self::Table(model) => model.roofline().experts(step),
            Self::Fixed(_) | Self::External(_) => 0.0,
        }
    }

    /// Distinct experts that `group_tokens` tokens of all engines wake in an expert layer.
    pub fn group_experts(&self, group_tokens: u64) -> f64 {
        self.priced().map_or(0.0, |model| model.group_experts(group_tokens))
    }

    /// As [`CostModel::work`], of steps in a group whose engines had `group_tokens` tokens.
    pub fn group_work(&self, totals: &StepTotals, group_tokens: u64) -> (f64, f64) {
        self.priced().map_or((0.0, 0.0), |model| model.group_work(totals, group_tokens))
    }

    /// The operations and bytes behind the model, where it has them.
    fn priced(&self) -> Option<&Roofline> {
        match self {
            Self::Roofline(model) => Some(model),
            Self::Table(model) => Some(model.roofline()),
            Self::Fixed(_) | Self::External(_) => None,
        }
    }

    /// Operations and bytes of all steps behind `totals`, per accelerator.
    pub fn work(&self, totals: &StepTotals) -> (f64, f64) {
        match self {
            Self::Roofline(model) => model.work(totals),
            Self::Table(model) => model.roofline().work(totals),
            Self::Fixed(_) | Self::External(_) => (0.0, 0.0),
        }
    }
}

impl fmt::Debug for CostModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fixed(_) => "CostModel::Fixed",
            Self::Roofline(_) => "CostModel::Roofline",
            Self::Table(_) => "CostModel::Table",
            Self::External(_) => "CostModel::External",
        })
    }
}
