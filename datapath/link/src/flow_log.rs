//! What became of flows, for the flow log.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Counted, End};

/// Records that one message carries at most: some 50 KB with everything at its longest, so that a
/// message of something else does not wait for long.
pub const FLOW_RECORDS_MAX: usize = 400;

/// Something that happened to a flow whose rule is logged, or to a packet that wanted to open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// What.
    pub event: FlowEvent,
    /// When, in seconds of the datapath's clock.
    pub at_s: u32,
    /// Who opened it, or wanted to.
    pub from: IpAddr,
    /// To whom.
    pub to: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// The opener's port; 0 for protocols without ports.
    pub from_port: u16,
    /// The other's port; of ICMP `type << 8 | code`, and 0 for protocols without ports.
    pub to_port: u16,
    /// The name of the rule, as the table has it; 0: no rule allows it.
    pub tag: u64,
    /// Of the table that it was judged by; of an end, of the table in force then.
    pub generation: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowEvent {
    /// It was opened.
    Opened,
    /// It is over.
    Closed(FlowPast),
    /// The packet that wanted to open it ended so.
    Denied(End),
}

/// A flow that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPast {
    /// Why.
    pub reason: FlowEnding,
    /// When it was opened, in seconds of the datapath's clock.
    pub opened_s: u32,
    /// When its last packet passed.
    pub last_s: u32,
    /// What the policy let pass of who opened it, from the inner IP header on.
    pub sent: Counted,
    /// And of the answers.
    pub returned: Counted,
}

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FlowEnding {
    /// It was silent for too long.
    Timeout,
    /// Both sides had sent FIN.
    Fin,
    /// One had sent RST.
    Reset,
    /// It is not allowed any more.
    Revoked,
    /// A new flow has its place.
    Displaced,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FromDatapath;

    #[test]
    fn a_full_message_is_short() {
        let most = Counted { packets: u64::MAX, bytes: u64::MAX };
        let past = FlowPast {
            reason: FlowEnding::Displaced,
            opened_s: u32::MAX,
            last_s: u32::MAX,
            sent: most,
            returned: most,
        };
        let one = FlowRecord {
            event: FlowEvent::Closed(past),
            at_s: u32::MAX,
            from: "ffff::ffff".parse().unwrap(),
            to: "ffff::ffff".parse().unwrap(),
            protocol: 255,
            from_port: u16::MAX,
            to_port: u16::MAX,
            tag: u64::MAX,
            generation: u64::MAX,
        };
        let records = vec![one; FLOW_RECORDS_MAX];
        let message = FromDatapath::Flows { now_ms: u64::MAX, wall_ms: u64::MAX, records };
        let bytes = postcard::to_stdvec(&message).unwrap();
        assert!(bytes.len() < 64_000, "{}", bytes.len());
        let FromDatapath::Flows { records, .. } = postcard::from_bytes(&bytes).unwrap() else {
            panic!("another message")
        };
        assert_eq!((records.len(), records[0]), (FLOW_RECORDS_MAX, one));
    }
}
