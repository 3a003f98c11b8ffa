//! How far a flow has come: the states of TCP by SYN, FIN and RST, and what there is for others.
//!
//! ```text
//!            SYN            SYN+ACK            ACK               FIN
//!   (none) ─────▶ SynSent ─────────▶ SynRecv ─────▶ Established ─────▶ FinWait ┐ ACK
//!       └ ACK, adopted ─▶ Adopted ─ answer ───────────────▲                    ▼
//!   Close ◀─ RST from anywhere       TimeWait ◀─ ACK ─ LastAck ◀─ FIN ─ CloseWait
//! ```
//!
//! There is no window tracking: a packet of an open flow passes whatever its sequence number, and
//! the hosts decide what to make of it. The states say how long a silent flow lives and which
//! flows may be given up for new ones; they never allow anything.
//!
//! Names and timeouts are those that an operator knows from Linux (`nf_conntrack_proto_tcp.c`). The
//! one difference: we know which side sent the first FIN, so its repetition is no second FIN.

use bulkhead_link::{FlowTimeouts, Midstream};
use bulkhead_wire::{TcpFlags, Transport};

/// How far a flow has come. Zero is a free place.
///
/// Of a closing connection the name ends with the side that sent the first FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// No flow.
    #[default]
    Free,
    /// The opener's SYN has passed.
    SynSent,
    /// The responder has answered it.
    SynRecv,
    /// Taken up in the middle; the other side has not answered yet.
    Adopted,
    /// Both sides have spoken.
    Established,
    /// The opener has sent FIN.
    FinWaitOpener,
    /// The responder has sent FIN.
    FinWaitResponder,
    /// The opener has sent FIN, and the responder has acknowledged it.
    CloseWaitOpener,
    /// The responder has sent FIN, and the opener has acknowledged it.
    CloseWaitResponder,
    /// Both have sent FIN, the opener first: it owes the last acknowledgement.
    LastAckOpener,
    /// Both have sent FIN, the responder first: it owes the last acknowledgement.
    LastAckResponder,
    /// Over, in good order.
    TimeWait,
    /// Over, by RST.
    Close,
    /// UDP without an answer.
    Udp,
    /// UDP with answers.
    UdpStream,
    /// An ICMP query.
    Icmp,
    /// Another protocol, without an answer.
    Other,
    /// Another protocol, with answers.
    OtherStream,
    /// A rule allowed it, and none does any more. Only a worker's cache remembers it so, to answer
    /// what still comes; it is no flow, and nothing passes because of it.
    Revoked,
}

/// Which side of a flow sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one whose packet opened the flow.
    Opener,
    /// The other.
    Responder,
}

impl Side {
    /// Who of (sender, receiver) is (opener, responder).
    #[inline]
    #[must_use]
    pub fn order<T>(self, (sender, receiver): (T, T)) -> (T, T) {
        match self {
            Self::Opener => (sender, receiver),
            Self::Responder => (receiver, sender),
        }
    }
}

/// What a packet means to the state of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Input {
    /// SYN without ACK: opens.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK and none of the others.
    Ack,
    /// FIN, with or without ACK.
    Fin,
    /// RST.
    Rst,
    /// TCP with none of these, or with SYN and FIN: no host sends it in earnest.
    Senseless,
    /// Not TCP.
    Plain,
}

impl Input {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Syn, Self::SynAck, Self::Ack, Self::Fin, Self::Rst, Self::Senseless, Self::Plain];

    /// What a packet means.
    #[inline]
    #[must_use]
    pub fn of(transport: Transport) -> Self {
        let Transport::Tcp { flags: TcpFlags(flags), .. } = transport else { return Self::Plain };
        let set = |bits: u8| flags & bits == bits;
        match () {
            () if set(TcpFlags::SYN) && flags & (TcpFlags::FIN | TcpFlags::RST) != 0 => {
                Self::Senseless
            }
            () if set(TcpFlags::RST) => Self::Rst,
            () if set(TcpFlags::SYN | TcpFlags::ACK) => Self::SynAck,
            () if set(TcpFlags::SYN) => Self::Syn,
            () if set(TcpFlags::FIN) => Self::Fin,
            () if set(TcpFlags::ACK) => Self::Ack,
            () => Self::Senseless,
        }
    }

    /// Whether it says something that the other worker of the flow must hear at once.
    #[inline]
    #[must_use]
    pub fn signals(self) -> bool {
        matches!(self, Self::Syn | Self::SynAck | Self::Fin | Self::Rst)
    }
}

