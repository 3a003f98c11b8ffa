//! The clock on the wall, as expressions (`when`) see it: `context.weekday` and `context.minute`.
//!
//! INVARIANT: between two moments that [`Wall::next_change`] gives, [`Wall::seen`] stays the same; and
//! an expression has the same outcome wherever that is the same.

use std::collections::BTreeSet;

use bulkhead_config::{Condition, Name};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use crate::clock::moments;

/// What of the clock an expression looks at.
#[derive(Clone, Debug)]
pub(crate) struct Wall {
    zone: TimeZone,
    /// Whether it looks at the day.
    weekday: bool,
    /// At which minutes it may turn around; `None`: at every one.
    minutes: Option<Vec<u16>>,
}

/// What an expression can tell apart: the day, if it looks at it, and the minute or which of the
/// stretches between the minutes that matter.
pub(crate) type Seen = (i64, usize);

impl Wall {
    /// That of a condition; `None` if its expression does not look at the clock, or there is none.
    pub(crate) fn of(condition: &Condition) -> Option<Self> {
        let when = condition.when.as_ref()?;
        let names: BTreeSet<&Name> = when.parts().iter().flat_map(|part| part.names()).collect();
        if !names.iter().any(|name| name.ticks()) {
            return None;
        }
        let zone = condition.time.as_ref().map_or("UTC", |time| time.zone.as_str());
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC);
        let mut minutes = Some(BTreeSet::new());
        for part in when.parts() {
            minutes = minutes.zip(part.minutes()).map(|(all, more)| &all | &more);
        }
        Some(Self {
            zone,
            weekday: names.contains(&Name::Weekday),
            minutes: minutes.map(|minutes| minutes.into_iter().collect()),
        })
    }

    /// Day of the week, 1 for Monday to 7, and minute of the day.
    pub(crate) fn read(&self, now: Timestamp) -> (i64, i64) {
        let local = self.zone.to_datetime(now);
        let minute = 60 * i64::from(local.hour()) + i64::from(local.minute());
        (i64::from(local.date().weekday().to_monday_one_offset()), minute)
    }

    /// What the expression sees of a moment.
    pub(crate) fn seen(&self, now: Timestamp) -> Seen {
        let (weekday, minute) = self.read(now);
        let stretch = match &self.minutes {
            Some(minutes) => minutes.partition_point(|at| i64::from(*at) <= minute),
            None => usize::try_from(minute).unwrap_or(0),
        };
        (if self.weekday { weekday } else { 0 }, stretch)
    }

    /// The first moment after `now` at which it sees something else; `None` if that never comes.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let mut moments = match &self.minutes {
            Some(minutes) => moments(minutes, &self.zone, now),
            None => vec![self.next_minute(now)?],
        };
        moments.extend(self.zone.following(now).map(|change| change.timestamp()).take(1));
        moments.sort_unstable();
        let seen = self.seen(now);
        moments.into_iter().find(|at| *at > now && self.seen(*at) != seen)
    }

    /// The next full minute on the wall; offsets of whole minutes or not.
    fn next_minute(&self, now: Timestamp) -> Option<Timestamp> {
        let local = self.zone.to_datetime(now);
        let second = i64::from(local.second());
        let left = SignedDuration::from_secs(60 - second);
        let past = SignedDuration::from_nanos(i64::from(local.subsec_nanosecond()));
        now.checked_add(left).ok()?.checked_sub(past).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wall(weekday: bool, minutes: Option<&[u16]>, zone: &str) -> Wall {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        Wall { zone, weekday, minutes: minutes.map(<[u16]>::to_vec) }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_counted_from_monday_and_minutes_from_midnight_on_the_wall() {
        let berlin = wall(true, None, "Europe/Berlin");
        assert_eq!(berlin.read(at("2026-11-23T08:01:59+01:00")), (1, 481));
        assert_eq!(berlin.read(at("2026-11-22T23:30:00Z")), (1, 30));
        assert_eq!(berlin.read(at("2026-11-22T22:59:59Z")), (7, 1_439));
    }

    #[test]
    fn only_the_minutes_that_matter_wake_anybody() {
        let office = wall(false, Some(&[420, 1_140]), "Europe/Berlin");
        let now = at("2026-11-24T12:00:00+01:00");
        assert_eq!(office.next_change(now), Some(at("2026-11-24T19:00:00+01:00")));
        // Midnight is one too: the stretch before the first minute begins anew.
        let night = at("2026-11-24T19:00:00+01:00");
        assert_eq!(office.next_change(night), Some(at("2026-11-25T00:00:00+01:00")));
        let days = wall(true, Some(&[]), "Europe/Berlin");
        assert_eq!(days.next_change(now), Some(at("2026-11-25T00:00:00+01:00")));
        let every = wall(false, None, "Europe/Berlin");
        let odd = at("2026-11-24T12:00:59.5Z");
        assert_eq!(every.next_change(odd), Some(at("2026-11-24T12:01:00Z")));
        assert_eq!(every.next_change(at("2026-11-24T12:01:00Z")), Some(at("2026-11-24T12:02:00Z")));
        assert_eq!(wall(false, Some(&[]), "UTC").next_change(now), None);
    }

    proptest! {
        /// The twin looks at every second, around changes of the clock too.
        #[test]
        fn nothing_is_seen_to_change_before_it_is_said_to(
            base in prop::sample::select(vec![
                "2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z", "2026-11-24T22:00:00Z",
            ]),
            seconds in 0..14_400i64,
            weekday in any::<bool>(),
            minutes in prop::option::of(prop::collection::btree_set(0..=1_440u16, 0..4)),
            zone in prop::sample::select(vec!["Europe/Berlin", "UTC", "Australia/Lord_Howe"]),
        ) {
            let minutes: Option<Vec<u16>> = minutes.map(|all| all.into_iter().collect());
            let wall = wall(weekday, minutes.as_deref(), zone);
            let now = at(base) + SignedDuration::from_secs(seconds);
            let next = wall.next_change(now);
            let seen = wall.seen(now);
            let mut found = None;
            for second in 1..7_200 {
                let then = now + SignedDuration::from_secs(second);
                if wall.seen(then) != seen {
                    found = Some(then);
                    break;
                }
            }
            match found {
                Some(found) => prop_assert_eq!(next, Some(found)),
                None => prop_assert!(next.is_none_or(|at| at >= now + SignedDuration::from_secs(7_200))),
            }
        }
    }
}
