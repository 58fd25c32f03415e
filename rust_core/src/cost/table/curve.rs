//! Piecewise-linear functions of one number.

use crate::cost::operation::invalid;
use crate::error::SimError;

/// Buckets in an octave of the argument.
const BUCKETS_LOG2: u32 = 3;

/// Where the knots of an axis are: the segment of an argument in a few instructions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    knots: Vec<f64>,
    /// By the leading bits of the argument: the first segment that can hold it.
    first: Vec<u32>,
    /// Leading bits of the first knot.
    lowest: u64,
}

/// The bits of a positive number that tell its bucket.
const fn bucket(x: f64) -> u64 {
    x.to_bits() >> (f64::MANTISSA_DIGITS - 1 - BUCKETS_LOG2)
}

impl Axis {
    /// An axis of rising knots, all positive.
    pub(super) fn new(name: &'static str, knots: Vec<f64>) -> Result<Self, SimError> {
        let rising = knots.windows(2).all(|pair| pair[0] < pair[1]);
        if knots.len() < 2 || !rising || !knots.iter().all(|x| x.is_finite() && *x > 0.0) {
            let text = format!("{knots:?}");
            return Err(invalid(name, &text, "must have two rising positive knots or more"));
        }
        let (lowest, highest) = (bucket(knots[0]), bucket(knots[knots.len() - 1]));
        let mut first = Vec::new();
        let mut segment = 0;
        for at in lowest..=highest {
            while segment + 2 < knots.len() && bucket(knots[segment + 1]) < at {
                segment += 1;
            }
            first.push(u32::try_from(segment).unwrap_or(u32::MAX));
        }
        Ok(Self { knots, first, lowest })
    }

    pub(super) fn knots(&self) -> &[f64] {
        &self.knots
    }

    /// Where a segment ends; the last one never does.
    #[inline]
    pub(super) fn end(&self, segment: usize) -> f64 {
        if segment + 2 < self.knots.len() { self.knots[segment + 1] } else { f64::INFINITY }
    }

    /// The segment that holds `x`; the outermost ones hold what lies beyond.
    #[inline]
    pub(super) fn segment(&self, x: f64) -> usize {
        let last = self.knots.len() - 2;
        if x >= self.knots[last] {
            return last;
        }
        let Some(at) = bucket(x).checked_sub(self.lowest) else { return 0 };
        let Ok(at) = usize::try_from(at) else { return last };
        let Some(&first) = self.first.get(at) else { return last };
        let mut segment = first as usize;
        while x >= self.knots[segment + 1] {
            segment += 1;
        }
        segment
    }
}

/// A piecewise-linear function: constant before the first knot, as in the last segment beyond the
/// last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    axis: Axis,
    values: Vec<f64>,
    /// (value at 0, slope) of each segment's line.
    lines: Vec<(f64, f64)>,
}

impl Curve {
    /// A function through (knot, value) points.
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for knots that do not rise, lengths that differ and values that
    /// are negative, fall or are not finite.
    pub fn new(knots: Vec<f64>, values: Vec<f64>) -> Result<Self, SimError> {
        let axis = Axis::new("knots", knots)?;
        if values.len() != axis.knots.len() {
            return Err(invalid("values", &values.len(), "must be as many as the knots"));
        }
        check_values(&values)?;
        if values.windows(2).any(|pair| pair[1] < pair[0]) {
            return Err(invalid("values", &format!("{values:?}"), "must not fall"));
        }
        let lines = (0..values.len() - 1)
            .map(|i| {
                let (left, right) = (axis.knots[i], axis.knots[i + 1]);
                let slope = (values[i + 1] - values[i]) / (right - left);
                (values[i] - slope * left, slope)
            })
            .collect();
        Ok(Self { axis, values, lines })
    }

    /// The function's value.
    #[inline]
    pub fn at(&self, x: f64) -> f64 {
        if x <= self.axis.knots[0] {
            return self.values[0];
        }
        let (constant, slope) = self.lines[self.axis.segment(x)];
        constant + slope * x
    }

    /// The sum of functions, exact at all their knots.
    pub(super) fn sum<'a>(curves: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let curves: Vec<&Self> = curves.collect();
        let mut knots: Vec<f64> =
            curves.iter().flat_map(|curve| curve.axis.knots.iter().copied()).collect();
        knots.sort_unstable_by(f64::total_cmp);
        knots.dedup();
        if knots.is_empty() {
            return None;
        }
        // One knot further, so that the last segment has the summed slopes beyond all knots.
        knots.push(knots[knots.len() - 1] * 2.0);
        let values: Vec<f64> =
            knots.iter().map(|&x| curves.iter().map(|curve| curve.at(x)).sum()).collect();
        // Rounding may let a flat sum fall by an ulp.
        let rising = values
            .iter()
            .scan(0.0_f64, |highest, &value| {
                *highest = highest.max(value);
                Some(*highest)
            })
            .collect();
        Self::new(knots, rising).ok()
    }
}

/// Values must be times.
pub(super) fn check_values(values: &[f64]) -> Result<(), SimError> {
    match values.iter().find(|value| !value.is_finite() || **value < 0.0) {
        Some(value) => Err(invalid("values", value, "must be finite and at least 0")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_through_its_points_and_on() {
        let curve = Curve::new(vec![1.0, 2.0, 100.0, 101.0], vec![1.0, 3.0, 3.0, 5.0]).unwrap();
        let expected = [
            (0.5, 1.0),
            (1.0, 1.0),
            (1.5, 2.0),
            (2.0, 3.0),
            (50.0, 3.0),
            (100.5, 4.0),
            (103.0, 9.0),
        ];
        for (x, value) in expected {
            assert!((curve.at(x) - value).abs() < 1e-12, "{x}: {}", curve.at(x));
        }
    }

    #[test]
    fn every_segment_is_found() {
        let knots: Vec<f64> = (1..500).map(f64::from).map(|x| x * x / 7.0 + 0.9).collect();
        let axis = Axis::new("knots", knots.clone()).unwrap();
        for pair in knots.windows(2) {
            let middle = f64::midpoint(pair[0], pair[1]);
            let segment = axis.segment(middle);
            assert!(axis.knots[segment] <= middle && middle < axis.knots[segment + 1]);
            assert!((axis.knots[axis.segment(pair[0])] - pair[0]).abs() < 1e-12);
        }
        assert_eq!(axis.segment(0.1), 0);
        assert_eq!(axis.segment(1e12), knots.len() - 2);
    }

    #[test]
    fn a_sum_is_the_sum_beyond_the_knots_too() {
        let a = Curve::new(vec![1.0, 10.0], vec![1.0, 2.0]).unwrap();
        let b = Curve::new(vec![2.0, 4.0, 8.0], vec![0.0, 1.0, 9.0]).unwrap();
        let both = [&a, &b];
        let sum = Curve::sum(both.into_iter()).unwrap();
        for x in [0.5, 1.0, 3.0, 7.0, 9.0, 15.0, 40.0] {
            assert!((sum.at(x) - a.at(x) - b.at(x)).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Curve::new(vec![1.0, 1.0], vec![1.0, 2.0]).is_err());
        assert!(Curve::new(vec![1.0, 2.0], vec![2.0, 1.0]).is_err());
        assert!(Curve::new(vec![1.0, 2.0], vec![f64::NAN, 1.0]).is_err());
        assert!(Curve::new(vec![0.0, 2.0], vec![0.0, 1.0]).is_err());
        assert!(Curve::new(vec![1.0, 2.0], vec![1.0]).is_err());
    }
}