/// Rows: the states of TCP, from `SynSent` to `Close`. Columns: Syn, SynAck, Ack, Fin, Rst.
type Transitions = [[State; 5]; 12];

use State::{
    Adopted as AD, Close as CL, CloseWaitOpener as CO, CloseWaitResponder as CR, Established as ES,
    FinWaitOpener as FO, FinWaitResponder as FR, LastAckOpener as LO, LastAckResponder as LR,
    SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// After a packet of the opener.
const OPENER: Transitions = [
    [SS, SS, SS, SS, CL], // SynSent
    [SR, SR, ES, FO, CL], // SynRecv
    [AD, AD, AD, FO, CL], // Adopted
    [ES, ES, ES, FO, CL], // Established
    [FO, FO, FO, FO, CL], // FinWaitOpener
    [FR, FR, CR, LR, CL], // FinWaitResponder
    [CO, CO, CO, CO, CL], // CloseWaitOpener
    [CR, CR, CR, LR, CL], // CloseWaitResponder
    [LO, LO, TW, LO, CL], // LastAckOpener
    [LR, LR, LR, LR, CL], // LastAckResponder
    [TW, TW, TW, TW, CL], // TimeWait
    [CL, CL, CL, CL, CL], // Close
];

/// After a packet of the responder. A lone ACK or FIN does not answer a SYN: RFC 9293 §3.10.7.3.
const RESPONDER: Transitions = [
    [SS, SR, SS, SS, CL], // SynSent
    [SR, SR, SR, FR, CL], // SynRecv
    [AD, AD, ES, FR, CL], // Adopted
    [ES, ES, ES, FR, CL], // Established
    [FO, FO, CO, LO, CL], // FinWaitOpener
    [FR, FR, FR, FR, CL], // FinWaitResponder
    [CO, CO, CO, LO, CL], // CloseWaitOpener
    [CR, CR, CR, CR, CL], // CloseWaitResponder
    [LO, LO, LO, LO, CL], // LastAckOpener
    [LR, LR, TW, LR, CL], // LastAckResponder
    [TW, TW, TW, TW, CL], // TimeWait
    [CL, CL, CL, CL, CL], // Close
];

impl State {
    /// How many states there are.
    pub const COUNT: usize = Self::Revoked as usize + 1;

    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Free,
        Self::SynSent,
        Self::SynRecv,
        Self::Adopted,
        Self::Established,
        Self::FinWaitOpener,
        Self::FinWaitResponder,
        Self::CloseWaitOpener,
        Self::CloseWaitResponder,
        Self::LastAckOpener,
        Self::LastAckResponder,
        Self::TimeWait,
        Self::Close,
        Self::Udp,
        Self::UdpStream,
        Self::Icmp,
        Self::Other,
        Self::OtherStream,
        Self::Revoked,
    ];

    /// The state of a flow that this packet opens. `None`: it opens none, because it belongs to
    /// the middle of a connection and `midstream` refuses those, or makes no sense.
    #[must_use]
    pub fn opening(protocol: u8, input: Input, midstream: Midstream) -> Option<Self> {
        match (protocol, input, midstream) {
            (6, Input::Syn, _) => Some(Self::SynSent),
            (6, Input::Ack | Input::Fin, Midstream::Adopt) => Some(Self::Adopted),
            (6, _, _) => None,
            (17, _, _) => Some(Self::Udp),
            (1 | 58, _, _) => Some(Self::Icmp),
            _ => Some(Self::Other),
        }
    }

    /// The state after a packet of `side`.
    #[inline]
    #[must_use]
    pub fn after(self, side: Side, input: Input) -> Self {
        match (self, side) {
            (Self::Udp, Side::Responder) => return Self::UdpStream,
            (Self::Other, Side::Responder) => return Self::OtherStream,
            _ => {}
        }
        let table = match side {
            Side::Opener => &OPENER,
            Side::Responder => &RESPONDER,
        };
        (self as usize)
            .checked_sub(Self::SynSent as usize)
            .and_then(|row| table.get(row)?.get(input as usize))
            .copied()
            .unwrap_or(self)
    }

    /// Whether the connection has ended, so that a SYN between the same ports is a new one. The last
    /// acknowledgement may have passed on a worker that did not know that it was the last.
    #[inline]
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Free
                | Self::LastAckOpener
                | Self::LastAckResponder
                | Self::TimeWait
                | Self::Close
                | Self::Revoked
        )
    }

    /// Whether the flow may be given up for a new one: the other side has not spoken yet, or both
    /// have finished. An established flow never is.
    #[inline]
    #[must_use]
    pub fn yields(self) -> bool {
        match self {
            Self::Free
            | Self::SynSent
            | Self::SynRecv
            | Self::Adopted
            | Self::LastAckOpener
            | Self::LastAckResponder
            | Self::TimeWait
            | Self::Close
            | Self::Udp
            | Self::Icmp
            | Self::Other
            | Self::Revoked => true,
            Self::Established
            | Self::FinWaitOpener
            | Self::FinWaitResponder
            | Self::CloseWaitOpener
            | Self::CloseWaitResponder
            | Self::UdpStream
            | Self::OtherStream => false,
        }
    }
}

