//! The first table of a datapath, which may take seconds to make: what is answered and what is lost
//! meanwhile.

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

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bulkhead_link::{Configuration, FromDatapath, Peer, ToDatapath};
use rig::judge::{DEVICES, Judge, POLICY, SOUND, large};
use rig::{Datapath, Rig, answer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A daemon without a datapath that knows that anna is sound, and has a policy that takes some time.
fn anna_is_known() -> Rig {
    let mut rig = Rig::new(&DEVICES);
    rig.configure(&DEVICES, &(POLICY.to_owned() + &large()));
    rig.start(&[]);
    let (code, value) = answer(rig.ask(&[&["context", "set", "anna"], &SOUND[..]].concat()));
    assert_eq!((code, value["trouble"].as_array().unwrap().len()), (7, 1), "no datapath: {value}");
    rig
}

fn is_set_up(rig: &Rig) -> (Datapath, Configuration, Vec<Peer>) {
    let mut datapath = rig.datapath();
    datapath.hello(None, 0);
    datapath.tell(&FromDatapath::Adopted);
    let (ToDatapath::Configure(configuration), None) = datapath.heard() else { panic!() };
    datapath.tell(&FromDatapath::Configured);
    let peers = datapath.peers(DEVICES.len());
    (datapath, configuration, peers)
}

/// Whether the daemon answers before the table is made; what it answers does not tell.
fn answers_before_the_table(rig: &Rig, datapath: &Datapath) -> bool {
    assert_eq!(answer(rig.ask(&["context", "show"])).0, 0);
    datapath.is_silent(Duration::ZERO)
}

/// Somebody says that anna's disk is not encrypted any more.
fn anna_loses(rig: &Rig) -> UnixStream {
    let mut operator = rig.control().unwrap();
    operator.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    let lost = r#"{"device":"anna","set":{"disk_encrypted":false}}"#;
    let request = format!("{{\"request\":\"context-set\",\"changes\":[{lost}]}}\n");
    operator.write_all(request.as_bytes()).unwrap();
    operator
}

/// Takes the first table and the message behind it, and returns what was acknowledged when anna has
/// lost what she had.
fn is_lost(operator: UnixStream, datapath: &mut Datapath) -> Value {
    let mut judge = Judge::of(datapath.table());
    datapath.tell(&FromDatapath::Confirmed { generation: judge.table.generation() });
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"));
    operator.set_nonblocking(true).unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(operator);
    let early = said.read_line(&mut line);
    assert!(early.is_err(), "not before the labels are in force: {line}");
    said.get_ref().set_nonblocking(false).unwrap();
    datapath.tell(&FromDatapath::Relabelled { token });
    said.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Goal: nobody waits for the compiler, and what is lost meanwhile is lost with the first table.
/// Method: the order of things, as the datapath has it. The compiler may be done before the test has
/// said its word; not every time, unless everything waits for it.
#[test]
fn while_the_first_table_is_made_the_daemon_answers_and_takes_away() {
    let under_way = || {
        let rig = anna_is_known();
        let (mut datapath, ..) = is_set_up(&rig);
        let operator = anna_loses(&rig);
        let answers = answers_before_the_table(&rig, &datapath);
        let said = is_lost(operator, &mut datapath);
        assert_eq!((&said["answer"], &said["trouble"]), (&"context-changed".into(), &json!([])));
        answers
    };
    assert!((0..10).any(|_| under_way()));
}

#[test]
fn while_the_first_table_after_a_take_over_is_made_the_daemon_answers_and_takes_away() {
    let under_way = || {
        let mut rig = anna_is_known();
        let (mut datapath, configuration, peers) = is_set_up(&rig);
        let generation = datapath.table().generation();
        datapath.tell(&FromDatapath::Confirmed { generation });
        rig.until("the record", || rig.path("state/published.json").exists());
        rig.stop(Signal::KILL);
        drop(datapath);
        rig.start(&[]);
        let mut datapath = rig.datapath();
        datapath.hello(Some(configuration), generation);
        for peer in peers {
            datapath.tell(&FromDatapath::Peer(peer));
        }
        datapath.tell(&FromDatapath::Adopted);
        rig.until("the greeting to be heard", || rig.log().contains("is taken over"));
        let operator = anna_loses(&rig);
        let answers = answers_before_the_table(&rig, &datapath);
        let said = is_lost(operator, &mut datapath);
        assert_eq!((&said["answer"], &said["trouble"]), (&"context-changed".into(), &json!([])));
        answers
    };
    assert!((0..10).any(|_| under_way()));
}
