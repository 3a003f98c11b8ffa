//! `[flows]`.

use crate::limits::{self, default};
use crate::reader::Reader;
use crate::section::Section;
use crate::{FlowTimeouts, Flows, Midstream, OnRevoke, keys};

const MIDSTREAM: &[(&str, Midstream)] =
    &[("adopt", Midstream::Adopt), ("refuse", Midstream::Refuse)];

const ON_REVOKE: &[(&str, OnRevoke)] =
    &[("drop", OnRevoke::Drop), ("reset", OnRevoke::Reset), ("unreachable", OnRevoke::Unreachable)];

/// The table, or the defaults without one.
pub(super) fn flows<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Flows {
    let Some(section) = root.table(reader, "flows", keys::FLOWS) else {
        return Flows {
            midstream: Midstream::default(),
            on_revoke: OnRevoke::default(),
            new_per_second: narrow(default::NEW_FLOWS_PER_SECOND),
            live_per_source: narrow(default::LIVE_FLOWS_PER_SOURCE),
            timeouts: FlowTimeouts::default(),
        };
    };
    let new = section.number(
        reader,
        "new_per_second",
        limits::NEW_FLOWS_PER_SECOND,
        default::NEW_FLOWS_PER_SECOND,
    );
    let live = section.number(
        reader,
        "live_per_source",
        limits::LIVE_FLOWS_PER_SOURCE,
        default::LIVE_FLOWS_PER_SOURCE,
    );
    let midstream = section.choice(reader, "midstream", MIDSTREAM).unwrap_or_default();
    let on_revoke = section.choice(reader, "on_revoke", ON_REVOKE).unwrap_or_default();
    let timeouts = section
        .table(reader, "timeouts", keys::FLOW_TIMEOUTS)
        .map_or_else(FlowTimeouts::default, |section| timeouts(reader, &section));
    Flows {
        midstream,
        on_revoke,
        new_per_second: narrow(new.value),
        live_per_source: narrow(live.value),
        timeouts,
    }
}

fn timeouts<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> FlowTimeouts {
    let set = FlowTimeouts::default();
    let why = "flows are timed by a clock of seconds";
    let mut timeout =
        |key, default| section.seconds(reader, key, limits::FLOW_TIMEOUT, why).unwrap_or(default);
    FlowTimeouts {
        tcp_syn_sent: timeout("tcp_syn_sent", set.tcp_syn_sent),
        tcp_syn_recv: timeout("tcp_syn_recv", set.tcp_syn_recv),
        tcp_unacknowledged: timeout("tcp_unacknowledged", set.tcp_unacknowledged),
        tcp_established: timeout("tcp_established", set.tcp_established),
        tcp_fin_wait: timeout("tcp_fin_wait", set.tcp_fin_wait),
        tcp_close_wait: timeout("tcp_close_wait", set.tcp_close_wait),
        tcp_last_ack: timeout("tcp_last_ack", set.tcp_last_ack),
        tcp_time_wait: timeout("tcp_time_wait", set.tcp_time_wait),
        tcp_close: timeout("tcp_close", set.tcp_close),
        udp: timeout("udp", set.udp),
        udp_stream: timeout("udp_stream", set.udp_stream),
        icmp: timeout("icmp", set.icmp),
        other: timeout("other", set.other),
    }
}

/// The reader has checked the limits, which are within the type.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