/// The longest time between two words to the registry about a flow that speaks, seconds. A worker
/// that hears only acknowledgements learns of the other direction's FIN no later than this.
const REFRESH_MAX_S: u32 = 16;

/// How long a flow may be silent, by its state.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts([u32; State::COUNT]);

impl From<&FlowTimeouts> for Timeouts {
    fn from(set: &FlowTimeouts) -> Self {
        let mut by_state = [0; State::COUNT];
        for (state, seconds) in [
            (State::SynSent, set.syn_sent),
            (State::SynRecv, set.syn_recv),
            (State::Adopted, set.unacknowledged),
            (State::Established, set.established),
            (State::FinWaitOpener, set.fin_wait),
            (State::FinWaitResponder, set.fin_wait),
            (State::CloseWaitOpener, set.close_wait),
            (State::CloseWaitResponder, set.close_wait),
            (State::LastAckOpener, set.last_ack),
            (State::LastAckResponder, set.last_ack),
            (State::TimeWait, set.time_wait),
            (State::Close, set.close),
            (State::Udp, set.udp),
            (State::UdpStream, set.udp_stream),
            (State::Icmp, set.icmp),
            (State::Other, set.other),
            (State::OtherStream, set.other),
            (State::Revoked, set.close),
        ] {
            if let Some(place) = by_state.get_mut(state as usize) {
                *place = seconds;
            }
        }
        Self(by_state)
    }
}

impl Timeouts {
    /// Whether the registry should hear again of a flow that it heard of at `seen_s`. So a flow may end
    /// that much earlier than its last packet would let it.
    #[inline]
    #[must_use]
    pub fn stale(&self, state: State, seen_s: u32, now_s: u32) -> bool {
        now_s.saturating_sub(seen_s) >= self.refresh_s(state)
    }

    /// How long the registry need not hear of a flow: a sixteenth of what it may be silent, at most
    /// [`REFRESH_MAX_S`], in seconds.
    #[inline]
    #[must_use]
    pub fn refresh_s(&self, state: State) -> u32 {
        let seconds = self.0.get(state as usize).copied().unwrap_or(0);
        (seconds / 16).clamp(1, REFRESH_MAX_S)
    }

    /// Whether a flow in `state` that was last seen at `seen_s` is over at `now_s`, both in seconds
    /// of the datapath's clock. A free place always is.
    #[inline]
    #[must_use]
    pub fn expired(&self, state: State, seen_s: u32, now_s: u32) -> bool {
        let seconds = self.0.get(state as usize).copied().unwrap_or(0);
        state == State::Free || now_s.saturating_sub(seen_s) > seconds
    }
}

#[cfg(test)]
mod tests;
