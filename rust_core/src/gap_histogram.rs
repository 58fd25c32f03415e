//! Gaps between consecutive tokens of a streamed run, in buckets instead of kept.
//!
//! As in [`token_gaps`](crate::token_gaps) a request's gaps are differences of step ends, and each
//! step needs only the number of requests that got a token both in it and in the one before. Once
//! no request can change that number any more, the gap goes into a bucket and the step is forgotten.
//! What is kept are sums and counts of whole numbers: the order of the steps does not matter.

use crate::rows::Rows;
use crate::scheduler::Span;
use crate::step_ends::StepEnds;

/// Bits of the mantissa that tell buckets of one octave apart: the middle of a bucket is off by at
/// most 1 / 1024 of any value in it.
const FRACTION_BITS: u32 = 9;
/// Buckets of 64 octaves, and one for 0.
pub const BUCKETS: usize = (64 << FRACTION_BITS) + 1;

/// Exact sums of the gaps, and how many lie in each bucket.
#[derive(Clone, Debug)]
pub struct GapHistogram {
    /// By bucket; bucket 0 is for 0, bucket 1 begins at 1 ns.
    pub buckets: Vec<u64>,
    /// Gaps.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum: u128,
    /// The sum of their squares; exact up to 2^128.
    pub squares: u128,
    /// The shortest.
    pub least: u64,
    /// The longest.
    pub most: u64,
}

impl Default for GapHistogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, squares: 0, least: u64::MAX, most: 0 }
    }
}

impl GapHistogram {
    /// Count a gap so many times.
    pub fn add(&mut self, gap: u64, times: u64) {
        self.buckets[bucket_of(gap)] += times;
        self.count += times;
        let (gap_wide, times) = (u128::from(gap), u128::from(times));
        self.sum += gap_wide * times;
        self.squares = self.squares.saturating_add((gap_wide * gap_wide).saturating_mul(times));
        self.least = self.least.min(gap);
        self.most = self.most.max(gap);
    }

    /// Count the gaps of another one too.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.squares = self.squares.saturating_add(other.squares);
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }
}

/// The exponent and the first bits of the mantissa.
#[expect(clippy::cast_possible_truncation, reason = "below the number of buckets")]
fn bucket_of(gap: u64) -> usize {
    if gap == 0 {
        return 0;
    }
    let place = (gap as f64).to_bits() >> (f64::MANTISSA_DIGITS - 1 - FRACTION_BITS);
    1 + (place - (1023 << FRACTION_BITS)) as usize
}

/// The steps of one engine that some request may still be counted in.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenSteps {
    /// By step: how many more requests than in the step before got a token in it and in that one.
    changes: Rows<i32>,
    /// The running sum of the changes of all steps that were forgotten.
    continued: i64,
    /// Steps before this one change no more.
    closed: u32,
}

impl OpenSteps {
    /// A request got a token in each of these steps.
    pub(crate) fn add(&mut self, span: Span) {
        let missing = (span.last as usize + 2).saturating_sub(self.changes.end());
        self.changes.extend_with(0, missing);
        self.changes[span.first + 1] += 1;
        self.changes[span.last + 1] -= 1;
    }

    /// Requests that will be added got no token before that step.
    pub(crate) fn close(&mut self, before: u32) {
        self.closed = self.closed.max(before);
    }

    /// No request will be added.
    pub(crate) fn close_all(&mut self) {
        // Steps are numbered by u32.
        self.close(u32::try_from(self.changes.end()).unwrap_or(u32::MAX));
    }

    /// Count the gaps that change no more, and forget their steps; the first step whose end is still
    /// needed.
    pub(crate) fn count(&mut self, ends: &StepEnds, histogram: &mut GapHistogram) -> u32 {
        let missing = (self.closed as usize).saturating_sub(self.changes.end());
        self.changes.extend_with(0, missing);
        let steps = self.changes.first()..self.closed;
        if steps.is_empty() {
            return self.closed.saturating_sub(1);
        }
        // No request got a token before step 0.
        let mut before = steps.start.checked_sub(1).map_or(0, |step| ends.at(step as usize));
        for (step, end) in steps.clone().zip(ends.ends_after(steps.start as usize, before)) {
            self.continued += i64::from(self.changes[step]);
            if self.continued > 0 {
                histogram.add(end - before, self.continued.cast_unsigned());
            }
            before = end;
        }
        self.changes.drop_before(self.closed);
        self.closed.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_bucket_is_near_everything_in_it() {
        for value in [1_u64, 2, 3, 511, 1023, 1024, 999_983, 123_456_789_012, 1 << 62] {
            let begins = |bucket: usize| {
                let place = (bucket as u64 - 1) + (1023 << FRACTION_BITS);
                f64::from_bits(place << (52 - FRACTION_BITS))
            };
            let bucket = bucket_of(value);
            let middle = f64::midpoint(begins(bucket), begins(bucket + 1));
            assert!((middle / value as f64 - 1.0).abs() <= 1.0 / 1024.0, "{value}");
        }
        assert_eq!((bucket_of(0), bucket_of(1)), (0, 1));
        assert_eq!(bucket_of(u64::MAX >> 1), BUCKETS - (1 << FRACTION_BITS));
    }

    #[test]
    fn steps_that_are_counted_early_give_the_same_gaps() {
        let mut ends = StepEnds::default();
        for end in [10, 30, 60, 100, 150] {
            ends.push(end);
        }
        ends.keep(5, 150);
        let span = |first, last| Span { request: 0, first, last };
        let (mut whole, mut pieces) = (GapHistogram::default(), GapHistogram::default());
        let mut open = OpenSteps::default();
        for each in [span(0, 3), span(1, 2), span(3, 4)] {
            open.add(each);
        }
        open.close(5);
        open.count(&ends, &mut whole);
        let mut open = OpenSteps::default();
        open.add(span(0, 3));
        open.close(1);
        assert_eq!(open.count(&ends, &mut pieces), 0);
        open.add(span(1, 2));
        open.close(3);
        assert_eq!(open.count(&ends, &mut pieces), 2);
        open.add(span(3, 4));
        open.close(5);
        open.count(&ends, &mut pieces);
        assert_eq!((whole.count, whole.sum), (5, 20 + 30 + 40 + 30 + 50));
        assert_eq!((pieces.buckets, pieces.sum), (whole.buckets, whole.sum));
    }
}
