//! What the machine is asked beside the loop: its own addresses, and those of peers that are written by
//! name.

use std::net::ToSocketAddrs;

use bulkhead_wg::PublicKey;

use super::Daemon;
use super::inputs::LookedUp;
use crate::mirror::{self, OwnAddresses};
use crate::names::Name;

/// Whether the kernel is being asked for our addresses, and whether they changed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Yes,
    Again,
}

impl Daemon {
    /// Has them read, again if they are being read already.
    pub(super) fn ask_addresses(&mut self) {
        if self.asking != Asking::No {
            self.asking = Asking::Again;
            return;
        }
        self.asking = Asking::Yes;
        let ports = self.state.ports();
        let own = self.own.clone();
        tokio::spawn(async move {
            let found = mirror::own_addresses(&ports).await;
            // The receiver is gone only when the process goes.
            let _ = own.send(found.ok()).await;
        });
    }

    /// They were read, unless the kernel could not be asked.
    pub(super) fn own_addresses(&mut self, own: Option<OwnAddresses>) {
        if let Some(own) = own {
            self.state.own_addresses(&own);
        }
        if std::mem::replace(&mut self.asking, Asking::No) == Asking::Again {
            self.ask_addresses();
        }
    }

    /// The system's resolver blocks, for as long as its servers let it: on a thread of its own.
    pub(super) fn look_up(&self, peer: PublicKey, name: Name) {
        let looked_up = self.looked_up.clone();
        tokio::task::spawn_blocking(move || {
            let found = (name.host.as_str(), name.port).to_socket_addrs();
            let addresses = found.map(Iterator::collect).unwrap_or_default();
            // The receiver is gone only when the process goes.
            let _ = looked_up.send(LookedUp { peer, name, addresses });
        });
    }
}
