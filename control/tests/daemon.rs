//! The daemon as its neighbours meet it: the built binary, a datapath that is played by the test at
//! the other end of `link.sock`, peers on loopback, and the built CLI.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking, their helpers too, and wait by the clock"
)]

mod rig;

use std::fs;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use bulkhead_link::{FromDatapath, SessionIndex, SessionStatus, ToDatapath, VERSION};
use rig::{Caller, Datapath, Rig, answer, private};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

#[test]
fn a_new_datapath_is_set_up_and_the_gateway_is_well() {
    let mut rig = Rig::new(&["anna", "bert"]);
    rig.start(&[]);
    let (code, value) = answer(rig.ask(&["status"]));
    assert_eq!((code, &value["datapath"]), (7, &serde_json::Value::Null));

    let mut datapath = rig.datapath();
    let (configuration, peers, generation) = datapath.set_up(2);
    assert_eq!((configuration.workers, generation), (1, 1));
    assert!(configuration.addresses.contains(&"127.0.0.1".parse().unwrap()));
    let mut keys: Vec<_> = peers.iter().map(|peer| peer.public_key).collect();
    keys.sort_unstable();
    let mut want = [private("anna").public_key().0, private("bert").public_key().0];
    want.sort_unstable();
    assert_eq!(keys, want);
    let question = rig.ask(&["status"]);
    datapath.status();
    let (code, value) = answer(question);
    assert_eq!(
        (code, &value["generation"], &value["degraded"]),
        (0, &1.into(), &serde_json::json!([]))
    );

    drop(datapath);
    rig.until("the loss to be noticed", || answer(rig.ask(&["status"])).0 == 7);
    rig.stop(Signal::TERM);
    assert!(!rig.path("run/link.sock").exists());
}

