//! `[flows]`: what is remembered of connections, and how many there may be.

use core::time::Duration;

use serde::Serialize;

/// `[flows]`. All of it takes effect when the datapath starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// TCP packets in the middle of a connection that nobody saw open.
    pub midstream: Midstream,
    /// What the ends of a flow are told when the policy stops allowing it.
    pub on_revoke: OnRevoke,
    /// Flows that one source may open in a second.
    pub new_per_second: u32,
    /// Flows that one source may have open at once.
    pub live_per_source: u32,
    /// How long a flow may be silent.
    pub timeouts: FlowTimeouts,
}

/// What becomes of TCP packets in the middle of a connection that nobody saw open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Midstream {
    /// The connection goes on, if a rule would have let it open.
    #[default]
    Adopt,
    /// They are dropped.
    Refuse,
}

/// What the ends of a flow are told when the policy stops allowing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoke {
    /// Nothing.
    #[default]
    Drop,
    /// Both ends of a TCP connection get a reset, the sender of anything else an ICMP error.
    Reset,
    /// The sender gets an ICMP error.
    Unreachable,
}

/// `[flows.timeouts]`: whole seconds. The defaults are those of Linux
/// (`net/netfilter/nf_conntrack_proto_tcp.c` and its neighbours).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// A SYN was sent.
    pub tcp_syn_sent: Duration,
    /// It was answered.
    pub tcp_syn_recv: Duration,
    /// Adopted in the middle, and not answered yet.
    pub tcp_unacknowledged: Duration,
    /// Open.
    pub tcp_established: Duration,
    /// One side has sent FIN.
    pub tcp_fin_wait: Duration,
    /// And the other has acknowledged it.
    pub tcp_close_wait: Duration,
    /// Both sides have sent FIN.
    pub tcp_last_ack: Duration,
    /// Both are acknowledged.
    pub tcp_time_wait: Duration,
    /// After RST.
    pub tcp_close: Duration,
    /// UDP without an answer.
    pub udp: Duration,
    /// UDP with answers.
    pub udp_stream: Duration,
    /// ICMP and ICMPv6 queries.
    pub icmp: Duration,
    /// Every other protocol.
    pub other: Duration,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent: Duration::from_secs(120),
            tcp_syn_recv: Duration::from_secs(60),
            tcp_unacknowledged: Duration::from_secs(300),
            tcp_established: Duration::from_secs(432_000),
            tcp_fin_wait: Duration::from_secs(120),
            tcp_close_wait: Duration::from_secs(60),
            tcp_last_ack: Duration::from_secs(30),
            tcp_time_wait: Duration::from_secs(120),
            tcp_close: Duration::from_secs(10),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
            icmp: Duration::from_secs(30),
            other: Duration::from_secs(600),
        }
    }
}
