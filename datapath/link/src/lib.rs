//! Messages between the datapath and the control process.
//!
//! ```text
//!   bulkheadd (listens)                               bulkhead-datapath (connects)
//!      │ ◀──────────── Hello, Peer*, Session*, Adopted ───── │   what it already runs
//!      │ ── Configure, Listeners, Peer, Session, Table+fd ▶  │
//!      │ ◀── Handshake, SessionWanted, NeighbourWanted ───── │   never waited for
//! ```
//!
//! One message is one datagram of a unix `SOCK_SEQPACKET` socket, so neither side ever sees half
//! of one. The datapath connects, and connects again for ever: it listens nowhere.
//!
//! INVARIANT: a message that does not decode, or is of another [`VERSION`], ends the connection;
//! it never changes what the datapath runs.
//!
//! Not here: any decision. Both sides are told facts and act on their own.
#![forbid(unsafe_code)]

mod channel;
mod end;
mod flow_log;
mod flows;
mod hits;
mod index;
mod message;
mod status;
mod terms;

pub use channel::{Channel, ChannelError, MESSAGE_MAX};
pub use end::{End, Ends};
pub use flow_log::{FLOW_RECORDS_MAX, FlowEnding, FlowEvent, FlowPast, FlowRecord};
pub use flows::{FlowSetup, FlowTimeouts, Midstream, OnRevoke};
pub use hits::{HITS_PART_MAX, RuleHits};
pub use index::{SessionIndex, WORKERS_MAX};
pub use message::{
    AttachMode, BindMode, Configuration, Endpoint, FromDatapath, Listener, Peer, PeerPast,
    PortSetup, STATUS_PART_MAX, Session, SessionKeys, SessionStatus, ToDatapath,
};
pub use status::{Counted, PortStatus, Status, WorkerStatus};
pub use terms::{Dscp, Terms, Timers};

/// Version of the messages. Raised with every change of their shape: a datapath and a control
/// process of different versions refuse each other by name instead of guessing.
pub const VERSION: u16 = 9;
