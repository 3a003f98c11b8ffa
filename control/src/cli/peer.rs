//! `bulkhead peer`: WireGuard devices and what they do.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::client::{ask, unexpected};
use super::text::{bytes, columns, duration};
use super::{Exit, Said};
use crate::api::{Answer, LossAnswer, PeerAnswer, PeersAnswer, Request};

pub(super) fn list(run_dir: &Path, json: bool) -> Said {
    match peers(run_dir, json) {
        Ok(peers) => Said::new(json, &peers, || text(&peers), Exit::Done),
        Err(said) => said,
    }
}

pub(super) fn show(run_dir: &Path, name: &str, json: bool) -> Said {
    let all = match peers(run_dir, json) {
        Ok(all) => all,
        Err(said) => return said,
    };
    if let Some(peer) = all.peers.iter().find(|peer| peer.name == name) {
        return Said::new(json, peer, || details(peer), Exit::Done);
    }
    let near = bulkhead_config::nearest(name, all.peers.iter().map(|peer| peer.name.as_str()));
    let hint = near.map_or_else(
        || "bulkhead peer list shows all; a new one is there after bulkhead apply".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Said::failed(format_args!("the running gateway has no device {name:?}; {hint}"))
}

/// Shows the list again and again, until it is interrupted, the daemon goes, or `times` are over. On
/// a terminal each list takes the place of the one before; elsewhere they follow each other, with
/// an empty line between.
pub(super) fn watch(run_dir: &Path, interval: Duration, times: Option<u64>, json: bool) -> Said {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    let mut left = times;
    while left != Some(0) {
        let said = list(run_dir, json);
        if said.exit != Exit::Done {
            return said;
        }
        let text = match (terminal, left == times) {
            // Home, the list, and whatever is left of the one before goes.
            (true, _) => format!("\x1b[H\x1b[2J{}", said.out),
            (false, true) => said.out,
            (false, false) => format!("\n{}", said.out),
        };
        // A reader that has gone (`| head`) has seen enough.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Said::default();
        }
        left = left.map(|left| left - 1);
        if left != Some(0) {
            thread::sleep(interval);
        }
    }
    Said::default()
}

fn peers(run_dir: &Path, json: bool) -> Result<PeersAnswer, Said> {
    let answer = ask(run_dir, Request::Peers {}, json)?;
    let Answer::Peers(peers) = answer else { return Err(unexpected()) };
    Ok(peers)
}

fn text(peers: &PeersAnswer) -> String {
    if peers.peers.is_empty() {
        return "no devices in the configuration\n".to_owned();
    }
    let title = [
        "device",
        "user",
        "endpoint",
        "listener",
        "handshake",
        "received",
        "sent",
        "loss",
        "session",
        "worker",
        "labels",
    ];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    rows.extend(peers.peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            peer.user.clone().unwrap_or_default(),
            peer.endpoint.clone().unwrap_or_else(|| "unknown".to_owned()),
            peer.listener.clone().unwrap_or_default(),
            peer.handshake_age_ms.map_or("none".to_owned(), |ms| duration(ms) + " ago"),
            bytes(peer.received_bytes),
            bytes(peer.sent_bytes),
            peer.loss.map(loss).unwrap_or_default(),
            peer.session_age_ms.map(duration).unwrap_or_default(),
            peer.worker.map(|worker| worker.to_string()).unwrap_or_default(),
            numbers(&peer.labels),
        ]
    }));
    columns(&rows)
}

fn numbers(labels: &[u16]) -> String {
    labels.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn details(peer: &PeerAnswer) -> String {
    let none = || "none".to_owned();
    let amount = |packets: u64, count: u64| format!("{packets} packets, {}", bytes(count));
    let rows = [
        ("device", peer.name.clone()),
        ("user", peer.user.clone().unwrap_or_else(none)),
        ("public key", peer.public_key.clone()),
        ("addresses", peer.addresses.join(", ")),
        ("endpoint", peer.endpoint.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("listener", peer.listener.clone().unwrap_or_else(none)),
        ("labels", if peer.labels.is_empty() { none() } else { numbers(&peer.labels) }),
        ("last handshake", peer.handshake_age_ms.map_or_else(none, |ms| duration(ms) + " ago")),
        ("session age", peer.session_age_ms.map_or_else(none, duration)),
        ("last heard", peer.silent_ms.map_or_else(none, |ms| duration(ms) + " ago")),
        ("received", amount(peer.received_packets, peer.received_bytes)),
        ("sent", amount(peer.sent_packets, peer.sent_bytes)),
        (
            "loss",
            peer.loss.map_or_else(none, |of| {
                let LossAnswer { accepted, expected } = of;
                format!("{}: {accepted} of {expected} messages arrived", loss(of))
            }),
        ),
        ("worker", peer.worker.map_or_else(none, |worker| worker.to_string())),
    ];
    columns(&rows.map(|(what, how)| vec![what.to_owned(), how]))
}

/// What is missing, in per cent with one digit behind the point, rounded up: what is not whole is
/// not 0.0 %.
fn loss(of: LossAnswer) -> String {
    let (expected, missing) =
        (u128::from(of.expected.max(1)), u128::from(of.expected.saturating_sub(of.accepted)));
    let tenths = (missing * 1_000).div_ceil(expected);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_rounded_up_and_never_hidden() {
        for (accepted, expected, want) in [
            (0, 0, "0.0 %"),
            (10, 10, "0.0 %"),
            (9, 10, "10.0 %"),
            (999_999, 1_000_000, "0.1 %"),
            (2, 3, "33.4 %"),
            (0, u64::MAX, "100.0 %"),
            (5, 4, "0.0 %"),
        ] {
            assert_eq!(loss(LossAnswer { accepted, expected }), want);
        }
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        let mut peer = PeerAnswer { name: "anna".to_owned(), ..PeerAnswer::default() };
        assert!(details(&peer).contains("last handshake  none\n"), "{}", details(&peer));
        peer.handshake_age_ms = Some(61_000);
        peer.loss = Some(LossAnswer { accepted: 3, expected: 4 });
        peer.labels = vec![3, 17];
        let shown = details(&peer);
        assert!(shown.contains("last handshake  1 min 1 s ago\n"), "{shown}");
        assert!(shown.contains("loss            25.0 %: 3 of 4 messages arrived\n"), "{shown}");
        let line = text(&PeersAnswer { peers: vec![peer] });
        assert!(line.contains("1 min 1 s ago") && line.contains("25.0 %"), "{line}");
        assert!(line.ends_with("3, 17\n"), "{line}");
    }
}
