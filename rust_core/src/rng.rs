//! Random numbers that are the same everywhere: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of that number under a seed.
    pub(crate) const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed) ^ stream)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A whole number below `bound`; the high half of the product with 64 random bits.
    pub(crate) const fn below(&mut self, bound: u32) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the high half lies below the bound")]
        let number = ((self.next() as u128 * bound as u128) >> 64) as u32;
        number
    }
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first numbers of the published generator with the state 0.
        let mut rng = Rng(0);
        assert_eq!(rng.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_them() {
        let mut rng = Rng::new(7, 1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
