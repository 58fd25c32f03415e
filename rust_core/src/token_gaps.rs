//! Gaps between consecutive tokens, pooled over requests, without writing them out.
//!
//! While a request decodes it gets a token in every step, so its gaps are differences of step ends.
//! Each step needs only the number of requests that got a token both in it and in the one before:
//! a run with a hundred million steps keeps four bytes a step.

use crate::recorder::RequestColumns;
use crate::step_ends::StepEnds;

/// Bits that one pass of a selection decides.
const DIGIT_BITS: u32 = 16;
const DIGITS: usize = 1 << DIGIT_BITS;

/// How often each gap occurs.
#[derive(Clone, Debug, Default)]
pub struct TokenGaps {
    /// By engine and step: requests that got a token in this step and in the one before.
    continued: Vec<Vec<u32>>,
    /// Gaps of requests that were interrupted, in nanoseconds.
    interrupted: Vec<u64>,
    count: u64,
}

impl TokenGaps {
    /// The gaps of the completed requests that `counted` selects.
    pub fn new(
        requests: &RequestColumns,
        step_ends: &[&StepEnds],
        counted: impl Fn(usize) -> bool,
    ) -> Self {
        // First how many requests more than in the step before, then the running sum of it.
        let mut continued: Vec<Vec<u32>> =
            step_ends.iter().map(|ends| vec![0; ends.count() + 1]).collect();
        let mut interrupted = Vec::new();
        let mut previous = None;
        requests.for_each_span(counted, |engine, span| {
            let changes = &mut continued[engine];
            let (first, last) = (span.first as usize, span.last as usize);
            changes[first + 1] = changes[first + 1].wrapping_add(1);
            changes[last + 1] = changes[last + 1].wrapping_sub(1);
            if let Some((request, end)) = previous
                && request == span.request
            {
                interrupted.push(step_ends[engine].at(first) - end);
            }
            previous = Some((span.request, step_ends[engine].at(last)));
        });
        let mut count = interrupted.len() as u64;
        for changes in &mut continued {
            let mut requests: u32 = 0;
            for change in changes.iter_mut() {
                requests = requests.wrapping_add(*change);
                *change = requests;
                count += u64::from(requests);
            }
        }
        Self { continued, interrupted, count }
    }

    /// Number of gaps.
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn for_each(&self, step_ends: &[&StepEnds], mut take: impl FnMut(u64, u64)) {
        for &gap in &self.interrupted {
            take(gap, 1);
        }
        for (ends, continued) in step_ends.iter().zip(&self.continued) {
            let mut before = 0;
            for (end, &times) in ends.ends_from(0).zip(continued) {
                if times > 0 {
                    take(end - before, u64::from(times));
                }
                before = end;
            }
        }
    }

    /// Mean and population standard deviation in nanoseconds; None without gaps.
    pub fn mean_and_deviation(&self, step_ends: &[&StepEnds]) -> Option<(f64, f64)> {
        if self.count == 0 {
            return None;
        }
        let mut sum: u128 = 0;
        self.for_each(step_ends, |gap, times| sum += u128::from(gap) * u128::from(times));
        let mean = sum as f64 / self.count as f64;
        let mut squares = 0.0;
        self.for_each(step_ends, |gap, times| {
            let distance = gap as f64 - mean;
            squares += distance * distance * times as f64;
        });
        Some((mean, (squares / self.count as f64).sqrt()))
    }

    /// The gaps of these ranks (0: the shortest), each below the count.
    ///
    /// A radix selection: each pass counts the next digit among the gaps that begin like the wanted
    /// ones, so nothing is sorted and nothing is copied.
    pub fn at_ranks(&self, step_ends: &[&StepEnds], ranks: &[u64]) -> Vec<u64> {
        let mut longest = 0;
        self.for_each(step_ends, |gap, _| longest = longest.max(gap));
        let bits = u64::BITS - longest.leading_zeros();
        let mut shift = bits.next_multiple_of(DIGIT_BITS);
        let mut selections: Vec<Selection> =
            ranks.iter().map(|&rank| Selection::new(rank)).collect();
        while shift > 0 {
            shift -= DIGIT_BITS;
            self.select_digit(step_ends, shift, &mut selections);
        }
        selections.into_iter().map(|selection| selection.prefix).collect()
    }

    fn select_digit(&self, step_ends: &[&StepEnds], shift: u32, selections: &mut [Selection]) {
        let mut prefixes: Vec<u64> = selections.iter().map(|selection| selection.prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut histograms = vec![vec![0_u64; DIGITS]; prefixes.len()];
        self.for_each(step_ends, |gap, times| {
            let prefix = gap.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
            if let Some(place) = prefixes.iter().position(|&other| other == prefix) {
                histograms[place][digit_of(gap, shift)] += times;
            }
        });
        for selection in selections {
            let place = prefixes.iter().position(|&prefix| prefix == selection.prefix);
            selection.descend(&histograms[place.unwrap_or(0)]);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn digit_of(gap: u64, shift: u32) -> usize {
    (gap >> shift) as usize & (DIGITS - 1)
}

/// A value that is being found, digit by digit.
struct Selection {
    /// Rank among the gaps that begin like it.
    rank: u64,
    /// The digits found so far.
    prefix: u64,
}

impl Selection {
    const fn new(rank: u64) -> Self {
        Self { rank, prefix: 0 }
    }

    fn descend(&mut self, histogram: &[u64]) {
        let mut digit = 0;
        for &times in histogram {
            if self.rank < times {
                break;
            }
            self.rank -= times;
            digit += 1;
        }
        self.prefix = self.prefix << DIGIT_BITS | digit;
    }
}