#[test]
fn an_apply_announces_first_and_removes_last() {
    let mut rig = Rig::new(&["anna", "bert"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (_, peers, _) = datapath.set_up(2);
    let anna = peers.iter().find(|peer| peer.public_key == private("anna").public_key().0).unwrap();

    rig.configure(&["bert", "carl"], "");
    let apply = rig.ask(&["apply"]);
    let added = datapath.peers(1).remove(0);
    assert_eq!(added.public_key, private("carl").public_key().0);
    assert!(peers.iter().all(|peer| peer.index != added.index), "anna's index is in use yet");
    let generation = datapath.table().generation();
    datapath.tell(&FromDatapath::Confirmed { generation });
    let (message, _) = datapath.heard();
    assert!(
        matches!(message, ToDatapath::RemovePeer { peer } if peer == anna.index),
        "{message:?}"
    );
    let (code, value) = answer(apply);
    assert_eq!((code, &value["generation"]), (0, &2.into()));
    assert_eq!((&value["peers_added"], &value["peers_removed"]), (&1.into(), &1.into()));
}

#[test]
fn whatever_is_wrong_with_an_apply_nothing_changes() {
    let mut rig = Rig::new(&["anna"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.set_up(1);
    let good = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();

    fs::write(rig.path("bulkhead.toml"), good.replace("schema = 1", "schema = 1\nspeed = 9"))
        .unwrap();
    let (code, value) = answer(rig.ask(&["apply"]));
    assert_eq!((code, &value["refused"]["kind"]), (3, &"invalid".into()));
    assert_eq!(&value["refused"]["diagnostics"][0]["line"], &serde_json::json!(2));

    let test = "[[test]]\nname = \"no\"\nfrom = \"device:anna\"\nallow = [\"10.44.0.97 tcp/1\"]\n";
    fs::write(rig.path("bulkhead.toml"), format!("{good}{test}")).unwrap();
    let (code, _) = answer(rig.ask(&["apply"]));
    assert_eq!(code, 4);

    fs::write(rig.path("bulkhead.toml"), good.replace("sessions_max = 64", "sessions_max = 32"))
        .unwrap();
    let (code, value) = answer(rig.ask(&["apply"]));
    assert_eq!((code, &value["refused"]["kind"]), (9, &"restart-needed".into()));
    let (code, value) = answer(rig.ask(&["apply", "--restart-datapath"]));
    assert_eq!((code, &value["refused"]["kind"]), (9, &"restart-needed".into()));

    // The datapath refuses: what was announced for it is taken back.
    rig.configure(&["anna", "carl"], "");
    let apply = rig.ask(&["apply"]);
    let added = datapath.peers(1).remove(0);
    let generation = datapath.table().generation();
    let reason = "it is Monday".to_owned();
    datapath.tell(&FromDatapath::TableRefused { generation, reason });
    let (message, _) = datapath.heard();
    assert!(
        matches!(message, ToDatapath::RemovePeer { peer } if peer == added.index),
        "{message:?}"
    );
    let (code, value) = answer(apply);
    assert_eq!(code, 1);
    assert!(value["refused"]["message"].as_str().unwrap().contains("it is Monday"));

    // Through all of it the datapath heard nothing else, and runs what it ran.
    let question = rig.ask(&["peer", "list"]);
    datapath.status();
    let (code, value) = answer(question);
    assert_eq!((code, value["peers"].as_array().unwrap().len()), (0, 1));
    let question = rig.ask(&["status"]);
    datapath.status();
    let (code, value) = answer(question);
    assert_eq!((code, &value["generation"]), (7, &1.into()), "the refused table is an alarm");
}

#[test]
fn a_new_daemon_takes_over_without_touching_anything() {
    let mut rig = Rig::new(&["anna", "bert"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (configuration, peers, generation) = datapath.set_up(2);
    rig.until("the record", || rig.path("state/published.json").exists());
    rig.stop(Signal::KILL);
    rig.start(&[]);

    let adopted = SessionStatus {
        peer: peers[1].index,
        index: SessionIndex::new(0, 5, 0),
        age: Duration::from_secs(9),
        initiator: false,
        confirmed: true,
        endpoint: None,
        received: Default::default(),
        sent: Default::default(),
        silent_for: None,
        listener: [9; 32],
        accepted: 0,
        expected: 0,
    };
    let mut datapath = rig.datapath();
    datapath.hello(Some(configuration.clone()), generation);
    for peer in &peers {
        datapath.tell(&FromDatapath::Peer(peer.clone()));
    }
    datapath.tell(&FromDatapath::Session(adopted.clone()));
    datapath.tell(&FromDatapath::Adopted);
    // The first thing that it hears is our question: no configuration, no peer, no table.
    let caller = Caller::new("anna");
    let (message, _) = caller.initiation(5);
    datapath.tell(&caller.handshake(rig.port, &message));
    let session = datapath.session();
    assert_ne!(session.index.slot(), adopted.index.slot(), "that slot is in use");
    let question = rig.ask(&["status"]);
    datapath.status_with(vec![adopted]);
    let (code, value) = answer(question);
    assert_eq!((code, &value["generation"]), (0, &generation.into()), "{value}");

    // A table that is not what was confirmed last is replaced, under a greater generation.
    rig.stop(Signal::KILL);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.hello(Some(configuration), generation + 7);
    for peer in &peers {
        datapath.tell(&FromDatapath::Peer(peer.clone()));
    }
    datapath.tell(&FromDatapath::Adopted);
    assert_eq!(datapath.table().generation(), generation + 8);
}

#[test]
fn a_handshake_installs_its_session_before_it_answers_and_is_not_replayed() {
    let mut rig = Rig::new(&["anna", "bert"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (configuration, peers, generation) = datapath.set_up(2);
    let caller = Caller::new("anna");
    let (first, mut pending) = caller.initiation(5);
    datapath.tell(&caller.handshake(rig.port, &first));
    let mut room = [0; 256];
    let session = datapath.session();
    datapath.until_credit(1);
    // The response waits until the worker has the keys that it announces.
    caller.socket.set_nonblocking(true).unwrap();
    assert!(caller.socket.recv_from(&mut room).is_err(), "not before the keys are in force");
    caller.socket.set_nonblocking(false).unwrap();
    datapath.tell(&FromDatapath::SessionInstalled { index: session.index });
    let (len, source) = caller.socket.recv_from(&mut room).unwrap();
    assert_eq!(source.port(), rig.port);
    let keys = pending.consume(&room[..len]).unwrap();
    assert_eq!((session.index.0, session.keys.receive), (keys.remote_index, keys.send));
    rig.until("the timestamp", || {
        fs::read_to_string(rig.path("state/timestamps")).is_ok_and(|text| !text.is_empty())
    });

    rig.stop(Signal::KILL);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.hello(Some(configuration), generation);
    for peer in &peers {
        datapath.tell(&FromDatapath::Peer(peer.clone()));
    }
    datapath.tell(&FromDatapath::Adopted);
    let stranger = Caller::new("zoe");
    let (unknown, _) = stranger.initiation(6);
    let other = Caller::new("bert");
    let (good, _) = other.initiation(1);
    datapath.tell(&caller.handshake(rig.port, &first));
    datapath.tell(&stranger.handshake(rig.port, &unknown));
    datapath.tell(&other.handshake(rig.port, &good));
    let bert = peers.iter().find(|peer| peer.public_key == private("bert").public_key().0).unwrap();
    let session = datapath.session();
    assert_eq!(session.peer, bert.index, "neither the replay nor the stranger");
    datapath.tell(&FromDatapath::SessionInstalled { index: session.index });
    // Also what got no answer is finished, so that it is not load for ever.
    datapath.until_credit(3);
    let (_, _) = other.socket.recv_from(&mut room).unwrap();
    for silent in [&caller, &stranger] {
        silent.socket.set_nonblocking(true).unwrap();
        assert!(silent.socket.recv_from(&mut room).is_err());
    }
    let question = rig.ask(&["counters"]);
    datapath.status();
    let (_, value) = answer(question);
    let handshakes = &value["handshakes"];
    assert_eq!((&handshakes["replayed"], &handshakes["unknown_peer"]), (&1.into(), &1.into()));
}

#[test]
fn nonsense_on_the_control_socket_gets_an_error_and_changes_nothing() {
    let mut rig = Rig::new(&["anna"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.set_up(1);
    let long = vec![b'x'; (8 << 20) + 1];
    for line in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        b"{\"request\":\"reboot\"}\n",
        b"{\"request\":\"apply\",\"force\":true}\n",
        &long,
    ] {
        let answer = rig.say(line);
        assert!(answer.contains("\"kind\":\"bad-request\""), "{line:?}: {answer}");
    }
    let question = rig.ask(&["status"]);
    datapath.status();
    assert_eq!(answer(question).0, 0);
}

#[test]
fn garbage_on_the_link_ends_the_connection_and_the_next_one_is_served() {
    let mut rig = Rig::new(&["anna"]);
    rig.start(&[]);
    let datapath = rig.datapath();
    rustix::io::write(datapath.channel.as_fd(), &[0xff; 40]).unwrap();
    let mut other = rig.datapath();
    // Refused while the first is connected, or served after it: it tries until it is.
    rig.until("the next connection", || other.tell_hello_again(&rig));
}

impl Datapath {
    fn tell_hello_again(&mut self, rig: &Rig) -> bool {
        let pid = std::process::id();
        let hello =
            FromDatapath::Hello { version: VERSION, pid, configuration: None, generation: 0 };
        let sent = self.channel.send(&hello, None).is_ok();
        let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        let ready = poll(&mut fds, Some(&timeout)).unwrap() == 1;
        if sent && ready && self.channel.receive::<ToDatapath>().is_ok() {
            return true;
        }
        *self = rig.datapath();
        false
    }
}

#[test]
fn a_second_daemon_is_told_who_has_the_folder() {
    let mut rig = Rig::new(&["anna"]);
    rig.start(&[]);
    let output = rig.command(&[]).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let pid = rig.daemon.as_ref().unwrap().id();
    let run = rig.path("run");
    let want = format!("another bulkheadd (process {pid}) runs in {}", run.display());
    assert!(text.contains(&want), "{text}");
    assert!(rig.control().is_ok(), "the first is untouched");
}

#[test]
fn a_bad_file_at_the_start_is_exit_code_3_with_the_place() {
    let rig = Rig::new(&["anna"]);
    rig.configure(&[], "[port.other]\n");
    let output = rig.command(&[]).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("bulkhead.toml:"), "{text}");
    assert!(!rig.path("run/control.sock").exists() && !rig.path("run/link.sock").exists());
}
