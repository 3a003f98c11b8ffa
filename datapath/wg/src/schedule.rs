//! When to send a handshake initiation, and when to stop.
//!
//! ```text
//!            want_session              response
//!   Idle ─────────────────▶ Waiting ─────────────▶ Idle
//!    ▲                      │  ▲  │
//!    └──── give up (90 s) ──┘  └──┘ timeout: send again (5 s + jitter)
//! ```
//!
//! The caller's loop is always the same: feed an input, drain [`Schedule::poll`], sleep until
//! [`Schedule::deadline`].
//!
//! INVARIANT, in every state and whatever the peer answers: no two initiations are less than
//! [`Limits::rekey_timeout`] apart. A peer that answers at once must not make us burst.

use std::time::Duration;

use crate::limits::Limits;
use crate::time::Time;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Build and send one initiation.
    SendInitiation,
    /// The peer does not answer: drop what waits for it.
    GiveUp,
}

/// The initiator's side of one peer's handshakes.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    state: State,
    /// The earliest time of the next initiation. Outlives a handshake: an answer does not license
    /// a burst.
    next_at: Time,
    due: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { give_up_at: Time },
}

impl Schedule {
    /// A schedule that is idle.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Idle, next_at: Time(Duration::ZERO), due: None }
    }

    /// A session is wanted. Harmless while one is already asked for.
    ///
    /// `jitter` is a fresh random delay up to [`Limits::jitter_max`]; a longer one is cut.
    pub fn want_session(&mut self, now: Time, jitter: Duration) {
        match self.state {
            State::Waiting { .. } => {}
            State::Idle => {
                self.state = State::Waiting { give_up_at: now.plus(self.limits.rekey_attempt) };
                self.send_if_due(now, jitter);
            }
        }
    }

    /// A session was made, by our handshake or by the peer's: nothing more to ask for.
    pub fn response(&mut self) {
        self.state = State::Idle;
        self.due = None;
    }

    /// No initiation can be built for this peer: give up now.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.due = Some(Step::GiveUp);
    }

    /// Time has passed. Calling early, late or twice is harmless.
    pub fn timeout(&mut self, now: Time, jitter: Duration) {
        match self.state {
            State::Idle => {}
            State::Waiting { give_up_at } if now >= give_up_at => self.abandon(),
            State::Waiting { .. } => self.send_if_due(now, jitter),
        }
    }

    /// The next thing to do, if any.
    #[must_use]
    pub fn poll(&mut self) -> Option<Step> {
        self.due.take()
    }

    /// When to call [`Self::timeout`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Idle => None,
            State::Waiting { give_up_at } => Some(self.next_at.min(give_up_at)),
        }
    }

    fn send_if_due(&mut self, now: Time, jitter: Duration) {
        if now >= self.next_at {
            let pause = self.limits.rekey_timeout + jitter.min(self.limits.jitter_max);
            self.next_at = now.plus(pause);
            self.due = Some(Step::SendInitiation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{JITTER_MAX, REKEY_TIMEOUT};
    use proptest::prelude::*;

    /// Goal: the whole life of an unanswered handshake, a minute and a half, in no time at all.
    /// Method: jump from deadline to deadline and write down what is asked of us, and when.
    #[test]
    fn an_unanswered_handshake_is_retried_for_90_seconds_then_given_up() {
        let (mut schedule, mut now, mut log) =
            (Schedule::new(Limits::default()), Time::default(), vec![]);
        schedule.want_session(now, JITTER_MAX);
        // Bounded, so that a schedule that never ends fails instead of hanging.
        for _ in 0..100 {
            log.extend(schedule.poll().map(|step| (step, now.0.as_millis())));
            let Some(deadline) = schedule.deadline() else { break };
            now = deadline;
            schedule.timeout(now, JITTER_MAX);
        }
        let mut want: Vec<_> = (0..17).map(|n| (Step::SendInitiation, n * 5_334)).collect();
        want.push((Step::GiveUp, 90_000));
        assert_eq!(log, want);
    }

    #[test]
    fn an_answer_ends_the_asking_and_a_new_wish_waits_for_its_time() {
        let second = |n| Time(Duration::from_secs(n));
        let mut schedule = Schedule::new(Limits::default());
        schedule.want_session(second(100), Duration::ZERO);
        assert_eq!(schedule.poll(), Some(Step::SendInitiation));
        schedule.response();
        assert_eq!((schedule.poll(), schedule.deadline()), (None, None));
        schedule.want_session(second(101), Duration::ZERO);
        assert_eq!((schedule.poll(), schedule.deadline()), (None, Some(second(105))));
        schedule.timeout(second(105), Duration::ZERO);
        assert_eq!(schedule.poll(), Some(Step::SendInitiation));
    }

    #[test]
    fn an_answer_takes_back_an_initiation_that_was_not_sent_yet() {
        let mut schedule = Schedule::new(Limits::default());
        schedule.want_session(Time::default(), Duration::ZERO);
        schedule.response();
        assert_eq!(schedule.poll(), None);
    }

    /// REKEY_TIMEOUT with jitter: the pause is five seconds and the jitter, cut at its maximum.
    /// REKEY_ATTEMPT_TIME: an initiation may still go a millisecond before it, none at it.
    #[test]
    fn pauses_and_the_end_of_asking_are_exact_to_the_millisecond() {
        let ms = |n: u64| Time(Duration::from_millis(n));
        for (jitter, pause) in
            [(0, 5000), (1, 5001), (333, 5333), (334, 5334), (335, 5334), (60_000, 5334)]
        {
            let mut schedule = Schedule::new(Limits::default());
            schedule.want_session(ms(7), Duration::from_millis(jitter));
            assert_eq!(schedule.poll(), Some(Step::SendInitiation));
            assert_eq!(schedule.deadline(), Some(ms(7 + pause)));
            schedule.timeout(ms(7 + pause - 1), Duration::ZERO);
            assert_eq!(schedule.poll(), None, "jitter {jitter}: a millisecond early");
            schedule.timeout(ms(7 + pause), Duration::ZERO);
            assert_eq!(schedule.poll(), Some(Step::SendInitiation), "jitter {jitter}");
        }
        for (now, want) in [(90_006, Step::SendInitiation), (90_007, Step::GiveUp)] {
            let mut schedule = Schedule::new(Limits::default());
            schedule.want_session(ms(7), Duration::ZERO);
            assert_eq!(schedule.poll(), Some(Step::SendInitiation));
            schedule.timeout(ms(now), Duration::ZERO);
            assert_eq!(schedule.poll(), Some(want), "{now} ms");
        }
    }

    /// Every state against every input: what is to be done at once, and when to look next.
    #[test]
    fn every_state_and_every_input() {
        let second = |n| Time(Duration::from_secs(n));
        /// The state at 100 s.
        #[derive(Clone, Copy, Debug)]
        enum Is {
            Idle,
            /// Idle, but the last initiation was at 98 s.
            JustDone,
            /// The first initiation was at 98 s.
            Waiting,
            /// The same, and the pause is over.
            Overdue,
            /// Asked at 10 s: the attempt is over.
            Exhausted,
        }
        #[derive(Clone, Copy, Debug)]
        enum Does {
            Want,
            Answer,
            Wait,
            Abandon,
        }
        let start = |state| {
            let mut schedule = Schedule::new(Limits::default());
            let asked = match state {
                Is::Idle => return schedule,
                Is::JustDone | Is::Waiting => 98,
                Is::Overdue => 95,
                Is::Exhausted => 10,
            };
            schedule.want_session(second(asked), Duration::ZERO);
            assert_eq!(schedule.poll(), Some(Step::SendInitiation));
            if matches!(state, Is::JustDone) {
                schedule.response();
            }
            schedule
        };
        let send = Some(Step::SendInitiation);
        let give_up = Some(Step::GiveUp);
        let rows = [
            (Is::Idle, Does::Want, send, Some(105)),
            (Is::Idle, Does::Answer, None, None),
            (Is::Idle, Does::Wait, None, None),
            (Is::Idle, Does::Abandon, give_up, None),
            (Is::JustDone, Does::Want, None, Some(103)),
            (Is::JustDone, Does::Answer, None, None),
            (Is::JustDone, Does::Wait, None, None),
            (Is::JustDone, Does::Abandon, give_up, None),
            (Is::Waiting, Does::Want, None, Some(103)),
            (Is::Waiting, Does::Answer, None, None),
            (Is::Waiting, Does::Wait, None, Some(103)),
            (Is::Waiting, Does::Abandon, give_up, None),
            (Is::Overdue, Does::Want, None, Some(100)),
            (Is::Overdue, Does::Answer, None, None),
            (Is::Overdue, Does::Wait, send, Some(105)),
            (Is::Overdue, Does::Abandon, give_up, None),
            (Is::Exhausted, Does::Want, None, Some(15)),
            (Is::Exhausted, Does::Answer, None, None),
            (Is::Exhausted, Does::Wait, give_up, None),
            (Is::Exhausted, Does::Abandon, give_up, None),
        ];
        for (state, input, want, deadline) in rows {
            let mut schedule = start(state);
            let now = second(100);
            match input {
                Does::Want => schedule.want_session(now, Duration::ZERO),
                Does::Answer => schedule.response(),
                Does::Wait => schedule.timeout(now, Duration::ZERO),
                Does::Abandon => schedule.abandon(),
            }
            let done = (schedule.poll(), schedule.deadline());
            assert_eq!(done, (want, deadline.map(second)), "{state:?}, {input:?}");
            assert_eq!(schedule.poll(), None, "once");
        }
    }

    #[derive(Clone, Debug)]
    enum Input {
        Want,
        Response,
        Abandon,
        Wait(u64),
        Deadline,
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Want),
            Just(Input::Response),
            Just(Input::Abandon),
            (0u64..20_000).prop_map(Input::Wait),
            Just(Input::Deadline),
        ]
    }

    proptest! {
        /// Whatever happens: initiations are paced, no deadline lies in the past once it was
        /// served (or the caller would spin), and asking ends within the attempt time.
        #[test]
        fn initiations_are_paced(inputs in proptest::collection::vec((input(), 0u64..1000), 1..60)) {
            let limits = Limits::default();
            let mut schedule = Schedule::new(limits);
            let (mut now, mut last, mut asked_at) = (Time::default(), None::<Time>, None::<Time>);
            for (input, jitter) in inputs {
                let jitter = Duration::from_millis(jitter);
                match input {
                    Input::Want => {
                        schedule.want_session(now, jitter);
                        asked_at = asked_at.or(Some(now));
                    }
                    Input::Response => { schedule.response(); asked_at = None; }
                    Input::Abandon => schedule.abandon(),
                    Input::Wait(ms) => now = now.plus(Duration::from_millis(ms)),
                    Input::Deadline => now = schedule.deadline().unwrap_or(now).max(now),
                }
                schedule.timeout(now, jitter);
                match schedule.poll() {
                    Some(Step::SendInitiation) => {
                        if let Some(last) = last {
                            prop_assert!(now.since(last) >= REKEY_TIMEOUT);
                        }
                        prop_assert!(asked_at.is_some_and(|at| now.since(at) < limits.rekey_attempt));
                        last = Some(now);
                    }
                    Some(Step::GiveUp) => asked_at = None,
                    None => {}
                }
                if let Some(deadline) = schedule.deadline() {
                    prop_assert!(deadline > now);
                    prop_assert!(deadline <= now.plus(REKEY_TIMEOUT + JITTER_MAX));
                } else {
                    prop_assert_eq!(asked_at, None);
                }
            }
        }
    }
}
