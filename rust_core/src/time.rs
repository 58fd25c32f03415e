//! The simulated clock: unsigned 64-bit nanoseconds, so that times are totally ordered, sums are
//! exact and equality in tests means equality.

use crate::error::SimError;

/// A moment, in nanoseconds since the start of the simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimTime(u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimDuration(u64);

/// Latest moment that fits the signed 64-bit columns of the results.
const LATEST_NS: u64 = i64::MAX as u64;

impl SimTime {
    /// The start of the simulation.
    pub const ZERO: Self = Self(0);

    /// Later than everything.
    pub(crate) const FAR: Self = Self(u64::MAX);

    /// A moment from its count of nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` later.
    ///
    /// # Errors
    /// [`SimError::ClockOverflow`] past 2^63 ns (292 years).
    pub fn after(self, duration: SimDuration) -> Result<Self, SimError> {
        match self.0.checked_add(duration.0) {
            Some(nanos) if nanos <= LATEST_NS => Ok(Self(nanos)),
            _ => Err(SimError::ClockOverflow { now_ns: self.0, duration_ns: duration.0 }),
        }
    }
}

impl SimDuration {
    /// A length of time from its count of nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Convert seconds, rounding half to even.
    ///
    /// # Errors
    /// [`SimError::InvalidDuration`] unless the seconds are finite, not negative and below 292 years.
    pub fn from_secs_f64(seconds: f64) -> Result<Self, SimError> {
        /// From here on every number is whole, and the next ones are apart by 1 as their bits are.
        const WHOLE: f64 = (1_u64 << 52) as f64;
        let exact = seconds * 1e9;
        if (0.0..WHOLE).contains(&exact) {
            // The sum has no room for fractions: it is rounded as below.
            return Ok(Self((exact + WHOLE).to_bits() - WHOLE.to_bits()));
        }
        let nanos = exact.round_ties_even();
        if nanos >= 0.0 && nanos < LATEST_NS as f64 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range was checked in the line above"
            )]
            return Ok(Self(nanos as u64));
        }
        Err(SimError::InvalidDuration { seconds })
    }

    /// The same, but at least one nanosecond, or the clock could stand still.
    #[must_use]
    pub const fn at_least_one(self) -> Self {
        if self.0 == 0 { Self(1) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_half_to_even() {
        let nanos = |seconds| SimDuration::from_secs_f64(seconds).unwrap().as_nanos();
        assert_eq!(nanos(0.5e-9), 0);
        assert_eq!(nanos(1.5e-9), 2);
        assert_eq!(nanos(2.5e-9), 2);
        assert_eq!(nanos(1.0), 1_000_000_000);
        assert_eq!(nanos(-0.0), 0);
        let most = 2.0_f64.powi(52);
        for exact in [most - 1.0, most - 0.5, most, most + 1.0] {
            let rounded = (exact / 1e9 * 1e9).round_ties_even();
            assert_eq!((nanos(exact / 1e9) as f64).to_bits(), rounded.to_bits());
        }
    }

    #[test]
    fn impossible_durations_are_refused() {
        for seconds in [f64::NAN, f64::INFINITY, -1e-9, 1e10] {
            assert!(SimDuration::from_secs_f64(seconds).is_err(), "{seconds}");
        }
        let late = SimTime::from_nanos(LATEST_NS);
        assert!(late.after(SimDuration::from_nanos(1)).is_err());
    }
}
