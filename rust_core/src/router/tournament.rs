//! The engine with the least to do, in logarithmic time.

use crate::min_tree::MinTree;

/// What each engine has to do, and who has the least, so that no request looks at all engines.
#[derive(Clone, Debug)]
pub(crate) struct Tournament {
    loads: Vec<u64>,
    /// The same, but for engines that take no requests: these never win.
    contest: MinTree,
}

impl Tournament {
    pub(crate) fn new(engines: usize) -> Self {
        Self { loads: vec![0; engines], contest: MinTree::new(engines, 0) }
    }

    /// The engine with the least to do; the lowest among equals.
    #[inline]
    pub(crate) const fn winner(&self) -> u32 {
        self.contest.first().1
    }

    /// What an engine has to do.
    #[inline]
    pub(crate) fn load(&self, engine: u32) -> u64 {
        self.loads[engine as usize]
    }

    #[inline]
    pub(crate) fn is_down(&self, engine: u32) -> bool {
        self.contest.get(engine) == DOWN
    }

    /// An engine takes requests from now on, or none.
    pub(crate) fn set_up(&mut self, engine: u32, up: bool) {
        self.contest.set(engine, if up { self.load(engine) } else { DOWN });
    }

    /// An engine has more to do.
    #[inline]
    pub(crate) fn add(&mut self, engine: u32, load: u64) {
        self.loads[engine as usize] += load;
        self.replay(engine);
    }

    /// An engine has less to do.
    #[inline]
    pub(crate) fn remove(&mut self, engine: u32, load: u64) {
        self.loads[engine as usize] -= load;
        self.replay(engine);
    }

    #[inline]
    fn replay(&mut self, engine: u32) {
        if !self.is_down(engine) {
            self.contest.set(engine, self.load(engine));
        }
    }
}

/// The load of an engine that takes no requests; no other has so much to do.
const DOWN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_scan(
            engines in 1_usize..40,
            answers in prop::collection::vec(0_usize..40, 0..200),
        ) {
            let mut router = Tournament::new(engines);
            let mut outstanding = vec![0_u64; engines];
            for answer in answers {
                let expected = (0..engines).min_by_key(|&engine| (outstanding[engine], engine)).unwrap();
                let engine = router.winner() as usize;
                prop_assert_eq!(engine, expected);
                outstanding[engine] += 1;
                router.add(u32::try_from(engine).unwrap(), 1);
                let done = answer % engines;
                if answer % 3 == 0 {
                    router.remove(u32::try_from(done).unwrap(), outstanding[done]);
                    outstanding[done] = 0;
                }
            }
        }
    }
}
