//! `bulkhead peer list`

use std::path::Path;

use super::client::{ask, unexpected};
use super::text::{bytes, columns, duration};
use super::{Exit, Said};
use crate::api::{Answer, PeersAnswer, Request};

pub(super) fn list(run_dir: &Path, json: bool) -> Said {
    match ask(run_dir, Request::Peers {}, json) {
        Ok(Answer::Peers(peers)) => Said::new(json, &peers, || text(&peers), Exit::Done),
        Ok(Answer::Status(_) | Answer::Counters(_) | Answer::Applied(_) | Answer::Refused(_)) => {
            unexpected()
        }
        Err(said) => said,
    }
}

fn text(peers: &PeersAnswer) -> String {
    if peers.peers.is_empty() {
        return "no devices in the configuration\n".to_owned();
    }
    let title = ["device", "addresses", "endpoint", "handshake", "received", "sent", "public key"];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    rows.extend(peers.peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            peer.addresses.join(","),
            peer.endpoint.clone().unwrap_or_else(|| "unknown".to_owned()),
            peer.handshake_age_ms.map_or("none".to_owned(), |ms| duration(ms) + " ago"),
            bytes(peer.received_bytes),
            bytes(peer.sent_bytes),
            peer.public_key.clone(),
        ]
    }));
    columns(&rows)
}
