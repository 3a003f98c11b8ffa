//! A disk that takes its time over the history holds up answers and no revocation.

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

use std::process::Child;

use bulkhead_link::{FromDatapath, ToDatapath};
use rig::judge::{DEVICES, Judge, POLICY, SOUND};
use rig::slow_disk::SlowDisk;
use rig::{Datapath, Rig, answer};
use rustix::process::{Pid, Signal, kill_process};

/// A gateway whose first table, which is kept as generation 1, knows that anna is sound.
fn anna_is_sound() -> (Rig, Datapath, Judge) {
    let mut rig = Rig::new(&DEVICES);
    rig.configure(&DEVICES, POLICY);
    rig.start(&[]);
    assert_eq!(answer(rig.ask(&[&["context", "set", "anna"], &SOUND[..]].concat())).0, 7);
    let mut datapath = rig.datapath();
    datapath.hello(None, 0);
    datapath.tell(&FromDatapath::Adopted);
    let (ToDatapath::Configure(_), None) = datapath.heard() else { panic!() };
    datapath.tell(&FromDatapath::Configured);
    datapath.peers(DEVICES.len());
    let judge = in_force(&mut datapath);
    rig.until("the first generation to be kept", || states(&rig) == ["confirmed"]);
    assert!(judge.allows("anna"));
    (rig, datapath, judge)
}

fn in_force(datapath: &mut Datapath) -> Judge {
    let judge = Judge::of(datapath.table());
    datapath.tell(&FromDatapath::Confirmed { generation: judge.table.generation() });
    judge
}

fn states(rig: &Rig) -> Vec<String> {
    let (_, history) = answer(rig.ask(&["history"]));
    let entries = history["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect()
}

/// While `asked` waits for the disk anna loses what she has, at once, and that is acknowledged.
fn anna_loses(rig: &Rig, datapath: &mut Datapath, judge: &mut Judge, asked: &mut Child) {
    let lost = rig.ask(&["context", "set", "anna", "disk_encrypted=false"]);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"));
    datapath.tell(&FromDatapath::Relabelled { token });
    assert_eq!(answer(lost).0, 0);
    assert!(asked.try_wait().unwrap().is_none(), "not on the disk");
}

#[test]
fn while_an_apply_is_written_down_before_it_is_put_in_force() {
    let (rig, mut datapath, mut judge) = anna_is_sound();
    let disk = SlowDisk::over(&rig, "state/history/incoming.toml");
    let mut apply = rig.ask(&["apply"]);
    rig.until("the compiler to be done", || rig.log().contains("what was read is compiled"));
    anna_loses(&rig, &mut datapath, &mut judge, &mut apply);
    disk.fails();
    let (code, value) = answer(apply);
    let message = value["refused"]["message"].as_str().unwrap();
    assert!(code == 1 && message.ends_with("nothing was changed"), "{value}");
    // The datapath has heard nothing of it.
    let apply = rig.ask(&["apply"]);
    assert!(!in_force(&mut datapath).allows("anna"));
    assert_eq!(answer(apply).0, 0);
}

#[test]
fn while_an_apply_is_kept_that_is_in_force() {
    let (mut rig, mut datapath, _) = anna_is_sound();
    let disk = SlowDisk::over(&rig, "state/history/2.new");
    let mut apply = rig.ask(&["apply"]);
    let mut judge = in_force(&mut datapath);
    anna_loses(&rig, &mut datapath, &mut judge, &mut apply);
    // What is not on the disk is tried once more before the daemon ends.
    let mut daemon = rig.daemon.take().unwrap();
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    disk.recovers();
    assert!(daemon.wait().unwrap().success(), "{}", rig.log());
    assert!(rig.log().contains("a start begins with generation 1"), "{}", rig.log());
}

#[test]
fn while_a_confirmation_is_written_down_and_its_time_runs_out_meanwhile() {
    let (rig, mut datapath, _) = anna_is_sound();
    let apply = rig.ask(&["apply", "--confirm", "2s"]);
    let mut judge = in_force(&mut datapath);
    assert_eq!(answer(apply).0, 0);
    let disk = SlowDisk::over(&rig, "state/history/2.new");
    let mut confirm = rig.ask(&["confirm", "2"]);
    rig.until("the confirmation to be heard", || rig.log().contains("is being written down"));
    assert_eq!(answer(rig.ask(&["confirm", "2"])).1["refused"]["kind"], "busy");
    anna_loses(&rig, &mut datapath, &mut judge, &mut confirm);
    rig.until("its time to be up", || {
        let question = rig.ask(&["status"]);
        datapath.status();
        answer(question).1["configuration"]["waiting"]["left_ms"] == 0
    });
    assert_eq!(states(&rig), ["confirmed", "waiting"], "neither is decided");
    disk.fails();
    let (code, value) = answer(confirm);
    let message = value["refused"]["message"].as_str().unwrap();
    assert!(code == 1 && message.contains("cannot be written down"), "{value}");
    // So it was not confirmed in time.
    assert!(!in_force(&mut datapath).allows("anna"));
    assert_eq!(states(&rig), ["confirmed", "rolled-back"]);
}
