//! What the state wants done, and what of it outlives a restart.

use std::net::{IpAddr, SocketAddr};

use bulkhead_link::{FlowRecord, ToDatapath};
use bulkhead_wg::{Freshness, PublicKey};
use serde::{Deserialize, Serialize};

use super::{Job, RequestId};
use crate::api::Answer;
use crate::figures::Figures;
use crate::handshake::Datagram;
use crate::handshake_thread::Order;
use crate::intent::SegmentPlace;
use crate::names::Name;
use crate::publish::Blob;

/// Something that the shell must do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Send to the datapath.
    Send(ToDatapath),
    /// Send a table to the datapath, in a sealed memfd.
    Table {
        /// Its generation.
        generation: u64,
        /// Its content.
        blob: Blob,
    },
    /// Compile, where it holds up nobody, and say what came of it to [`super::State::compiled`].
    Compile(Box<Job>),
    /// Send to a peer, after everything that was sent to the datapath before.
    Datagram(Datagram),
    /// Give to the handshake thread.
    Order(Order),
    /// Answer a request.
    Answer(RequestId, Box<Answer>),
    /// Answer [`super::State::figures`].
    Figures(RequestId, Figures),
    /// Close the link to the datapath.
    Disconnect,
    /// End the datapath that is connected, so that another is started.
    StopDatapath,
    /// The same, of one that hangs.
    KillDatapath,
    /// Answer handshakes from these addresses and UDP ports from now on.
    Outer {
        /// Of the listeners.
        addresses: Vec<SocketAddr>,
    },
    /// Mirror the neighbours of these ports from now on, beginning with those known by now.
    Watch(Watch),
    /// Make the kernel resolve a neighbour.
    Resolve {
        /// Index of the port.
        port: u8,
        /// The address.
        address: IpAddr,
    },
    /// Look up where this peer is, and say so to [`super::State::looked_up`].
    LookUp(PublicKey, Name),
    /// Put into the flow log, if there is room.
    Flows {
        /// What the datapath says.
        records: Vec<FlowRecord>,
        /// By its clock, milliseconds.
        now_ms: u64,
        /// By the wall clock at the same moment, milliseconds since 1970.
        wall_ms: u64,
    },
    /// Remember across restarts.
    Record(Record),
    /// Remember across restarts.
    Accepted(PublicKey, Freshness),
}

/// Where neighbours are mirrored from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Index and network device of each port that has segments.
    pub ports: Vec<(u8, String)>,
    /// The segments behind them.
    pub segments: Vec<SegmentPlace>,
}

/// What was confirmed last. Kept in a file, so that a new control process knows whether the table
/// that it finds in force is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its generation.
    pub generation: u64,
    /// Its digest.
    pub digest: [u8; 16],
    /// Process id of the datapath that confirmed it.
    pub pid: u32,
}
