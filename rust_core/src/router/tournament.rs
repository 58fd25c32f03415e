//! The engine with the least to do, in logarithmic time.

/// A tournament over the engines: each inner node holds the winner of its two children, so a change
/// replays the matches on one path and no request looks at all engines.
#[derive(Clone, Debug)]
pub(crate) struct Tournament {
    /// What each engine has to do, padded to a power of two with engines that never win.
    load: Vec<u64>,
    /// Whether an engine takes no requests.
    down: Vec<bool>,
    /// Winners; node 1 is the final, node i has children 2i and 2i + 1.
    winners: Vec<u32>,
}

impl Tournament {
    pub(crate) fn new(engines: usize) -> Self {
        let leaves = engines.next_power_of_two();
        let mut load = vec![u64::MAX; leaves];
        load[..engines].fill(0);
        let mut winners = vec![0; 2 * leaves];
        for (leaf, engine) in (leaves..2 * leaves).zip(0_u32..) {
            winners[leaf] = engine;
        }
        let mut router = Self { load, down: vec![false; leaves], winners };
        for node in (1..leaves).rev() {
            router.play(node);
        }
        router
    }

    /// The engine with the least to do; the lowest among equals.
    pub(crate) fn winner(&self) -> u32 {
        self.winners[1]
    }

    /// What an engine has to do.
    pub(crate) fn load(&self, engine: u32) -> u64 {
        self.load[engine as usize]
    }

    pub(crate) fn is_down(&self, engine: u32) -> bool {
        self.down[engine as usize]
    }

    /// An engine takes requests from now on, or none.
    pub(crate) fn set_up(&mut self, engine: u32, up: bool) {
        self.down[engine as usize] = !up;
        self.replay(engine);
    }

    /// An engine has more to do.
    pub(crate) fn add(&mut self, engine: u32, load: u64) {
        self.load[engine as usize] += load;
        self.replay(engine);
    }

    /// An engine has less to do.
    pub(crate) fn remove(&mut self, engine: u32, load: u64) {
        self.load[engine as usize] -= load;
        self.replay(engine);
    }

    fn replay(&mut self, engine: u32) {
        let leaf = self.load.len() + engine as usize;
        let mut node = leaf >> 1;
        while node >= 1 {
            self.play(node);
            node /= 2;
        }
    }

    /// The left child has the lower engines, so it wins a draw.
    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let load = |engine: u32| {
            if self.down[engine as usize] { u64::MAX } else { self.load[engine as usize] }
        };
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
