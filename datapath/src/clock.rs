//! The datapath's clock: milliseconds since it started.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_wg::Time;

/// A monotonic clock that starts at zero; a copy shows the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts it. It begins at one second, so that zero can mean "never".
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the shell that owns the clock")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Since the start.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed() + Duration::from_secs(1)
    }

    /// Since the start, milliseconds: what a worker's turn takes.
    #[must_use]
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The wall clock, milliseconds since 1970: for whoever reads what happened, and for nothing else.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the link thread may read clocks")]
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds of this clock as the time of the WireGuard timers.
#[must_use]
pub(crate) fn time(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}
