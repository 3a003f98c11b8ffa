//! When to start a datapath, for a daemon that does so itself (`--datapath`). Sans-IO: the shell
//! starts and reaps.
//!
//! ```text
//!            500 ms alone                        connects
//!   Waiting ─────────────▶ due ──started──▶ Running ──────▶ Linked
//!    ▲  100 ms .. 2 s                        │ ▲              │
//!    │                             20 s alone│ └── unlinked ◀─┘
//!    └──────────────── died ◀── Overdue ◀────┘
//! ```
//!
//! INVARIANT: none is started while one that we started lives, or while one is connected. A datapath
//! that is connected is never ended from here: it outlives the daemon.

use std::time::Duration;

use bulkhead_wg::Time;

/// How long a datapath that runs already may take to connect: it tries every 50 ms.
const PATIENCE: Duration = Duration::from_millis(500);
/// First pause after a death.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause. Higher: a gateway that could run does not. Lower: one that cannot fills the log.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A datapath that was connected this long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long one that we started may be without a connection. It connects before it does anything else,
/// in milliseconds, and again within 50 ms. Lower: one on a box that is still busy starting is killed.
/// Higher: one that hangs keeps the box without a gateway for so much longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a datapath may take to end that was told to. It does nothing before it ends, but the kernel
/// closes its sockets, 64 queues in 2 s. Higher: whoever waits for the next has less time for that.
pub const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The schedule of starts.
#[derive(Debug)]
pub struct Supervisor {
    state: State,
    /// Whether a process that we started lives.
    child: bool,
    /// Whether the one that is connected was told to end.
    ending: bool,
    backoff: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        start_at: Time,
    },
    /// Alone since then, and for so long at most.
    Running {
        since: Time,
        patience: Duration,
    },
    /// Its end was ordered.
    Overdue,
    Linked {
        since: Time,
    },
}

impl Supervisor {
    /// Nobody is connected yet; somebody may be about to.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let state = State::Waiting { start_at: now.plus(PATIENCE) };
        Self { state, child: false, ending: false, backoff: BACKOFF_MIN }
    }

    /// A datapath has connected, ours or not.
    pub fn linked(&mut self, now: Time) {
        self.state = State::Linked { since: now };
        self.ending = false;
    }

    /// The one that is connected was told to end, by the operator's wish: once it has disconnected
    /// there is no point in waiting for it.
    pub fn ending(&mut self) {
        self.ending = true;
    }

    /// It has disconnected.
    pub fn unlinked(&mut self, now: Time) {
        if let State::Linked { since } = self.state {
            if now.since(since) >= HEALTHY {
                self.backoff = BACKOFF_MIN;
            }
            // One that was there before us may merely have closed the link.
            let least = if self.ending { Duration::ZERO } else { PATIENCE };
            self.state =
                if self.child { running(now, self.ending) } else { self.pause(now, least) };
        }
    }

    /// Whether to start one now.
    #[must_use]
    pub fn due(&self, now: Time) -> bool {
        !self.child && matches!(self.state, State::Waiting { start_at } if now >= start_at)
    }

    /// One was started.
    pub fn started(&mut self, now: Time) {
        self.child = true;
        self.state = running(now, false);
    }

    /// How long the one that we started was alone, if it must be killed for that now. It is said once.
    pub fn overdue(&mut self, now: Time) -> Option<Duration> {
        let State::Running { since, patience } = self.state else { return None };
        if now < since.plus(patience) {
            return None;
        }
        self.state = State::Overdue;
        Some(patience)
    }

    /// The one that we started has died, or could not be started.
    pub fn died(&mut self, now: Time) {
        self.child = false;
        if !matches!(self.state, State::Linked { .. }) {
            self.state = self.pause(now, Duration::ZERO);
        }
    }

    /// When to ask [`Self::due`] and [`Self::overdue`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Waiting { start_at } if !self.child => Some(start_at),
            State::Running { since, patience } => Some(since.plus(patience)),
            State::Waiting { .. } | State::Overdue | State::Linked { .. } => None,
        }
    }

    fn pause(&mut self, now: Time, least: Duration) -> State {
        let start_at = now.plus(self.backoff.max(least));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        State::Waiting { start_at }
    }
}

