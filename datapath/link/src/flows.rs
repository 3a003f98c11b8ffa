//! How the datapath treats flows: what an operator sets in `[flows]`.

use serde::{Deserialize, Serialize};

/// Everything about flows that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSetup {
    /// What becomes of a TCP packet in the middle of a connection that nobody saw open.
    pub midstream: Midstream,
    /// What the ends of a flow are told when the policy stops allowing it.
    pub on_revoke: OnRevoke,
    /// Flows that one source may open in one second: a peer, or an address of a plain segment.
    pub new_per_second: u32,
    /// Flows that one source may have open at once.
    pub live_per_source: u32,
    /// How long a flow may be silent.
    pub timeouts: FlowTimeouts,
}

impl Default for FlowSetup {
    fn default() -> Self {
        Self {
            midstream: Midstream::Adopt,
            on_revoke: OnRevoke::Drop,
            new_per_second: 4_096,
            live_per_source: 32_768,
            timeouts: FlowTimeouts::default(),
        }
    }
}

/// What becomes of a TCP packet in the middle of a connection that nobody saw open: after a
/// restart of the datapath these are all of them.
///
/// Either way a rule must allow the packet in its own direction, as it would have to allow the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Midstream {
    /// The end of the packet is `drop_midstream`; the hosts must connect anew.
    Refuse,
    /// The connection goes on. Until the other side has answered it counts as one that is only
    /// being opened.
    Adopt,
}

/// What the ends of a flow are told when the policy stops allowing it, at its next packet. Only who
/// had been allowed to speak is told anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnRevoke {
    /// Nothing: packets are dropped, and the hosts wait until they give up.
    #[default]
    Drop,
    /// TCP: both ends get a reset. Everything else as [`Self::Unreachable`].
    Reset,
    /// The sender gets an ICMP error: administratively prohibited.
    Unreachable,
}

/// How long a flow may be silent in each of its states, seconds. The defaults are those of Linux
/// (`net/netfilter/nf_conntrack_proto_tcp.c`, `_udp.c`, `_icmp.c`, `_generic.c`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTimeouts {
    /// TCP: a SYN was sent. `nf_conntrack_tcp_timeout_syn_sent`.
    pub syn_sent: u32,
    /// TCP: it was answered. `nf_conntrack_tcp_timeout_syn_recv`.
    pub syn_recv: u32,
    /// TCP: adopted in the middle, and not answered yet. `nf_conntrack_tcp_timeout_unacknowledged`.
    pub unacknowledged: u32,
    /// TCP: open. Five days; RFC 5382 REQ-5 asks for two hours and four minutes or more.
    /// `nf_conntrack_tcp_timeout_established`.
    pub established: u32,
    /// TCP: one side has sent FIN. `nf_conntrack_tcp_timeout_fin_wait`.
    pub fin_wait: u32,
    /// TCP: and the other has acknowledged it. `nf_conntrack_tcp_timeout_close_wait`.
    pub close_wait: u32,
    /// TCP: both have sent FIN. `nf_conntrack_tcp_timeout_last_ack`.
    pub last_ack: u32,
    /// TCP: both are acknowledged. `nf_conntrack_tcp_timeout_time_wait`.
    pub time_wait: u32,
    /// TCP: after RST. `nf_conntrack_tcp_timeout_close`.
    pub close: u32,
    /// UDP without an answer. `nf_conntrack_udp_timeout`.
    pub udp: u32,
    /// UDP with answers; RFC 4787 REQ-5 asks for two minutes or more.
    /// `nf_conntrack_udp_timeout_stream`.
    pub udp_stream: u32,
    /// ICMP and ICMPv6 queries. `nf_conntrack_icmp_timeout`.
    pub icmp: u32,
    /// Everything else. `nf_conntrack_generic_timeout`.
    pub other: u32,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        Self {
            syn_sent: 120,
            syn_recv: 60,
            unacknowledged: 300,
            established: 432_000,
            fin_wait: 120,
            close_wait: 60,
            last_ack: 30,
            time_wait: 120,
            close: 10,
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            other: 600,
        }
    }
}
