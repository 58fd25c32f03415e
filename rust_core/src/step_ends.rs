//! When the steps of an engine ended, in little more than four bytes a step.

/// When the steps of an engine ended, in nanoseconds: kept as the time since the step before, with
/// the moment itself every now and then. As of [`Rows`](crate::rows::Rows), the first ones may be
/// dropped while the others keep their numbers.
#[derive(Clone, Debug, Default)]
pub struct StepEnds {
    /// Nanoseconds since the end of the step before, [`LONG`] where it is not less.
    gaps: Vec<u32>,
    /// End of every [`BLOCK`]th step.
    marks: Vec<u64>,
    /// Steps with long gaps.
    long: Vec<Long>,
    last: u64,
    /// Number of the first step that is stored, a multiple of [`BLOCK`].
    stored_from: usize,
}

/// A step that ended long after the one before it.
#[derive(Clone, Copy, Debug)]
struct Long {
    step: u32,
    before: u64,
    end: u64,
}

/// A gap that is kept apart.
const LONG: u32 = u32::MAX;

/// Steps from one mark to the next.
const BLOCK: usize = 64;

impl StepEnds {
    /// Number of steps, the dropped ones included.
    #[inline]
    pub const fn count(&self) -> usize {
        self.stored_from + self.gaps.len()
    }

    /// The next step ends at `end`, later than all before it; [`StepEnds::keep`] must follow.
    #[inline]
    pub(crate) fn push(&mut self, end: u64) {
        match u32::try_from(end - self.last) {
            Ok(gap) if gap < LONG => self.gaps.push(gap),
            _ => self.push_long(end),
        }
        self.last = end;
    }

    /// The next step ends at `end`, later than all before it, and is kept.
    #[inline]
    pub(crate) fn add(&mut self, end: u64) {
        self.reserve(1);
        self.push(end);
        self.mark_new();
    }

    #[cold]
    fn push_long(&mut self, end: u64) {
        // Steps are numbered by u32.
        let step = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.long.push(Long { step, before: self.last, end });
        self.gaps.push(LONG);
    }

    /// Make room for so many more steps: of many for a quarter of those that there are and not for as
    /// many again, since this is most of what a long run keeps.
    #[inline]
    pub(crate) fn reserve(&mut self, steps: u32) {
        if self.gaps.capacity() - self.gaps.len() < steps as usize {
            let steps = self.gaps.len();
            self.gaps.reserve_exact((steps / 4).max(steps.clamp(BLOCK, 4 * BLOCK)));
        }
    }

    /// Keep the first `count` steps, of which the last one ended at `last`, and forget the others:
    /// they were pushed after the latest call.
    #[inline]
    pub(crate) fn keep(&mut self, count: usize, last: u64) {
        if count < self.count() {
            self.gaps.truncate(count - self.stored_from);
            while self.long.last().is_some_and(|long| long.step as usize >= count) {
                self.long.pop();
            }
            self.last = last;
        }
        self.mark_new();
    }

    #[inline]
    fn mark_new(&mut self) {
        if self.marks.len() * BLOCK < self.gaps.len() {
            self.mark();
        }
    }

    /// Add the marks that the latest steps need.
    #[cold]
    fn mark(&mut self) {
        while self.marks.len() * BLOCK < self.gaps.len() {
            let step = self.stored_from + self.marks.len() * BLOCK;
            let long = self.long.partition_point(|long| long.step as usize <= step);
            // Back from the next end that is known: steps are marked soon after they are pushed.
            let (known, end) = match self.long.get(long) {
                Some(long) => (long.step as usize, long.before),
                None => (self.count(), self.last),
            };
            self.marks.push(end - self.sum(step + 1, known));
        }
    }

    /// From the end of the step before `from` to that of the step before `to`; no gap between is
    /// long.
    fn sum(&self, from: usize, to: usize) -> u64 {
        let gaps = &self.gaps[from - self.stored_from..to - self.stored_from];
        gaps.iter().map(|&gap| u64::from(gap)).sum()
    }

    /// When a step ended.
    pub fn at(&self, step: usize) -> u64 {
        let block = step - step % BLOCK;
        let mut known = (block, self.marks[(block - self.stored_from) / BLOCK]);
        let after = self.long.partition_point(|long| long.step as usize <= step);
        if let Some(long) = after.checked_sub(1).and_then(|place| self.long.get(place))
            && long.step as usize > block
        {
            known = (long.step as usize, long.end);
        }
        known.1 + self.sum(known.0 + 1, step + 1)
    }

    /// Ends of the steps from `first` on.
    pub fn ends_from(&self, first: usize) -> impl Iterator<Item = u64> {
        let before = match self.marks.first() {
            _ if first > self.stored_from => self.at(first - 1),
            // A long gap is not looked at.
            Some(&mark) => mark.saturating_sub(u64::from(self.gaps[0])),
            None => 0,
        };
        self.ends_after(first, before)
    }

    /// Ends of the steps from `first` on, where the one before it ended at `before`.
    #[inline]
    pub(crate) fn ends_after(&self, first: usize, before: u64) -> impl Iterator<Item = u64> {
        let mut end = before;
        (first..).zip(&self.gaps[first - self.stored_from..]).map(move |(step, &gap)| {
            end = if gap == LONG { self.long_end(step) } else { end + u64::from(gap) };
            end
        })
    }

    #[cold]
    fn long_end(&self, step: usize) -> u64 {
        let place = self.long.partition_point(|long| (long.step as usize) < step);
        self.long[place].end
    }

    /// Drop steps before that one, once they are as many as stay.
    pub(crate) fn drop_before(&mut self, step: u32) {
        let first = (step as usize - step as usize % BLOCK).min(self.count() / BLOCK * BLOCK);
        let dropped = first.saturating_sub(self.stored_from);
        if dropped > self.gaps.len() / 2 {
            self.gaps.drain(..dropped);
            self.marks.drain(..dropped / BLOCK);
            self.long.retain(|long| long.step as usize >= first);
            self.stored_from = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_what_was_pushed(
            gaps in prop::collection::vec(
                prop_oneof![8 => 1_u64..1000, 1 => (1_u64 << 32) - 3..(1 << 32) + 2, 1 => Just(1 << 40)],
                1..400,
            ),
            kept in 0_usize..=4,
        ) {
            let mut now = 0;
            let mut expected: Vec<u64> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let mut ends = StepEnds::default();
            for (step, &end) in expected.iter().enumerate() {
                ends.push(end);
                if step % 9 == 0 {
                    ends.keep(step + 1, end);
                }
            }
            ends.keep(expected.len(), now);
            for (round, dropped) in [0, gaps.len() * 2 / 3].into_iter().enumerate() {
                ends.drop_before(u32::try_from(dropped).unwrap());
                prop_assert_eq!(ends.count(), expected.len());
                for (step, &end) in expected.iter().enumerate().skip(dropped) {
                    prop_assert_eq!(ends.at(step), end);
                }
                for first in [dropped, (2 * dropped + expected.len()) / 3, expected.len()] {
                    prop_assert_eq!(ends.ends_from(first).collect::<Vec<_>>(), &expected[first..]);
                }
                if round == 0 {
                    let ahead = [now + 1, now + (1 << 33), now + (1 << 34), now + (1 << 34) + 1];
                    for end in ahead {
                        ends.push(end);
                    }
                    expected.extend(&ahead[..kept]);
                    ends.keep(expected.len(), expected[expected.len() - 1]);
                    let next = expected[expected.len() - 1] + 7;
                    expected.push(next);
                    ends.push(next);
                    ends.keep(expected.len(), next);
                }
            }
        }
    }
}
