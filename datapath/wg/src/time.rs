//! Monotonic time as a value: the caller reads the clock, the protocol only compares.

use std::time::Duration;

/// A point in time, measured from a start that the process chose. Monotonic, never wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

impl Time {
    /// The time `delay` later; saturates, so "never" stays in the future.
    #[must_use]
    pub const fn plus(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// How long ago `earlier` was; zero if it has not come yet.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[test]
fn time_saturates_at_both_ends() {
    let (zero, second) = (Time::default(), Duration::from_secs(1));
    assert_eq!(zero.plus(second), Time(second));
    assert_eq!(Time(Duration::MAX).plus(second), Time(Duration::MAX));
    assert_eq!(Time(second).since(zero), second);
    assert_eq!(zero.since(Time(second)), Duration::ZERO);
}
