//! Records of the flow log on their way from the workers' rings to control.

use bulkhead_engine::{Event, LinkRings, Past, Record};
use bulkhead_link::{FLOW_RECORDS_MAX, FlowEvent, FlowPast, FlowRecord, FromDatapath};
use bulkhead_table::Service;

/// Tells control what the workers have logged, in at most `room` messages, with the datapath's clock and the
/// wall clock of now. What is left waits in the rings,
/// each worker's in its own; who is asked first changes with the time, so that none of them waits for long
/// where there is little room.
pub(crate) fn tell_records(
    links: &mut [LinkRings],
    mut room: usize,
    (now_ms, wall_ms): (u64, u64),
    tell: &mut dyn FnMut(FromDatapath),
) {
    let first = usize::try_from(now_ms).unwrap_or(0) % links.len().max(1);
    links.rotate_left(first);
    let mut told = true;
    while std::mem::take(&mut told) {
        for rings in links.iter_mut() {
            if room == 0 || rings.records.is_empty() {
                continue;
            }
            let next = std::iter::from_fn(|| rings.records.pop().ok());
            let records = next.take(FLOW_RECORDS_MAX).map(|record| told_of(&record)).collect();
            tell(FromDatapath::Flows { now_ms, wall_ms, records });
            (room, told) = (room - 1, true);
        }
    }
    links.rotate_right(first);
}

fn told_of(record: &Record) -> FlowRecord {
    let Record { event, at_s, tag, key, service, generation } = *record;
    let event = match event {
        Event::Opened => FlowEvent::Opened,
        Event::Denied(end) => FlowEvent::Denied(end),
        Event::Closed(Past { reason, opened_s, last_s, sent, returned }) => {
            FlowEvent::Closed(FlowPast { reason, opened_s, last_s, sent, returned })
        }
    };
    FlowRecord {
        event,
        at_s,
        from: key.source.to_ip(),
        to: key.destination.to_ip(),
        protocol: key.protocol,
        from_port: from_port(key.source_port, service),
        to_port: service.port(),
        tag: tag.0,
        generation,
    }
}

/// Of ICMP the key has an identifier, or type and code, where others have a port.
fn from_port(port: u16, service: Service) -> u16 {
    match service.protocol() {
        1 | 58 => 0,
        _ => port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_engine::flow::FlowKey;
    use bulkhead_engine::{FlowLog, rings};
    use bulkhead_link::{Counted, End, FlowEnding};
    use bulkhead_table::RuleTag;
    use bulkhead_wire::Address;

    fn record(at_s: u32, event: Event, service: Service) -> Record {
        let ip = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
        let key = FlowKey {
            source: ip("10.44.0.7"),
            destination: ip("fd20::5"),
            source_port: 4_000,
            destination_port: 443,
            protocol: service.protocol(),
        };
        Record { event, at_s, tag: RuleTag(9), key, service, generation: 3 }
    }

    /// Of each message the first record's time, and how many.
    fn told(links: &mut [LinkRings], room: usize, now_ms: u64) -> Vec<(u32, usize)> {
        let mut messages = vec![];
        tell_records(links, room, (now_ms, now_ms + 5), &mut |message| {
            let FromDatapath::Flows { now_ms: at, wall_ms, records } = message else {
                panic!("{message:?}")
            };
            assert_eq!((at, wall_ms), (now_ms, now_ms + 5));
            messages.push((records[0].at_s, records.len()));
        });
        messages
    }

    #[test]
    fn each_worker_is_heard_in_turn_and_nothing_is_told_without_room() {
        let (mut workers, mut links) = rings(2, 1);
        let write = |log: &mut FlowLog, from: u32, count: u32| {
            (from..from + count)
                .for_each(|at| log.write(record(at, Event::Opened, Service::tcp(443))));
        };
        write(&mut workers[0].log, 0, 1_000);
        write(&mut workers[1].log, 10_000, 500);
        assert!(told(&mut links, 0, 6).is_empty());
        assert_eq!(told(&mut links, 1, 6), [(0, 400)]);
        assert_eq!(told(&mut links, 1, 7), [(10_000, 400)], "another is first");
        assert_eq!(told(&mut links, 9, 8), [(400, 400), (10_400, 100), (800, 200)]);
        assert!(told(&mut links, 9, 9).is_empty());
    }

    #[test]
    fn nothing_of_a_record_is_lost_on_the_way() {
        let sent = Counted { packets: 3, bytes: 300 };
        let returned = Counted { packets: 2, bytes: 90 };
        let past = Past { reason: FlowEnding::Reset, opened_s: 5, last_s: 8, sent, returned };
        let closed = told_of(&record(9, Event::Closed(past), Service::udp(443)));
        let want = FlowPast { reason: FlowEnding::Reset, opened_s: 5, last_s: 8, sent, returned };
        assert_eq!(closed.event, FlowEvent::Closed(want));
        assert_eq!((closed.from.to_string().as_str(), closed.from_port), ("10.44.0.7", 4_000));
        assert_eq!((closed.to.to_string().as_str(), closed.to_port), ("fd20::5", 443));
        assert_eq!((closed.at_s, closed.protocol, closed.tag, closed.generation), (9, 17, 9, 3));
        let ping = told_of(&record(9, Event::Denied(End::DropNoRule), Service::icmpv6(128, 1)));
        assert_eq!(ping.event, FlowEvent::Denied(End::DropNoRule));
        assert_eq!((ping.protocol, ping.from_port, ping.to_port), (58, 0, 128 << 8 | 1));
        let other = told_of(&record(9, Event::Opened, Service::other(50)));
        assert_eq!((other.event, other.protocol, other.to_port), (FlowEvent::Opened, 50, 0));
    }
}
