//! Waiting with a deadline and a reason. Nothing in a scenario sleeps and hopes: it names what it
//! waits for, looks often, and on failure says what it saw last.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// First pause between two looks; doubles up to [`PAUSE_MAX`]. Short, because most waits in a
/// world end within a few milliseconds.
const PAUSE_FIRST: Duration = Duration::from_millis(1);

/// Longest pause: what a wait may overshoot, and small beside every deadline in use.
const PAUSE_MAX: Duration = Duration::from_millis(25);

/// A point in monotonic time after which waiting is a failure.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self { start: now(), limit }
    }

    /// `seconds` from now.
    #[must_use]
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.elapsed() >= self.limit
    }

    /// Time since the deadline was set.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        now().duration_since(self.start)
    }

    /// Time left; zero once it is over.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }
}

/// What one look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds.
    Ready(T),
    /// Not yet; the text says what was seen instead and ends up in the failure.
    NotYet(String),
}

/// Looks until `look` is ready.
///
/// # Errors
///
/// When the deadline passes: what was waited for, for how long, and what was seen last. An error of
/// `look` itself ends the wait at once.
pub fn until<T>(
    deadline: Deadline,
    what: impl fmt::Display,
    mut look: impl FnMut() -> Result<Look<T>, Failure>,
) -> Result<T, Failure> {
    let mut pause = PAUSE_FIRST;
    loop {
        // The deadline is read before the look, so that the last look is never an early one.
        let over = deadline.is_over();
        let seen = match look()? {
            Look::Ready(value) => return Ok(value),
            Look::NotYet(seen) => seen,
        };
        if over {
            let waited = deadline.elapsed().as_secs_f64();
            return Err(Failure::new(format!(
                "waited {waited:.1} s for {what}; last seen: {seen}"
            )));
        }
        thread::sleep(pause.min(deadline.left()));
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
}

/// Monotonic time. The only clock of the worlds; crates under test take `now` as an argument.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a world is a shell: it drives real processes")]
pub fn now() -> Instant {
    Instant::now()
}

/// `CLOCK_MONOTONIC` in nanoseconds: the same clock in every process and namespace of the machine,
/// so that the lines of one process can be compared with the actions of another.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_ready_look() {
        let mut looks = 0;
        let value = until(Deadline::seconds(5), "the third look", || {
            looks += 1;
            Ok(if looks == 3 { Look::Ready(looks) } else { Look::NotYet(looks.to_string()) })
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_wait_that_fails_says_what_it_saw_last() {
        let deadline = Deadline::after(Duration::from_millis(20));
        let failure = until(deadline, "a unicorn", || {
            Ok::<Look<()>, Failure>(Look::NotYet("three horses".into()))
        })
        .unwrap_err()
        .to_string();
        assert!(failure.contains("for a unicorn"), "{failure}");
        assert!(failure.ends_with("last seen: three horses"), "{failure}");
        assert!(deadline.is_over());
        assert_eq!(deadline.left(), Duration::ZERO);
    }

    #[test]
    fn a_condition_is_looked_at_once_more_when_the_deadline_has_passed() {
        let late = Deadline::after(Duration::ZERO);
        let value = until(late, "anything", || Ok(Look::Ready(7))).unwrap();
        assert_eq!(value, 7);
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let deadline = Deadline::seconds(60);
        let failure = until(deadline, "anything", || {
            Err::<Look<()>, Failure>(Failure::new("the process is dead"))
        })
        .unwrap_err();
        assert_eq!(failure.to_string(), "the process is dead");
        assert!(!deadline.is_over());
    }
}
