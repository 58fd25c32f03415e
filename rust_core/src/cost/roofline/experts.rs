//! How many distinct experts the tokens of a step wake.

use super::inputs::Mixture;

/// Below this probability an expert counts as awake: the sum would not change in an f64.
const NEGLIGIBLE: f64 = 1e-18;

/// Expected number of distinct experts by number of tokens.
///
/// A token chooses k of E experts; with uniform choices an expert is left alone by T tokens with
/// probability (1 − k/E)^T. Powers come from repeated multiplication, which every machine rounds
/// alike.
#[derive(Clone, Debug, Default)]
pub(super) struct AwakeExperts {
    /// By number of tokens of all engines; more tokens than entries wake all.
    expected: Vec<f64>,
    experts: f64,
    /// Engines whose tokens meet at the experts.
    engines: u64,
}

impl AwakeExperts {
    pub(super) fn new(mixture: &Mixture) -> Self {
        let experts = f64::from(mixture.num_experts);
        let missed = 1.0 - f64::from(mixture.experts_per_token) / experts;
        let mut expected = vec![0.0];
        let mut probability = missed;
        while probability > NEGLIGIBLE {
            expected.push(experts * (1.0 - probability));
            probability *= missed;
        }
        Self { expected, experts, engines: u64::from(mixture.engines) }
    }

    /// Engines whose tokens meet at the experts; at least 1.
    pub(super) fn engines(&self) -> u64 {
        self.engines.max(1)
    }

    /// Distinct experts that `tokens` tokens of each engine wake.
    #[inline]
    pub(super) fn expected(&self, tokens: u64) -> f64 {
        self.of_all(tokens.saturating_mul(self.engines))
    }

    /// Distinct experts that `tokens` tokens of all engines together wake.
    #[inline]
    pub(super) fn of_all(&self, tokens: u64) -> f64 {
        match usize::try_from(tokens) {
            Ok(tokens) => self.expected.get(tokens).copied().unwrap_or(self.experts),
            Err(_) => self.experts,
        }
    }
}
