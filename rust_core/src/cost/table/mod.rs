//! Step times from measured kernels (`docs/cost_model.md`).
//!
//! A model's kernels are given as functions of a few sums of the step. What depends on one sum
//! alone is added up to one curve when the model is compiled, so that a step costs a few look-ups
//! whatever the number of kernels.

mod curve;
mod surface;

use std::sync::Arc;

pub use curve::Curve;
pub use surface::Surface;

use super::roofline::{Bound, OperationCost, Provenance, Roofline};
use super::{StepShape, operation};
use crate::error::SimError;

/// Attention of prompt chunks: measured without cached tokens, continued by query-key pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefillSurface {
    /// Seconds by (chunks, tokens a chunk) without anything cached.
    pub fresh: Surface,
    /// Seconds of a query-key pair beyond those of fresh chunks, where all units work.
    pub seconds_per_pair: f64,
    /// Query tokens that keep all units busy; fewer take as long as these.
    pub saturating_tokens: f64,
    /// Seconds of a cached key that is read or expanded.
    pub seconds_per_key: f64,
    /// Keys that a token sees at most; 0: all.
    pub window: u64,
}

impl PrefillSurface {
    #[inline]
    fn at(&self, step: &StepShape) -> f64 {
        let windowed = self.window > 0;
        let (pairs, keys) = if windowed {
            (step.prefill_window_pairs, step.prefill_window_tokens)
        } else {
            (step.prefill_attention_pairs, step.prefill_context_tokens)
        };
        let (seqs, tokens) = (step.prefill_seqs as f64, step.prefill_tokens as f64);
        let chunk = tokens / seqs;
        let within = if windowed { chunk.min(self.window as f64) } else { chunk };
        let own = seqs * (within * (within + 1.0) / 2.0 + (chunk - within) * within);
        let extra_pairs = (pairs as f64 - own).max(0.0);
        let extra_keys = (keys - step.prefill_tokens.min(keys)) as f64;
        let stretch = (self.saturating_tokens / tokens).max(1.0);
        let extra = extra_pairs * self.seconds_per_pair * stretch;
        self.fresh.at(seqs, chunk) + extra.max(extra_keys * self.seconds_per_key)
    }
}

/// How a term's seconds follow from the step.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// Of the tokens in the step.
    Tokens(Curve),
    /// Of the requests in the step.
    Seqs(Curve),
    /// Of the requests that get a token; nothing where none does.
    Sampled(Curve),
    /// Of (decoding requests, mean keys each reads).
    Decode(Surface),
    /// The same with the keys of a window.
    DecodeWindow(Surface),
    /// Of the prompt chunks.
    Prefill(PrefillSurface),
}

impl Function {
    #[inline]
    fn at(&self, step: &StepShape) -> f64 {
        match self {
            Self::Tokens(curve) => curve.at(step.tokens() as f64),
            Self::Seqs(curve) => curve.at((step.prefill_seqs + step.decode_seqs) as f64),
            Self::Sampled(curve) if step.sampled_seqs > 0 => curve.at(step.sampled_seqs as f64),
            Self::Decode(surface) => decode(surface, step, step.decode_context_tokens),
            Self::DecodeWindow(surface) => decode(surface, step, step.decode_window_tokens),
            Self::Prefill(surface) if step.prefill_seqs > 0 => surface.at(step),
            Self::Sampled(_) | Self::Prefill(_) => 0.0,
        }
    }
}

#[inline]
fn decode(surface: &Surface, step: &StepShape, keys: u64) -> f64 {
    if step.decode_seqs == 0 {
        return 0.0;
    }
    let seqs = step.decode_seqs as f64;
    surface.at(seqs, keys as f64 / seqs)
}

/// One component of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The component, or one of its kernels.
    pub name: Arc<str>,
    /// Its seconds.
    pub function: Function,
    /// Where they come from.
    pub provenance: Provenance,
    /// Fixed bound of what is no kernel; kernels are bound as in the roofline.
    pub bound: Option<Bound>,
    /// Whether its tokens are those of all engines that share it, in the mean of these engines.
    pub shared: bool,
}

/// Steps of up to so many tokens are looked up by their number.
const TABULATED: u32 = 1024;

/// The terms of one kind of step, and what they add up to.
#[derive(Clone, Debug)]
struct Phase {
    terms: Vec<Term>,
    tokens: Option<Curve>,
    seqs: Option<Curve>,
    sampled: Option<Curve>,
    /// All three by number, for steps in which each request has one token and gets one.
    one_each: Vec<f64>,
    /// All other functions.
    others: Vec<Function>,
    /// Which of them matters alone in decode steps without windows: that of decode attention.
    keys: Option<usize>,
}

impl Phase {
    fn new(terms: Vec<Term>) -> Self {
        let functions = || terms.iter().map(|term| &term.function);
        let tokens = functions().filter_map(|function| match function {
            Function::Tokens(curve) => Some(curve),
            _ => None,
        });
        let seqs = functions().filter_map(|function| match function {
            Function::Seqs(curve) => Some(curve),
            _ => None,
        });
        let sampled = functions().filter_map(|function| match function {
            Function::Sampled(curve) => Some(curve),
            _ => None,
        });
        let others: Vec<Function> = functions()
            .filter(|function| {
                !matches!(function, Function::Tokens(_) | Function::Seqs(_) | Function::Sampled(_))
            })
            .cloned()
            .collect();
        let (tokens, seqs, sampled) = (Curve::sum(tokens), Curve::sum(seqs), Curve::sum(sampled));
        let keys = only_keys(&others);
        let mut phase = Self { tokens, seqs, sampled, one_each: Vec::new(), others, keys, terms };
        phase.one_each = (0..=TABULATED)
            .map(|seqs| {
                let seqs = u64::from(seqs);
                phase.by_numbers(&StepShape {
                    decode_seqs: seqs,
                    sampled_seqs: seqs,
                    ..StepShape::default()
                })
            })
            .collect();
        phase
    }

