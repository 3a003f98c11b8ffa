//! The only reader of clocks in this crate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_wg::Time;
use jiff::Timestamp;

/// Monotonic time since the process started. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(self) -> Time {
        Time(self.start.elapsed())
    }

    /// From now until `time`; zero if it has passed.
    #[must_use]
    pub fn until(self, time: Time) -> Duration {
        time.since(self.now())
    }
}

/// The wall clock, as a moment of the calendar.
#[must_use]
pub fn today() -> Timestamp {
    Timestamp::now()
}

/// Since the box started, also while it slept. Unlike the wall clock nobody sets it, and unlike
/// [`Clock`] it is the same in every process.
#[must_use]
pub fn boot_clock() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // It does not stand before zero.
    Duration::try_from(time).unwrap_or_default()
}

/// The wall clock, since the Unix epoch; zero if it stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
