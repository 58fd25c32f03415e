//! The operations of a model's step, as coefficients of the step's sums.
//!
//! Which operations a model has is the caller's knowledge (`docs/cost_model.md`); here they are
//! numbers only.

use std::sync::Arc;

use super::StepShape;
use crate::error::SimError;

pub(super) const ONE: usize = 0;
pub(super) const TOKENS: usize = 1;
pub(super) const SEQS: usize = 2;
pub(super) const SAMPLED: usize = 3;
pub(super) const DECODE_SEQS: usize = 4;
pub(super) const DECODE_CONTEXT: usize = 5;
pub(super) const DECODE_WINDOW: usize = 6;
pub(super) const EXPERTS: usize = 7;
const PREFILL_TOKENS: usize = 8;
const PREFILL_PAIRS: usize = 9;
const PREFILL_CONTEXT: usize = 10;
const PREFILL_WINDOW_PAIRS: usize = 11;
const PREFILL_WINDOW: usize = 12;
const FEATURES: usize = 13;

/// Names of the sums that operations are linear in.
pub const FEATURE_NAMES: [&str; FEATURES] = [
    "one",
    "tokens",
    "seqs",
    "sampled_seqs",
    "decode_seqs",
    "decode_context_tokens",
    "decode_window_tokens",
    "experts",
    "prefill_tokens",
    "prefill_attention_pairs",
    "prefill_context_tokens",
    "prefill_window_pairs",
    "prefill_window_tokens",
];

/// One number for each feature: coefficients, or the features of a step.
pub(super) type Linear = [f64; FEATURES];

/// The features of a step, or of `steps` steps; `experts` is how many distinct ones they wake.
pub(super) fn features(step: &StepShape, steps: u64, experts: f64) -> Linear {
    let mut x = [0.0; FEATURES];
    x[ONE] = steps as f64;
    x[TOKENS] = step.tokens() as f64;
    x[SEQS] = (step.prefill_seqs + step.decode_seqs) as f64;
    x[SAMPLED] = step.sampled_seqs as f64;
    x[DECODE_SEQS] = step.decode_seqs as f64;
    x[DECODE_CONTEXT] = step.decode_context_tokens as f64;
    x[DECODE_WINDOW] = step.decode_window_tokens as f64;
    x[EXPERTS] = experts;
    x[PREFILL_TOKENS] = step.prefill_tokens as f64;
    x[PREFILL_PAIRS] = step.prefill_attention_pairs as f64;
    x[PREFILL_CONTEXT] = step.prefill_context_tokens as f64;
    x[PREFILL_WINDOW_PAIRS] = step.prefill_window_pairs as f64;
    x[PREFILL_WINDOW] = step.prefill_window_tokens as f64;
    x
}

pub(super) fn dot(coefficients: &Linear, x: &Linear) -> f64 {
    let mut sum = 0.0;
    for (coefficient, value) in coefficients.iter().zip(x) {
        sum += coefficient * value;
    }
    sum
}

/// The steps in which an operation runs at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Every step.
    Always,
    /// Steps with prompt tokens.
    WithPrefill,
    /// Steps with decoding requests.
    WithDecode,
    /// Steps that give some request a token.
    WithSampling,
}

impl Runs {
    pub(super) const fn in_step(self, step: &StepShape) -> bool {
        match self {
            Self::Always => true,
            Self::WithPrefill => step.prefill_tokens > 0,
            Self::WithDecode => step.decode_seqs > 0,
            Self::WithSampling => step.sampled_seqs > 0,
        }
    }

    /// The variant with this name.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for other names.
    pub fn parse(name: &str) -> Result<Self, SimError> {
        match name {
            "always" => Ok(Self::Always),
            "prefill" => Ok(Self::WithPrefill),
            "decode" => Ok(Self::WithDecode),
            "sampling" => Ok(Self::WithSampling),
            _ => Err(invalid("runs", name, "must be always, prefill, decode or sampling")),
        }
    }
}

/// How an operation's time follows from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel at the rate of the layers' matrices.
    LinearKernel,
    /// A kernel at the rate of 16-bit operands.
    Kernel,
    /// An all-reduce; its bytes are the payload.
    AllReduce,
    /// An all-gather; its bytes are what one accelerator receives.
    AllGather,
    /// An all-to-all; its bytes are what one accelerator sends.
    AllToAll,
}

impl Kind {
    /// The variant with this name.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for other names.
    pub fn parse(name: &str) -> Result<Self, SimError> {
        match name {
            "linear_kernel" => Ok(Self::LinearKernel),
            "kernel" => Ok(Self::Kernel),
            "all_reduce" => Ok(Self::AllReduce),
            "all_gather" => Ok(Self::AllGather),
            "all_to_all" => Ok(Self::AllToAll),
            _ => Err(invalid(
                "kind",
                name,
                "must be linear_kernel, kernel, all_reduce, all_gather or all_to_all",
            )),
        }
    }

    pub(super) const fn is_kernel(self) -> bool {
        matches!(self, Self::LinearKernel | Self::Kernel)
    }
}

/// One operation of a model.
#[derive(Clone, Debug)]
pub struct Operation {
    pub(super) name: Arc<str>,
    pub(super) runs: Runs,
    pub(super) kind: Kind,
    /// How often it runs in a step.
    pub(super) repeat: f64,
    /// Whether its tokens are those of all engines that share it, in the mean of these engines.
    pub(super) shared: bool,
    /// Floating-point operations of one run.
    pub(super) operations: Linear,
    /// Bytes of one run.
    pub(super) bytes: Linear,
}

impl Operation {
    /// An operation that runs `repeat` times a step; work is given as (feature, coefficient).
    /// A `shared` one, whose features are tokens and experts, serves several engines' tokens.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for an unknown feature and for numbers that are negative or not
    /// finite.
    pub fn new(
        name: &str,
        runs: Runs,
        kind: Kind,
        repeat: f64,
        shared: bool,
        operations: &[(String, f64)],
        bytes: &[(String, f64)],
    ) -> Result<Self, SimError> {
        check_not_negative("repeat", repeat)?;
        Ok(Self {
            name: name.into(),
            runs,
            kind,
            repeat,
            shared,
            operations: linear(operations)?,
            bytes: linear(bytes)?,
        })
    }
}

/// Coefficients from the few that are not 0.
fn linear(terms: &[(String, f64)]) -> Result<Linear, SimError> {
    let mut coefficients = [0.0; FEATURES];
    for (feature, value) in terms {
        let Some(index) = FEATURE_NAMES.iter().position(|name| name == feature) else {
            return Err(invalid("feature", feature, "is not one of the step's sums"));
        };
        check_not_negative("coefficient", *value)?;
        coefficients[index] += value;
    }
    Ok(coefficients)
}

pub(super) fn check_not_negative(field: &'static str, value: f64) -> Result<(), SimError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(invalid(field, &value, "must be finite and at least 0"))
}

pub(super) fn check_positive(field: &'static str, value: f64) -> Result<(), SimError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(invalid(field, &value, "must be finite and above 0"))
}

pub(super) fn invalid(
    field: &'static str,
    value: &(impl ToString + ?Sized),
    remedy: &'static str,
) -> SimError {
    SimError::InvalidSetting { field, value: value.to_string(), remedy }
}
