//! What the passing of time asks of one session: keepalives, a successor, its end (whitepaper §6).
//!
//! The workers only note when something last happened ([`Activity`]); the link thread asks
//! [`Timers::due`] every 100 ms or so. So no timer is set, moved or cancelled per packet, and
//! every rule fires at most one polling interval late.
//!
//! ```text
//!   0 s                    120 s          165 s    180 s                         540 s
//!   │ session made         │ rekey when   │ …or    │ expired: neither sends      │ keys
//!   │                      │ we send      │ receive│ nor receives                │ erased
//!   data received, nothing sent  ──10 s──▶ send a keepalive
//!   data sent, nothing received  ──15 s──▶ the peer is gone or has lost its keys: new handshake
//! ```
//!
//! Rekeying by age is the initiator's part alone; a responder that did it too would make both
//! sides initiate at the same moment.

use std::time::Duration;

use crate::keypair::Role;
use crate::limits::Limits;
use crate::time::Time;

/// When something last happened in a session; `None`: never. A data packet has content, a
/// keepalive has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When the session was made.
    pub created: Time,
    /// Which side of the handshake we were.
    pub role: Role,
    /// Messages sent: [`crate::SendCounter::count`].
    pub messages_sent: u64,
    /// The last data packet sent.
    pub data_sent: Option<Time>,
    /// The last data packet received.
    pub data_received: Option<Time>,
    /// The last packet of any kind sent.
    pub sent: Option<Time>,
    /// The last authenticated packet of any kind received.
    pub received: Option<Time>,
}

/// What is to be done for a session now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Send an empty packet.
    pub send_keepalive: bool,
    /// Ask control for a new session of this peer.
    pub want_handshake: bool,
    /// The session must not be used any more, in either direction.
    pub expired: bool,
    /// Nothing of its keys may remain. Erasing them on `expired` already is as good.
    pub erase: bool,
}

/// What was already asked for in one session, so that nothing is asked for twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// Data came in and nothing went out.
    owed: Watch,
    /// Data went out and nothing came in.
    unanswered: Watch,
    handshake_asked: Option<Time>,
    keepalive_asked: Option<Time>,
}

impl Timers {
    /// What is due at `now`. `persistent` is the peer's persistent keepalive.
    ///
    /// Asks for each thing once: what is not done is asked for again only when there is a new
    /// reason. `expired` and `erase` stay.
    #[must_use]
    pub fn due(
        &mut self,
        now: Time,
        activity: &Activity,
        limits: &Limits,
        persistent: Option<Duration>,
    ) -> Due {
        let age = now.since(activity.created);
        if age >= limits.reject_after || activity.messages_sent >= limits.reject_after_messages {
            return Due { expired: true, erase: age >= limits.erase_after, ..Due::default() };
        }
        Due {
            send_keepalive: self.keepalive_due(now, activity, limits, persistent),
            want_handshake: self.handshake_due(now, activity, limits),
            ..Due::default()
        }
    }

    fn keepalive_due(
        &mut self,
        now: Time,
        activity: &Activity,
        limits: &Limits,
        persistent: Option<Duration>,
    ) -> bool {
        // What was sent in the same instant arrives after the data was sent, and so answers it.
        let owed = self.owed.due(now, activity.data_received, limits.keepalive, |data_at| {
            activity.sent >= Some(data_at)
        });
        // The responder may not send before it was sent something (whitepaper §5.1), so the
        // initiator sends at once.
        let confirm = match activity.role {
            Role::Initiator => activity.sent.is_none() && self.keepalive_asked.is_none(),
            Role::Responder if activity.received.is_none() => return false,
            Role::Responder => false,
        };
        let quiet_since = Some(activity.created)
            .max(activity.sent)
            .max(activity.received)
            .max(self.keepalive_asked);
        let quiet = persistent
            .zip(quiet_since)
            .is_some_and(|(interval, quiet_since)| now.since(quiet_since) >= interval);
        let due = owed || confirm || quiet;
        if due {
            self.keepalive_asked = Some(now);
        }
        due
    }

    fn handshake_due(&mut self, now: Time, activity: &Activity, limits: &Limits) -> bool {
        let patience = limits.keepalive + limits.rekey_timeout;
        // What was received in the same instant may have come before the data went out.
        let unanswered = self
            .unanswered
            .due(now, activity.data_sent, patience, |data_at| activity.received > Some(data_at));
        let due = unanswered || self.is_worn(now, activity, limits);
        if due {
            self.handshake_asked = Some(now);
        }
        due
    }

