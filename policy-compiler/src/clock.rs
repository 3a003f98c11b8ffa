//! When a rule holds by the clock, and when that changes next.
//!
//! INVARIANT: [`Clock::next_change`] is the first moment after `now` at which [`Clock::holds`] gives
//! another answer; so whoever sleeps until then misses nothing, in whatever way clocks are set
//! forward and back in between.

use bulkhead_config::{Condition, TimeOfWeek};
use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Days to look ahead. Every window comes back after a week; one more for windows over midnight, and
/// another for zones that skip a day when they change sides of the date line.
const DAYS_AHEAD: u32 = 9;

/// The part of a condition that is about time.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    week: Option<(TimeOfWeek, TimeZone)>,
    starts: Option<Timestamp>,
    expires: Option<Timestamp>,
}

impl Clock {
    /// Takes it from a condition. A zone that is not known, which the configuration refuses, is UTC
    /// without any hour: such a window never holds.
    pub(crate) fn of(condition: &Condition) -> Self {
        let week = condition.time.as_ref().filter(|week| !week.always());
        let week = week.map(|week| match TimeZoneDatabase::bundled().get(&week.zone) {
            Ok(zone) => (week.clone(), zone),
            Err(_) => (TimeOfWeek { hours: Vec::new(), ..week.clone() }, TimeZone::UTC),
        });
        Self { week, starts: condition.starts, expires: condition.expires }
    }

    /// Whether it depends on the time at all.
    pub(crate) const fn ticks(&self) -> bool {
        self.week.is_some() || self.starts.is_some() || self.expires.is_some()
    }