    #[inline]
    fn at(&self, step: &StepShape) -> f64 {
        let mut seconds = self.numbered(step).unwrap_or_else(|| self.by_numbers(step));
        for function in &self.others {
            seconds += function.at(step);
        }
        seconds
    }

    /// Seconds of a step while the engines that share the experts have `mean_tokens` tokens each.
    fn in_group(&self, step: &StepShape, mean_tokens: f64) -> f64 {
        let of = |term: &Term| match &term.function {
            Function::Tokens(curve) if term.shared => curve.at(mean_tokens),
            own => own.at(step),
        };
        self.terms.iter().map(of).sum()
    }

    /// What depends on numbers alone, where it is tabulated.
    #[inline]
    fn numbered(&self, step: &StepShape) -> Option<f64> {
        if step.prefill_seqs > 0 || step.sampled_seqs != step.decode_seqs {
            return None;
        }
        self.one_each.get(usize::try_from(step.decode_seqs).ok()?).copied()
    }

    /// What depends on the numbers of tokens, requests and samples alone.
    fn by_numbers(&self, step: &StepShape) -> f64 {
        let mut seconds = 0.0;
        if let Some(curve) = &self.tokens {
            seconds += curve.at(step.tokens() as f64);
        }
        if let Some(curve) = &self.seqs {
            seconds += curve.at((step.prefill_seqs + step.decode_seqs) as f64);
        }
        if let Some(curve) = &self.sampled
            && step.sampled_seqs > 0
        {
            seconds += curve.at(step.sampled_seqs as f64);
        }
        seconds
    }
}

/// Where decode attention's function is, if it alone matters in decode steps without windows.
fn only_keys(functions: &[Function]) -> Option<usize> {
    let prefill = |function: &Function| matches!(function, Function::Prefill(_));
    let mut of_decodes = (0..).zip(functions).filter(|(_, function)| !prefill(function));
    match (of_decodes.next(), of_decodes.next()) {
        (Some((place, Function::Decode(_))), None) => Some(place),
        _ => None,
    }
}

/// Compiled step times of one model on one accelerator.
#[derive(Clone, Debug)]
pub struct Table {
    roofline: Roofline,
    decode: Phase,
    mixed: Phase,
}

impl Table {
    /// Compile the terms of pure decode steps and of steps with prompt tokens. `roofline` has the
    /// model's operations and bytes: it decides what bounds a kernel and counts the work.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] where either has no term.
    pub fn new(roofline: Roofline, decode: Vec<Term>, mixed: Vec<Term>) -> Result<Self, SimError> {
        if decode.is_empty() || mixed.is_empty() {
            return Err(operation::invalid(
                "terms",
                "none",
                "must be given for both kinds of step",
            ));
        }
        Ok(Self { roofline, decode: Phase::new(decode), mixed: Phase::new(mixed) })
    }

    /// Seconds of a step.
    #[inline]
    pub fn step_seconds(&self, step: &StepShape) -> f64 {
        self.phase(step).at(step)
    }

    /// Seconds of steps of one token for each of `seqs` requests, by the keys that they read, which
    /// rise from call to call: what [`Table::step_seconds`] gives. None where more than one function
    /// depends on the keys.
    #[inline]
    pub(crate) fn decodes(&self, seqs: u64) -> Option<impl FnMut(u64) -> f64> {
        let Function::Decode(surface) = self.decode.others.get(self.decode.keys?)? else {
            return None;
        };
        let alike = *self.decode.one_each.get(usize::try_from(seqs).ok()?)?;
        let seqs = seqs as f64;
        let mut row = surface.row(seqs).rising();
        // Signed numbers are converted faster.
        Some(move |keys: u64| alike + row(keys.cast_signed() as f64 / seqs))
    }

    /// Seconds of a step in a group whose engines have `group_tokens` tokens in theirs.
    pub fn group_step_seconds(&self, step: &StepShape, group_tokens: u64) -> f64 {
        self.phase(step).in_group(step, self.roofline.mean_tokens(group_tokens))
    }

    /// The model's operations and bytes.
    pub const fn roofline(&self) -> &Roofline {
        &self.roofline
    }

    /// The step's components; their seconds sum to [`Table::step_seconds`].
    pub fn breakdown(&self, step: &StepShape) -> Vec<OperationCost> {
        let analytic = self.roofline.breakdown(step);
        let mut parts: Vec<OperationCost> = Vec::new();
        for term in &self.phase(step).terms {
            let seconds = term.function.at(step);
            if seconds == 0.0 {
                continue;
            }
            if let Some(part) = parts.iter_mut().find(|part| part.name == term.name) {
                part.seconds += seconds;
                part.provenance = part.provenance.max(term.provenance);
                continue;
            }
            let work = analytic.iter().find(|part| part.name == term.name);
            parts.push(OperationCost {
                name: Arc::clone(&term.name),
                operations: work.map_or(0.0, |part| part.operations),
                bytes: work.map_or(0.0, |part| part.bytes),
                seconds,
                bound: term.bound.or_else(|| work.map(|part| part.bound)).unwrap_or(Bound::Latency),
                provenance: term.provenance,
                linear: work.is_some_and(|part| part.linear),
            });
        }
        parts
    }

    #[inline]
    const fn phase(&self, step: &StepShape) -> &Phase {
        if step.prefill_seqs == 0 { &self.decode } else { &self.mixed }
    }
}
