//! The engine with the fewest unanswered requests, in logarithmic time.

/// A tournament over the engines: each inner node holds the winner of its two children, so a change
/// replays the matches on one path and no request looks at all engines.
#[derive(Clone, Debug)]
pub(crate) struct LeastOutstanding {
    /// Unanswered requests by engine, padded to a power of two with engines that never win.
    outstanding: Vec<usize>,
    /// Winners; node 1 is the final, node i has children 2i and 2i + 1.
    winners: Vec<u32>,
}

impl LeastOutstanding {
    pub(crate) fn new(engines: usize) -> Self {
        let leaves = engines.next_power_of_two();
        let mut outstanding = vec![usize::MAX; leaves];
        outstanding[..engines].fill(0);
        let mut winners = vec![0; 2 * leaves];
        for (leaf, engine) in (leaves..2 * leaves).zip(0_u32..) {
            winners[leaf] = engine;
        }
        let mut router = Self { outstanding, winners };
        for node in (1..leaves).rev() {
            router.play(node);
        }
        router
    }

    pub(crate) fn route(&mut self) -> u32 {
        let engine = self.winners[1];
        self.outstanding[engine as usize] += 1;
        self.replay(engine);
        engine
    }

    pub(crate) fn answered(&mut self, engine: u32, count: usize) {
        if count > 0 {
            self.outstanding[engine as usize] -= count;
            self.replay(engine);
        }
    }

    fn replay(&mut self, engine: u32) {
        let leaf = self.outstanding.len() + engine as usize;
        let mut node = leaf >> 1;
        while node >= 1 {
            self.play(node);
            node /= 2;
        }
    }

    /// The left child has the lower engines, so it wins a draw.
    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let load = |engine: u32| self.outstanding[engine as usize];
        self.winners[node] = if load(right) < load(left) { right } else { left };
    }
}

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
            let mut router = LeastOutstanding::new(engines);
            let mut outstanding = vec![0_usize; engines];
            for answer in answers {
                let expected = (0..engines).min_by_key(|&engine| (outstanding[engine], engine)).unwrap();
                let engine = router.route() as usize;
                prop_assert_eq!(engine, expected);
                outstanding[engine] += 1;
                let done = answer % engines;
                if answer % 3 == 0 && outstanding[done] > 0 {
                    router.answered(u32::try_from(done).unwrap(), outstanding[done]);
                    outstanding[done] = 0;
                }
            }
        }
    }
}
