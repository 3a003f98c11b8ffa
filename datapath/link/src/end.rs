//! How a packet can end. Every received packet ends in exactly one of these.

use serde::{Deserialize, Serialize};

macro_rules! ends {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal,)+) => {
        /// The end of a packet: one variant, one counter, one metric.
        ///
        /// The law of each worker, between any two batches:
        /// `received + handed_in == sum of all ends + held + handed_out`, where `held` counts
        /// packets that wait for a session or a neighbour.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[repr(u8)]
        pub enum End {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl End {
            /// All ends, in the order of their counters.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in metrics, JSON and documentation.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for the operator.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii(),)+ }
            }
        }
    };
}

ends! {
    /// Sent on, encrypted to a peer or plain to a segment.
    Forwarded = "forwarded",
    /// A WireGuard keepalive: authenticated, empty, consumed here.
    Keepalive = "keepalive",
    /// A WireGuard handshake message with a right MAC1, handed to the control process.
    Handshake = "handshake",
    /// A WireGuard handshake message answered with a cookie reply: the gateway is under load, or
    /// this source sends too many, and the message did not prove where it comes from.
    CookieReply = "cookie_reply",

    /// No Ethernet, IP or UDP header that we accept before the tunnel was opened.
    DropOuterMalformed = "drop_outer_malformed",
    /// A frame for another station's hardware address, flooded to us by a switch.
    DropOtherStation = "drop_other_station",
    /// UDP for a WireGuard port that is no WireGuard message.
    DropNotWireguard = "drop_not_wireguard",
    /// A handshake message whose MAC1 is wrong: a stranger, who gets no answer.
    DropMac1 = "drop_mac1",
    /// More handshake messages from one source than 20 a second.
    DropHandshakeRate = "drop_handshake_rate",
    /// A cookie reply was due on a listener that is dark.
    DropDark = "drop_dark",
    /// A cookie reply was due, but this worker has sent as many in this second as it may.
    DropCookieRate = "drop_cookie_rate",
    /// A handshake response or cookie reply to an index that this gateway never gives out.
    DropUnasked = "drop_unasked",
    /// The queue of handshakes to the control process is full, or nobody reads it.
    DropHandshakeQueueFull = "drop_handshake_queue_full",
    /// A data packet for a receiver index that has no session.
    DropNoSession = "drop_no_session",
    /// A data packet whose session is older than REJECT_AFTER_TIME.
    DropSessionExpired = "drop_session_expired",
    /// A data packet that does not authenticate.
    DropForged = "drop_forged",
    /// A data packet seen before, or older than the replay window.
    DropReplayed = "drop_replayed",
    /// The inner packet of a tunnel, or a segment's packet, has no IP header that we accept.
    DropInnerMalformed = "drop_inner_malformed",
    /// Congestion was marked on the outer header of a packet that cannot carry the mark (RFC 6040).
    DropEcn = "drop_ecn",
    /// A later fragment whose first has not passed here before it.
    DropFragment = "drop_fragment",
    /// A fragment that overlaps others of its datagram, or contradicts where it ends; so the whole goes.
    DropFragmentOverlap = "drop_fragment_overlap",
    /// A first fragment too short for the headers that a rule looks at, or a later one without data.
    DropFragmentTiny = "drop_fragment_tiny",
    /// No endpoint has this source address.
    DropUnknownSource = "drop_unknown_source",
    /// The source address belongs to an endpoint that does not live behind this peer or port.
    DropSpoofedSource = "drop_spoofed_source",
    /// No endpoint has this destination address.
    DropUnknownDestination = "drop_unknown_destination",
    /// No rule allows anything from this source to this destination.
    DropNoRule = "drop_no_rule",
    /// A rule allows something between the two, but not this protocol and port.
    DropPortNotAllowed = "drop_port_not_allowed",
    /// A TCP packet in the middle of a connection that nobody here saw open.
    DropMidstream = "drop_midstream",
    /// The source opens more flows than one may, in a second or at once.
    DropNewFlowLimit = "drop_new_flow_limit",
    /// The packet would open a flow, and there is room for established ones only.
    DropFlowTableFull = "drop_flow_table_full",
    /// The flow was live until the policy stopped allowing it.
    DropRevoked = "drop_revoked",
    /// An ICMP error that quotes no flow of ours.
    DropUnmatchedIcmpError = "drop_unmatched_icmp_error",
    /// The hop limit ran out here.
    DropHopLimit = "drop_hop_limit",
    /// Larger than the way out can carry.
    DropTooBig = "drop_too_big",
    /// Would leave through the tunnel or segment that it came from.
    DropHairpin = "drop_hairpin",
    /// The destination's peer has no session and could not get one in time.
    DropPeerUnreachable = "drop_peer_unreachable",
    /// The destination's neighbour did not answer in time.
    DropNeighbourUnreachable = "drop_neighbour_unreachable",
    /// Too many packets wait for sessions and neighbours already; the oldest went.
    DropWaitingFull = "drop_waiting_full",
    /// The session has used up its message counters.
    DropCounterExhausted = "drop_counter_exhausted",
    /// The ring to the worker that owns the session is full.
    DropHandoffFull = "drop_handoff_full",
    /// The transmit ring of the way out is full, or the port is gone.
    DropTransmitFull = "drop_transmit_full",
}

/// One count per [`End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends(Vec<u64>);

impl Default for Ends {
    fn default() -> Self {
        Self(vec![0; End::ALL.len()])
    }
}

impl Ends {
    /// The count of one end.
    #[must_use]
    pub fn get(&self, end: End) -> u64 {
        self.0.get(end as usize).copied().unwrap_or(0)
    }

    /// Adds to the count of one end.
    pub fn add(&mut self, end: End, count: u64) {
        if let Some(sum) = self.0.get_mut(end as usize) {
            *sum = sum.wrapping_add(count);
        }
    }

    /// The sum over all ends.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Every end with its count, in order.
    pub fn iter(&self) -> impl Iterator<Item = (End, u64)> + '_ {
        End::ALL.iter().map(|end| (*end, self.get(*end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_metric_names_and_meanings_are_sentences() {
        let names: BTreeSet<_> = End::ALL.iter().map(|end| end.name()).collect();
        assert_eq!(names.len(), End::ALL.len());
        for (at, end) in End::ALL.iter().enumerate() {
            assert_eq!(*end as usize, at, "the discriminant is the counter's index");
            assert!(end.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'1'));
            assert!(end.meaning().ends_with('.'), "{}", end.meaning());
        }
    }

    #[test]
    fn the_total_is_the_sum() {
        let mut ends = Ends::default();
        ends.add(End::Forwarded, 3);
        ends.add(End::DropTransmitFull, 4);
        assert_eq!((ends.total(), ends.get(End::Forwarded), ends.get(End::Keepalive)), (7, 3, 0));
    }
}