    /// Whether it holds at a moment.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.starts.is_none_or(|starts| starts <= now)
            && self.expires.is_none_or(|expires| now < expires)
            && self.week.as_ref().is_none_or(|(week, zone)| in_week(week, zone, now))
    }

    /// The first moment after `now` at which it holds if it does not, or does not if it does; `None`
    /// if it stays as it is.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let holds = self.holds(now);
        let mut from = now;
        // A window that is shut for months (`starts`) opens in the week of that.
        for base in [Some(now), self.starts] {
            let Some(base) = base.filter(|base| *base >= from) else { continue };
            from = base;
            let mut moments: Vec<Timestamp> =
                [self.starts, self.expires].into_iter().flatten().collect();
            if let Some((week, zone)) = &self.week {
                let minutes: Vec<u16> =
                    week.hours.iter().flat_map(|(first, last)| [*first, *last]).collect();
                moments.extend(self::moments(&minutes, zone, base));
            }
            moments.sort_unstable();
            let found = moments.into_iter().find(|at| *at > now && self.holds(*at) != holds);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

fn in_week(week: &TimeOfWeek, zone: &TimeZone, now: Timestamp) -> bool {
    let local = zone.to_datetime(now);
    let minute =
        60 * u16::from(local.hour().unsigned_abs()) + u16::from(local.minute().unsigned_abs());
    let day = usize::from(local.date().weekday().to_monday_zero_offset().unsigned_abs());
    let counts = |day: usize| week.days.get(day % 7).copied().unwrap_or(false);
    week.hours.iter().any(|(first, last)| {
        if first < last {
            counts(day) && *first <= minute && minute < *last
        } else {
            // Over midnight: the evening of this day, or the morning after the day before.
            counts(day) && *first <= minute || counts(day + 6) && minute < *last
        }
    })
}

/// Every moment of the next days at which something could begin or end at `minutes` of the day or at
/// midnight: by the clock on the wall, both times where they come twice, and the moments at which that clock is set.
pub(crate) fn moments(minutes: &[u16], zone: &TimeZone, base: Timestamp) -> Vec<Timestamp> {
    let mut moments = Vec::new();
    let first = zone.to_datetime(base).date().yesterday().unwrap_or(Date::MIN);
    for date in first.series(Span::new().days(1)).take(usize::try_from(DAYS_AHEAD).unwrap_or(0) + 2)
    {
        for minute in minutes.iter().chain(&[0]) {
            let (date, minute) =
                if *minute == DAY { (date.tomorrow().unwrap_or(date), 0) } else { (date, *minute) };
            let (hour, minute) = (i8::try_from(minute / 60), i8::try_from(minute % 60));
            let (Ok(hour), Ok(minute)) = (hour, minute) else { continue };
            let Ok(time) = Time::new(hour, minute, 0, 0) else { continue };
            let wall = zone.to_ambiguous_zoned(date.to_datetime(time));
            moments.extend(wall.clone().earlier().ok().map(|at| at.timestamp()));
            moments.extend(wall.later().ok().map(|at| at.timestamp()));
        }
    }
    let end = base.checked_add(jiff::SignedDuration::from_hours(24 * i64::from(DAYS_AHEAD + 1)));
    let end = end.unwrap_or(Timestamp::MAX);
    let set = zone.following(base).map(|change| change.timestamp());
    moments.extend(set.take_while(|at| *at <= end));
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clock(days: &str, hours: &[(u16, u16)], zone: &str) -> Clock {
        let mut marks = days.chars().map(|day| day == 'x');
        Clock::of(&Condition {
            time: Some(TimeOfWeek {
                days: core::array::from_fn(|_| marks.next().unwrap()),
                hours: hours.to_vec(),
                zone: zone.to_owned(),
                text: String::new(),
            }),
            ..Condition::default()
        })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn office_hours_hold_on_their_days_by_the_clock_on_the_wall() {
        let office = clock("xxxxx..", &[(420, 1_140)], "Europe/Berlin");
        for (moment, want) in [
            // Winter, UTC+1: a Tuesday.
            ("2026-11-24T06:59:59.999+01:00", false),
            ("2026-11-24T07:00:00+01:00", true),
            ("2026-11-24T18:59:59.999+01:00", true),
            ("2026-11-24T19:00:00+01:00", false),
            // Summer, UTC+2.
            ("2026-07-24T05:00:00Z", true),
            ("2026-07-24T04:59:59Z", false),
            // A Saturday.
            ("2026-11-28T12:00:00+01:00", false),
        ] {
            assert_eq!(office.holds(at(moment)), want, "{moment}");
        }
        // Friday evening to Monday morning.
        let friday = at("2026-11-27T19:00:00+01:00");
        assert_eq!(office.next_change(friday), Some(at("2026-11-30T07:00:00+01:00")));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = clock("....x..", &[(1_320, 360)], "UTC");
        for (moment, want) in [
            ("2026-11-27T05:59:00Z", false), // Friday morning
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:59Z", true), // Saturday morning
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
        ] {
            assert_eq!(night.holds(at(moment)), want, "{moment}");
        }
        assert_eq!(night.next_change(at("2026-11-27T23:00:00Z")), Some(at("2026-11-28T06:00:00Z")));
    }

    /// In Berlin 02:00 became 03:00 on 29 March 2026, and 03:00 became 02:00 on 25 October.
    #[test]
    fn an_hour_that_comes_twice_counts_twice_and_one_that_does_not_come_does_not() {
        let early = clock("xxxxxxx", &[(150, 180)], "Europe/Berlin");
        let spring = at("2026-03-28T12:00:00+01:00");
        // 02:30 to 03:00 is skipped on the 29th: the next is on the 30th.
        assert_eq!(early.next_change(spring), Some(at("2026-03-30T02:30:00+02:00")));
        let late = clock("xxxxxxx", &[(150, 240)], "Europe/Berlin");
        // 02:30 to 04:00 begins at 03:00, the first minute that is there.
        assert_eq!(late.next_change(spring), Some(at("2026-03-29T03:00:00+02:00")));

        let mut now = at("2026-10-25T00:00:00+02:00");
        let mut seen = Vec::new();
        for _ in 0..4 {
            now = early.next_change(now).unwrap();
            seen.push(now);
        }
        let want = ["02:30:00+02:00", "03:00:00+02:00", "02:30:00+01:00", "03:00:00+01:00"];
        assert_eq!(seen, want.map(|time| at(&format!("2026-10-25T{time}"))));
    }

    #[test]
    fn a_rule_begins_and_ends_at_its_moments() {
        let span = Condition {
            starts: Some(at("2027-01-01T00:00:00Z")),
            expires: Some(at("2027-02-01T00:00:00Z")),
            ..Condition::default()
        };
        let (clock, now) = (Clock::of(&span), at("2026-11-24T00:00:00Z"));
        assert!(!clock.holds(now) && clock.holds(span.starts.unwrap()));
        assert!(!clock.holds(span.expires.unwrap()));
        assert_eq!(clock.next_change(now), span.starts);
        assert_eq!(clock.next_change(span.starts.unwrap()), span.expires);
        assert_eq!(clock.next_change(span.expires.unwrap()), None);
        assert!(!Clock::of(&Condition::default()).ticks());
    }

    /// Months before it starts, the first window after that is found.
    #[test]
    fn a_window_that_starts_later_opens_in_the_week_of_its_start() {
        let mut clock = clock("x......", &[(540, 600)], "UTC");
        clock.starts = Some(at("2027-06-02T00:00:00Z")); // a Wednesday
        let now = at("2026-11-24T00:00:00Z");
        assert_eq!(clock.next_change(now), Some(at("2027-06-07T09:00:00Z")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// The twin looks at every minute.
        #[test]
        fn the_next_change_is_the_first_minute_with_another_answer(
            marks in prop::collection::vec(any::<bool>(), 7),
            hours in prop::collection::vec((0..1_440u16, 1..1_440u16), 1..3),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            // Around both changes of the clocks in each of the zones, and any other time.
            base in prop::sample::select(vec![1_774_700_000i64, 1_772_900_000, 1_793_000_000, 1_775_300_000, 1_780_000_000]),
            offset in 0..400_000i64,
        ) {
            let marks: String = marks.iter().map(|mark| if *mark { 'x' } else { '.' }).collect();
            let hours: Vec<_> = hours.into_iter().filter(|(first, last)| first != last).collect();
            let clock = clock(&marks, &hours, zone);
            let minute = (base + offset) / 60;
            let moment = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
            let holds = clock.holds(moment(minute));
            let other = (minute + 1..minute + 60 * 24 * 8).find(|at| clock.holds(moment(*at)) != holds);
            prop_assert_eq!(clock.next_change(moment(minute)), other.map(moment));
        }
    }
}
