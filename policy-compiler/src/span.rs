//! Sets of services as ranges, and what is in one and not in another.

use core::fmt;

use bulkhead_table::{Run, Service};
use serde::{Serialize, Serializer};

/// An inclusive range of services, maybe over several protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceSpan {
    /// The first.
    pub first: Service,
    /// The last; not below `first`.
    pub last: Service,
}

/// The services of some runs, whatever their rules: sorted, and joined where they touch.
pub(crate) fn spans(runs: &[Run]) -> Vec<ServiceSpan> {
    join(runs.iter().map(|run| ServiceSpan { first: run.first, last: run.last }).collect())
}

/// Sorts spans and joins those that touch or overlap.
pub(crate) fn join(mut spans: Vec<ServiceSpan>) -> Vec<ServiceSpan> {
    spans.sort_unstable();
    let mut joined: Vec<ServiceSpan> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.last.next().is_none_or(|next| span.first <= next) => {
                last.last = last.last.max(span.last);
            }
            Some(_) | None => joined.push(span),
        }
    }
    joined
}

/// What is in `a` and not in `b`; both are sorted and disjoint.
pub(crate) fn without(a: &[ServiceSpan], b: &[ServiceSpan]) -> Vec<ServiceSpan> {
    let mut left = Vec::new();
    let mut holes = b.iter().copied().peekable();
    for span in a {
        let mut first = Some(span.first);
        while holes.peek().is_some_and(|hole| hole.last < span.first) {
            holes.next();
        }
        while let (Some(from), Some(hole)) = (first, holes.peek().copied())
            && hole.first <= span.last
        {
            if let Some(last) = hole.first.previous()
                && from <= last
            {
                left.push(ServiceSpan { first: from, last });
            }
            first = hole.last.next().filter(|next| *next <= span.last);
            if hole.last > span.last {
                break;
            }
            holes.next();
        }
        if let Some(first) = first {
            left.push(ServiceSpan { first, last: span.last });
        }
    }
    left
}

/// How many services there are in some spans.
pub(crate) fn count(spans: &[ServiceSpan]) -> u64 {
    spans.iter().map(|span| u64::from(span.last.bits() - span.first.bits()) + 1).sum()
}

impl fmt::Display for ServiceSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = *self;
        if (first, last) == (Service::MIN, Service::MAX) {
            return f.write_str("any");
        }
        if first == last {
            return first.fmt(f);
        }
        let whole = |service: Service, port| service.port() == port;
        match (first.protocol() == last.protocol(), whole(first, 0) && whole(last, u16::MAX)) {
            (true, true) => match first.protocol() {
                1 => f.write_str("icmp"),
                6 => f.write_str("tcp"),
                17 => f.write_str("udp"),
                58 => f.write_str("icmpv6"),
                protocol => write!(f, "protocol/{protocol}"),
            },
            (false, true) => write!(f, "protocol/{}-{}", first.protocol(), last.protocol()),
            (true, false) if [6, 17].contains(&first.protocol()) => {
                write!(f, "{first}-{}", last.port())
            }
            // All codes of a type: the type is in the upper byte.
            (true, false)
                if [1, 58].contains(&first.protocol())
                    && first.port() & 0xff == 0
                    && first.port() | 0xff == last.port() =>
            {
                match (first.protocol(), first.port() >> 8) {
                    (1, 8) => f.write_str("icmp/echo"),
                    (58, 128) => f.write_str("icmpv6/echo"),
                    (1, kind) => write!(f, "icmp/{kind}"),
                    (_, kind) => write!(f, "icmpv6/{kind}"),
                }
            }
            (_, _) => write!(f, "{first} to {last}"),
        }
    }
}

impl Serialize for ServiceSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(first: u32, last: u32) -> ServiceSpan {
        let service = |bits| Service::from_bits(bits).unwrap();
        ServiceSpan { first: service(first), last: service(last) }
    }

    fn some() -> impl Strategy<Value = Vec<ServiceSpan>> {
        // The smallest and the largest services.
        let bound = prop_oneof![0..20u32, 0x00ff_fff0..=0x00ff_ffffu32];
        let one = (bound.clone(), bound).prop_map(|(a, b)| span(a.min(b), a.max(b)));
        prop::collection::vec(one, 0..6)
    }

    proptest! {
        /// The twin asks for each service alone.
        #[test]
        fn what_is_left_is_in_the_one_and_not_in_the_other(a in some(), b in some()) {
            let has = |spans: &[ServiceSpan], service| {
                spans.iter().any(|span| span.first <= service && service <= span.last)
            };
            let (joined_a, joined_b) = (join(a.clone()), join(b.clone()));
            let left = without(&joined_a, &joined_b);
            for bits in (0..24u32).chain(0x00ff_ffe8..=0x00ff_ffff) {
                let service = Service::from_bits(bits).unwrap();
                prop_assert_eq!(has(&joined_a, service), has(&a, service));
                prop_assert_eq!(has(&left, service), has(&a, service) && !has(&b, service));
            }
            for pair in left.windows(2).chain(joined_a.windows(2)) {
                prop_assert!(pair[0].last < pair[1].first);
            }
        }
    }

    #[test]
    fn spans_are_named_as_in_the_file() {
        for (first, last, want) in [
            (Service::MIN, Service::MAX, "any"),
            (Service::tcp(443), Service::tcp(443), "tcp/443"),
            (Service::tcp(0), Service::tcp(65_535), "tcp"),
            (Service::udp(1), Service::udp(9), "udp/1-9"),
            (Service::icmp(8, 0), Service::icmp(8, 255), "icmp/echo"),
            (Service::icmp(13, 0), Service::icmp(13, 255), "icmp/13"),
            (Service::icmp(8, 0), Service::icmp(9, 255), "icmp/8.0 to icmp/9.255"),
            (Service::new(58, 128 << 8), Service::new(58, (128 << 8) + 255), "icmpv6/echo"),
            (Service::other(50), Service::new(51, 65_535), "protocol/50-51"),
            (Service::tcp(9), Service::udp(9), "tcp/9 to udp/9"),
        ] {
            assert_eq!(ServiceSpan { first, last }.to_string(), want);
        }
        assert_eq!(count(&[span(0, 9), span(20, 20)]), 11);
    }
}