/// One lives and is not connected.
fn running(since: Time, ending: bool) -> State {
    State::Running { since, patience: if ending { END_TIMEOUT } else { CONNECT_TIMEOUT } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(Duration::from_millis(ms))
    }

    #[test]
    fn a_datapath_that_runs_already_is_given_half_a_second() {
        let mut supervisor = Supervisor::new(at(0));
        assert!(!supervisor.due(at(499)) && supervisor.due(at(500)));
        supervisor.linked(at(499));
        assert!(!supervisor.due(at(500_000)));
        assert_eq!(supervisor.deadline(), None);
    }

    #[test]
    fn one_that_keeps_dying_is_started_ever_more_slowly() {
        let mut supervisor = Supervisor::new(at(0));
        let mut now = at(500);
        let mut pauses = vec![];
        for _ in 0..7 {
            assert!(supervisor.due(now));
            supervisor.started(now);
            assert!(!supervisor.due(now.plus(Duration::from_secs(3600))), "one at a time");
            supervisor.died(now);
            let next = supervisor.deadline().unwrap();
            pauses.push(next.since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
    }

    #[test]
    fn a_death_is_heard_in_either_order() {
        for link_first in [true, false] {
            let mut supervisor = Supervisor::new(at(0));
            supervisor.started(at(0));
            supervisor.linked(at(1_000));
            let died = at(20_000);
            if link_first {
                supervisor.unlinked(died);
                assert_eq!(supervisor.deadline(), Some(at(40_000)), "it may live");
                supervisor.died(died);
                assert_eq!(supervisor.deadline(), Some(at(20_100)));
            } else {
                supervisor.died(died);
                assert_eq!(supervisor.deadline(), None, "another may be linked");
                supervisor.unlinked(died);
                assert_eq!(supervisor.deadline(), Some(at(20_500)));
            }
        }
    }

    #[test]
    fn one_that_does_not_connect_is_killed_once_and_its_successor_is_started_as_after_a_death() {
        let mut supervisor = Supervisor::new(at(0));
        supervisor.started(at(500));
        assert_eq!(
            (supervisor.overdue(at(20_499)), supervisor.deadline()),
            (None, Some(at(20_500)))
        );
        assert_eq!(supervisor.overdue(at(20_500)), Some(CONNECT_TIMEOUT));
        assert_eq!((supervisor.overdue(at(99_000)), supervisor.deadline()), (None, None));
        assert!(!supervisor.due(at(99_000)), "it lives");
        supervisor.died(at(99_000));
        assert_eq!(supervisor.deadline(), Some(at(99_100)));
        // Another that connects is none of those.
        supervisor.started(at(99_100));
        supervisor.linked(at(119_000));
        assert_eq!((supervisor.overdue(at(500_000)), supervisor.deadline()), (None, None));
    }

    /// It closed the link, or was disconnected.
    #[test]
    fn one_that_does_not_connect_again_is_killed_and_sooner_if_it_was_told_to_end() {
        for (told, by) in [(false, 40_000), (true, 25_000)] {
            let mut supervisor = Supervisor::new(at(0));
            supervisor.started(at(500));
            supervisor.linked(at(600));
            if told {
                supervisor.ending();
            }
            supervisor.unlinked(at(20_000));
            assert_eq!(supervisor.deadline(), Some(at(by)));
            assert!(
                supervisor.overdue(at(by - 1)).is_none() && supervisor.overdue(at(by)).is_some()
            );
        }
    }

    #[test]
    fn one_that_was_told_to_end_is_not_waited_for() {
        let mut supervisor = Supervisor::new(at(0));
        for (told, start_at) in [(true, 20_100), (false, 20_500)] {
            supervisor.linked(at(0));
            if told {
                supervisor.ending();
            }
            supervisor.unlinked(at(20_000));
            assert_eq!(supervisor.deadline(), Some(at(start_at)));
        }
    }

    #[test]
    fn health_is_being_connected_for_a_while() {
        let mut supervisor = Supervisor::new(at(0));
        for _ in 0..6 {
            supervisor.started(at(0));
            supervisor.died(at(0));
        }
        for (linked_for, pause) in [(9_999, 2_000), (10_000, 100)] {
            supervisor.started(at(0));
            supervisor.linked(at(0));
            supervisor.unlinked(at(linked_for));
            supervisor.died(at(linked_for));
            assert_eq!(supervisor.deadline(), Some(at(linked_for + pause)));
        }
    }
}
