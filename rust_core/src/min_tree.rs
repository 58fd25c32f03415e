//! The least of many values that change one at a time.

/// Children of a node: their values fill a cache line.
const FAN: usize = 8;

/// Eight values in one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Line([u64; FAN]);

impl Line {
    #[inline]
    fn least(&self) -> u64 {
        self.0.iter().fold(u64::MAX, |least, &value| if value < least { value } else { least })
    }

    /// The first place with a value, which there is: found without a branch to guess wrong.
    #[inline]
    fn first_with(&self, value: u64) -> usize {
        (0..FAN).rev().fold(0, |first, place| if self.0[place] == value { place } else { first })
    }
}

/// A tree of eights: each node is the least of eight values side by side, so that a change among
/// 4,096 values looks at four cache lines at most.
#[derive(Clone, Debug)]
pub(crate) struct MinTree {
    /// The values themselves, then the leasts of each eight of them, and so on up to one line.
    lines: Vec<Line>,
    /// Where each level begins.
    levels: Vec<usize>,
    /// Places; one alone is `first`, and has no use for the lines.
    count: usize,
    /// The least value, and the lowest of the places that have it.
    first: (u64, u32),
}

impl MinTree {
    /// `count` places, all with the same value.
    pub(crate) fn new(count: usize, value: u64) -> Self {
        let (mut lines, mut levels) = (Vec::new(), Vec::new());
        let mut width = count;
        loop {
            levels.push(lines.len());
            let mut left = width;
            for _ in 0..width.div_ceil(FAN).max(1) {
                let full = left.min(FAN);
                let mut line = Line([u64::MAX; FAN]);
                line.0[..full].fill(value);
                lines.push(line);
                left -= full;
            }
            if width <= FAN {
                return Self { lines, levels, count, first: (value, 0) };
            }
            width = width.div_ceil(FAN);
        }
    }

    /// The least value, and the lowest of the places that have it.
    #[inline]
    pub(crate) const fn first(&self) -> (u64, u32) {
        self.first
    }

    /// The value of a place.
    #[inline]
    pub(crate) fn get(&self, place: u32) -> u64 {
        if self.count == 1 {
            return self.first.0;
        }
        self.lines[place as usize / FAN].0[place as usize % FAN]
    }

    /// Change the value of a place.
    #[inline]
    pub(crate) fn set(&mut self, place: u32, value: u64) {
        if self.count == 1 {
            self.first.0 = value;
        } else {
            self.set_among(place, value);
        }
    }

    fn set_among(&mut self, place: u32, value: u64) {
        let (mut at, mut least) = (place as usize, value);
        for (height, &level) in self.levels.iter().enumerate() {
            let line = &mut self.lines[level + at / FAN];
            let held = std::mem::replace(&mut line.0[at % FAN], least);
            at /= FAN;
            let Some(above) = self.levels.get(height + 1) else { break };
            let known = self.lines[above + at / FAN].0[at % FAN];
            if least >= known {
                if held > known {
                    // It was not the least of its line, and is not now.
                    break;
                }
                least = self.lines[level + at].least();
            }
        }
        if place == self.first.1 && value > self.first.0 {
            self.first = self.find_first();
        } else {
            self.first = self.first.min((value, place));
        }
    }

    fn find_first(&self) -> (u64, u32) {
        let mut at = 0;
        let least = self.lines[self.lines.len() - 1].least();
        for &level in self.levels.iter().rev() {
            let line = &self.lines[level + at];
            at = at * FAN + line.first_with(least);
        }
        // Places are numbered by u32.
        (least, u32::try_from(at).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_scan(
            count in 1_usize..700,
            changes in prop::collection::vec((0_usize..700, 0_u64..6), 0..200),
        ) {
            let mut tree = MinTree::new(count, 3);
            let mut values = vec![3; count];
            for (place, value) in changes {
                let place = place % count;
                values[place] = value;
                tree.set(u32::try_from(place).unwrap(), value);
                let least = values.iter().copied().min().unwrap();
                let lowest = values.iter().position(|&value| value == least).unwrap();
                prop_assert_eq!(tree.first(), (least, u32::try_from(lowest).unwrap()));
                prop_assert_eq!(tree.get(u32::try_from(place).unwrap()), value);
            }
        }
    }
}