    /// Whether traffic of a session near its end asks for a successor. Traffic only: an idle
    /// session just ends.
    fn is_worn(&self, now: Time, activity: &Activity, limits: &Limits) -> bool {
        let last_minute =
            limits.reject_after.saturating_sub(limits.keepalive + limits.rekey_timeout);
        let is_news = |at: Option<Time>| at.is_some() && at > self.handshake_asked;
        let past = |at: Option<Time>, age| at >= Some(activity.created.plus(age)) && is_news(at);
        let by_age = activity.role == Role::Initiator
            && (past(activity.sent, limits.rekey_after) || past(activity.received, last_minute));
        let by_count =
            activity.messages_sent >= limits.rekey_after_messages && is_news(activity.sent);
        let asked_lately =
            self.handshake_asked.is_some_and(|at| now.since(at) < limits.rekey_timeout);
        (by_age || by_count) && !asked_lately
    }
}

/// Waits for something that must follow an event within a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Watch {
    /// The first event that nothing followed yet.
    since: Option<Time>,
    /// Events up to here were reported.
    reported: Option<Time>,
}

impl Watch {
    /// Whether an event was left alone for `patience`. `last` is the last event, and `followed`
    /// tells whether what must follow came after an event at a time.
    fn due(
        &mut self,
        now: Time,
        last: Option<Time>,
        patience: Duration,
        followed: impl Fn(Time) -> bool,
    ) -> bool {
        if self.since.is_some_and(&followed) {
            self.since = None;
        }
        if self.since.is_none() && last > self.reported {
            self.since = last.filter(|at| !followed(*at));
        }
        let due = self.since.is_some_and(|since| now.since(since) >= patience);
        if due {
            *self = Self { since: None, reported: last };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use std::cell::Cell;

    fn at(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    const NOTHING: Due =
        Due { send_keepalive: false, want_handshake: false, expired: false, erase: false };
    const KEEPALIVE: Due = Due { send_keepalive: true, ..NOTHING };
    const HANDSHAKE: Due = Due { want_handshake: true, ..NOTHING };
    const EXPIRED: Due = Due { expired: true, ..NOTHING };
    const ERASE: Due = Due { expired: true, erase: true, ..NOTHING };

    /// Goal: every state of a session against the times at which something changes. Method: one
    /// row is what happened (data sent, data received, anything sent, anything received, in
    /// seconds after the session was made at 1000) and what a first look at a time must say.
    #[test]
    fn what_is_due_in_each_state() {
        use Role::{Initiator as I, Responder as R};
        type Row = (&'static str, Role, [Option<u64>; 4], Option<u64>, &'static [(u64, Due)]);
        let rows: &[Row] = &[
            (
                "new initiator proves its keys",
                I,
                [None; 4],
                None,
                &[(0, KEEPALIVE), (5, KEEPALIVE)],
            ),
            ("new responder may not send", R, [None; 4], None, &[(0, NOTHING), (179, NOTHING)]),
            ("nor for persistence", R, [None; 4], Some(1), &[(0, NOTHING), (100, NOTHING)]),
            (
                "data received, nothing sent since",
                R,
                [None, Some(20), Some(19), Some(20)],
                None,
                &[(20, NOTHING), (29, NOTHING), (30, KEEPALIVE), (31, KEEPALIVE)],
            ),
            (
                "data received and answered in the same instant",
                R,
                [Some(20), Some(20), Some(20), Some(21)],
                None,
                &[(30, NOTHING), (60, NOTHING)],
            ),
            (
                "a keepalive received owes nothing",
                I,
                [None, None, Some(1), Some(20)],
                None,
                &[(30, NOTHING), (60, NOTHING)],
            ),
            (
                "data sent, nothing received since",
                R,
                [Some(20), Some(5), Some(20), Some(19)],
                None,
                &[(20, NOTHING), (34, NOTHING), (35, HANDSHAKE), (50, HANDSHAKE)],
            ),
            (
                "data sent in the instant of the last reception",
                R,
                [Some(20), Some(5), Some(20), Some(20)],
                None,
                &[(34, NOTHING), (35, HANDSHAKE)],
            ),
            (
                "data sent, then something received",
                R,
                [Some(20), Some(5), Some(20), Some(21)],
                None,
                &[(35, NOTHING), (60, NOTHING)],
            ),
            (
                "a keepalive sent awaits no answer",
                I,
                [None, None, Some(20), Some(5)],
                None,
                &[(35, NOTHING), (60, NOTHING)],
            ),
            (
                "the initiator sends before 120 s",
                I,
                [None, None, Some(119), Some(119)],
                None,
                &[(120, NOTHING), (179, NOTHING)],
            ),
            (
                "the initiator sends at 120 s",
                I,
                [None, None, Some(120), Some(1)],
                None,
                &[(120, HANDSHAKE), (179, HANDSHAKE)],
            ),
            (
                "the responder sends at 120 s",
                R,
                [None, None, Some(120), Some(1)],
                None,
                &[(120, NOTHING), (179, NOTHING)],
            ),
            (
                "the initiator receives before 165 s",
                I,
                [None, None, Some(1), Some(164)],
                None,
                &[(164, NOTHING), (179, NOTHING)],
            ),
            (
                "the initiator receives at 165 s",
                I,
                [None, None, Some(1), Some(165)],
                None,
                &[(165, HANDSHAKE), (179, HANDSHAKE)],
            ),
            (
                "the responder receives at 165 s",
                R,
                [None, None, Some(1), Some(165)],
                None,
                &[(165, NOTHING), (179, NOTHING)],
            ),
            (
                "persistent keepalive counts from the last packet of either direction",
                I,
                [None, None, Some(30), Some(40)],
                Some(25),
                &[(64, NOTHING), (65, KEEPALIVE)],
            ),
            (
                "the end",
                I,
                [Some(170), Some(171), Some(170), Some(171)],
                Some(1),
                &[(180, EXPIRED), (539, EXPIRED), (540, ERASE), (100_000, ERASE)],
            ),
        ];
        for (name, role, [data_sent, data_received, sent, received], persistent, looks) in rows {
            let event = |seconds: Option<u64>| seconds.map(|seconds| at(1000 + seconds));
            let activity = Activity {
                created: at(1000),
                role: *role,
                messages_sent: 9,
                data_sent: event(*data_sent),
                data_received: event(*data_received),
                sent: event(*sent),
                received: event(*received),
            };
            let persistent = persistent.map(Duration::from_secs);
            for (seconds, want) in *looks {
                let mut timers = Timers::default();
                let due = timers.due(at(1000 + seconds), &activity, &Limits::default(), persistent);
                assert_eq!(due, *want, "{name}, {seconds} s");
            }
        }
    }

    /// Every rule of time, one millisecond before its limit and at it. What happened is given in
    /// milliseconds after the session was made: data sent, data received, sent, received.
    #[test]
    fn every_limit_is_exact_to_the_millisecond() {
        use Role::{Initiator as I, Responder as R};
        let ms = |n: u64| Time(Duration::from_millis(5_000_000 + n));
        type Row = (&'static str, Role, [Option<u64>; 4], Option<u64>, u64, Due, Due);
        let never = u64::MAX;
        let rows: &[Row] = &[
            (
                "passive keepalive",
                R,
                [None, Some(7), Some(6), Some(7)],
                None,
                10_007,
                NOTHING,
                KEEPALIVE,
            ),
            (
                "persistent keepalive",
                R,
                [None, None, None, Some(7)],
                Some(25),
                25_007,
                NOTHING,
                KEEPALIVE,
            ),
            (
                "nobody answers",
                R,
                [Some(7), None, Some(7), Some(6)],
                None,
                15_007,
                NOTHING,
                HANDSHAKE,
            ),
            (
                "REJECT_AFTER_TIME, initiator",
                I,
                [None, None, Some(6), Some(7)],
                None,
                180_000,
                NOTHING,
                EXPIRED,
            ),
            (
                "REJECT_AFTER_TIME, responder",
                R,
                [None, None, Some(6), Some(7)],
                None,
                180_000,
                NOTHING,
                EXPIRED,
            ),
            ("keys are erased", R, [None, None, Some(6), Some(7)], None, 540_000, EXPIRED, ERASE),
            (
                "REKEY_AFTER_TIME, just before",
                I,
                [None, None, Some(119_999), Some(7)],
                None,
                never,
                NOTHING,
                NOTHING,
            ),
            (
                "REKEY_AFTER_TIME",
                I,
                [None, None, Some(120_000), Some(7)],
                None,
                120_000,
                NOTHING,
                HANDSHAKE,
            ),
            (
                "the last 15 s, just before",
                I,
                [None, None, Some(6), Some(164_999)],
                None,
                never,
                NOTHING,
                NOTHING,
            ),
            (
                "the last 15 s",
                I,
                [None, None, Some(6), Some(165_000)],
                None,
                165_000,
                NOTHING,
                HANDSHAKE,
            ),
        ];
        for (rule, role, events, persistent, limit, before, at_limit) in rows {
            let look = |now: u64| {
                // What lies behind `now` has not happened yet.
                let [data_sent, data_received, sent, received] =
                    events.map(|event| event.filter(|at| *at <= now).map(ms));
                let activity = Activity {
                    created: ms(0),
                    role: *role,
                    messages_sent: 1,
                    data_sent,
                    data_received,
                    sent: sent.or_else(|| (*role == I).then(|| ms(0))),
                    received,
                };
                let persistent = persistent.map(Duration::from_secs);
                Timers::default().due(ms(now), &activity, &Limits::default(), persistent)
            };
            if *limit == never {
                assert_eq!(look(179_999), *before, "{rule}");
                continue;
            }
            assert_eq!(look(limit - 1), *before, "{rule}, 1 ms before");
            assert_eq!(look(*limit), *at_limit, "{rule}, at the limit");
        }
    }

    #[test]
    fn messages_wear_a_session_out_too() {
        let mut activity = Activity {
            created: at(0),
            role: Role::Responder,
            messages_sent: Limits::default().rekey_after_messages - 1,
            data_sent: None,
            data_received: None,
            sent: Some(at(1)),
            received: Some(at(1)),
        };
        let look =
            |activity: &Activity| Timers::default().due(at(2), activity, &Limits::default(), None);
        assert_eq!(look(&activity), NOTHING);
        activity.messages_sent += 1;
        assert_eq!(look(&activity), HANDSHAKE);
        activity.messages_sent = Limits::default().reject_after_messages - 1;
        assert_eq!(look(&activity), HANDSHAKE);
        activity.messages_sent += 1;
        assert_eq!(look(&activity), EXPIRED);
    }

    /// A session worn out by messages asks once for each new packet and not within REKEY_TIMEOUT;
    /// one that sends nothing more does not ask, on either side.
    #[test]
    fn rekey_after_messages_asks_for_traffic_only_and_paced() {
        for role in [Role::Initiator, Role::Responder] {
            let mut timers = Timers::default();
            let mut activity = Activity {
                created: at(0),
                role,
                messages_sent: Limits::default().rekey_after_messages,
                data_sent: None,
                data_received: None,
                sent: None,
                received: Some(at(1)),
            };
            let mut look = |activity: &Activity, now| {
                timers.due(at(now), activity, &Limits::default(), None).want_handshake
            };
            assert!(!look(&activity, 1), "nothing was sent");
            activity.sent = Some(at(2));
            assert!(look(&activity, 2));
            assert!(!look(&activity, 3), "no news");
            activity.sent = Some(at(4));
            assert!(!look(&activity, 4) && !look(&activity, 6), "asked lately");
            assert!(look(&activity, 7), "REKEY_TIMEOUT later");
        }
    }

    /// The specification: Linux `timers.c` and its callers, event by event, one second at a time.
    #[derive(Default)]
    struct Twin {
        keepalive_at: Option<u64>,
        handshake_at: Option<u64>,
        quiet_since: u64,
        has_sent: bool,
        has_received: bool,
        confirm_asked: bool,
        /// Traffic that wears the session out came after the last time we asked.
        worn: bool,
        asked_at: Option<u64>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Quiet,
        SendData,
        SendEmpty,
        ReceiveData,
        ReceiveEmpty,
    }

    /// Times small enough that random events meet every rule.
    fn compressed() -> Limits {
        Limits {
            rekey_after: Duration::from_secs(30),
            reject_after: Duration::from_secs(60),
            erase_after: Duration::from_secs(80),
            ..Limits::default()
        }
    }

    impl Twin {
        fn sent(&mut self, now: u64, role: Role) {
            self.keepalive_at = None;
            self.quiet_since = now;
            self.has_sent = true;
            self.wear(now, role, 30);
        }

        fn received(&mut self, now: u64, role: Role) {
            self.handshake_at = None;
            self.quiet_since = now;
            self.has_received = true;
            self.wear(now, role, 60 - 10 - 5);
        }

        /// What happens in the instant of asking is covered by it.
        fn wear(&mut self, now: u64, role: Role, age: u64) {
            self.worn |= role == Role::Initiator && now >= age && self.asked_at != Some(now);
        }

        fn event(&mut self, now: u64, role: Role, event: Event) {
            match event {
                Event::Quiet => {}
                Event::SendEmpty => self.sent(now, role),
                Event::SendData => {
                    self.sent(now, role);
                    self.handshake_at.get_or_insert(now + 15);
                }
                Event::ReceiveEmpty => self.received(now, role),
                Event::ReceiveData => {
                    self.received(now, role);
                    self.keepalive_at.get_or_insert(now + 10);
                }
            }
        }

        fn due(&mut self, now: u64, role: Role, persistent: Option<u64>) -> Due {
            if now >= 60 {
                return Due { expired: true, erase: now >= 80, ..NOTHING };
            }
            let mut due = NOTHING;
            if self.keepalive_at.take_if(|at| now >= *at).is_some() {
                due.send_keepalive = true;
            }
            if role == Role::Initiator && !self.has_sent && !self.confirm_asked {
                due.send_keepalive = true;
            }
            if persistent.is_some_and(|interval| now >= self.quiet_since + interval)
                && (role == Role::Initiator || self.has_received)
            {
                due.send_keepalive = true;
            }
            if due.send_keepalive {
                self.confirm_asked = true;
                self.quiet_since = now;
            }
            if self.handshake_at.take_if(|at| now >= *at).is_some() {
                due.want_handshake = true;
            }
            if self.worn && self.asked_at.is_none_or(|at| now >= at + 5) {
                due.want_handshake = true;
            }
            if due.want_handshake {
                self.worn = false;
                self.asked_at = Some(now);
            }
            due
        }
    }

    #[test]
    fn polling_agrees_with_timers_that_are_set_per_packet() {
        let event = prop_oneof![
            12 => Just(Event::Quiet),
            1 => Just(Event::SendData),
            1 => Just(Event::SendEmpty),
            1 => Just(Event::ReceiveData),
            1 => Just(Event::ReceiveEmpty),
        ];
        let world = (
            proptest::collection::vec(event, 90),
            prop_oneof![Just(Role::Initiator), Just(Role::Responder)],
            proptest::option::of(1u64..25),
            any::<bool>(),
        );
        let met = [const { Cell::new(0u32) }; 4];
        TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2000)
        })
        .run(&world, |(events, role, persistent, obedient)| {
            let (mut timers, mut twin) = (Timers::default(), Twin::default());
            let mut activity = Activity {
                created: at(0),
                role,
                messages_sent: 0,
                data_sent: None,
                data_received: None,
                sent: None,
                received: None,
            };
            for (now, event) in (0u64..).zip(events) {
                // A responder that was sent nothing sends nothing.
                let mute = role == Role::Responder && activity.received.is_none();
                let sends = matches!(event, Event::SendData | Event::SendEmpty);
                let event = if mute && sends { Event::Quiet } else { event };
                let instant = Some(at(now));
                match event {
                    Event::Quiet => {}
                    Event::SendEmpty => activity.sent = instant,
                    Event::SendData => (activity.sent, activity.data_sent) = (instant, instant),
                    Event::ReceiveEmpty => activity.received = instant,
                    Event::ReceiveData => {
                        (activity.received, activity.data_received) = (instant, instant);
                    }
                }
                twin.event(now, role, event);
                let want = twin.due(now, role, persistent);
                let due = timers.due(
                    at(now),
                    &activity,
                    &compressed(),
                    persistent.map(Duration::from_secs),
                );
                prop_assert_eq!(due, want, "at {} s", now);
                for (met, flag) in met.iter().zip([
                    due.send_keepalive,
                    due.want_handshake,
                    due.expired && !due.erase,
                    due.erase,
                ]) {
                    met.update(|n| n + u32::from(flag));
                }
                if due.send_keepalive && obedient {
                    activity.sent = instant;
                    twin.sent(now, role);
                }
            }
            Ok(())
        })
        .unwrap();
        assert!(met.iter().all(|count| count.get() > 100), "outcomes met: {met:?}");
    }
}
