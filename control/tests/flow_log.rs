//! The flow log as an operator meets it: the built daemon, a datapath that is played by the test, and
//! disks that fail.

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
use std::time::{Duration, Instant};

use bulkhead_config::FlowLog;
use bulkhead_link::{FLOW_RECORDS_MAX, FlowEvent, FlowRecord, FromDatapath};
use bulkhead_table::RuleTag;
use rig::{Datapath, Rig, answer};
use rustix::process::Signal;
use serde_json::Value;

/// A daemon whose datapath is set up, and whose flow log is as said.
fn gateway(flow_log: &str) -> (Rig, Datapath) {
    gateway_with(|_| flow_log.to_owned())
}

fn gateway_with(flow_log: impl Fn(&Rig) -> String) -> (Rig, Datapath) {
    let mut rig = Rig::new(&[]);
    let flow_log = flow_log(&rig);
    let rule = "[[rule]]\nid = \"seen\"\nfrom = [\"any\"]\nto = [\"any\"]\nservices = [\"any\"]\n\
                log = \"new\"\n";
    rig.configure(&["anna"], &format!("{rule}[flow_log]\n{flow_log}\n"));
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.set_up(1);
    (rig, datapath)
}

/// Flows of anna's to nobody, numbered by their port.
fn flows(datapath: &Datapath, from: u16, count: usize) {
    let record = |at: usize| FlowRecord {
        event: FlowEvent::Opened,
        at_s: 5,
        from: "10.44.0.97".parse().unwrap(),
        to: "192.0.2.9".parse().unwrap(),
        protocol: 6,
        from_port: from + at as u16,
        to_port: 443,
        tag: RuleTag::of("seen").0,
        generation: 1,
    };
    let records = (0..count).map(record).collect();
    datapath.tell(&FromDatapath::Flows { now_ms: 9_000, wall_ms: 1_796_115_609_000, records });
}

fn status(rig: &Rig, datapath: &mut Datapath) -> (i32, Value) {
    let question = rig.ask(&["status"]);
    datapath.status();
    answer(question)
}

/// Asks until the figures are so.
fn until(rig: &Rig, datapath: &mut Datapath, written: u64, lost: u64) -> (i32, Value) {
    let start = Instant::now();
    loop {
        let (code, value) = status(rig, datapath);
        let log = &value["flow_log"];
        if (log["written"].as_u64(), log["lost"].as_u64()) == (Some(written), Some(lost)) {
            return (code, value);
        }
        assert!(start.elapsed() < rig::PATIENCE, "{value}");
    }
}

#[test]
fn a_flow_is_a_line_with_the_name_of_its_rule_and_the_file_has_a_bound() {
    let (mut rig, mut datapath) = gateway("size_max_mib = 1");
    flows(&datapath, 1_000, 2);
    until(&rig, &mut datapath, 2, 0);
    let text = fs::read_to_string(rig.path("state/flows.jsonl")).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let got = ["event", "rule", "from_name", "from_port"].map(|key| first[key].clone());
    let want: [Value; 4] = ["opened".into(), "seen".into(), "device:anna".into(), 1_000.into()];
    assert_eq!(got, want);
    assert_eq!(
        first["time"], "2026-12-01T09:00:05Z",
        "by the datapath's clocks, whenever it was heard"
    );

    // Some three times what the file may hold; the end waits for what is queued.
    for _ in 0..30 {
        flows(&datapath, 2_000, FLOW_RECORDS_MAX);
        until_taken(&rig, &mut datapath);
    }
    let (code, _) = until(&rig, &mut datapath, 2 + 30 * FLOW_RECORDS_MAX as u64, 0);
    assert_eq!(code, 0);
    flows(&datapath, 60_000, 1);
    status(&rig, &mut datapath);
    rig.stop(Signal::TERM);
    let sizes = ["state/flows.jsonl", "state/flows.jsonl.1"]
        .map(|name| fs::metadata(rig.path(name)).unwrap().len());
    assert!(sizes[1] <= 1 << 20 && sizes[1] > (1 << 20) - 1_000, "{sizes:?}");
    assert!(sizes[0] <= 1 << 20, "{sizes:?}");
    let text = fs::read_to_string(rig.path("state/flows.jsonl")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["from_port"], 60_000);
    assert_eq!(fs::read_dir(rig.path("state")).unwrap().filter(is_log).count(), 2);
    for entry in fs::read_dir(rig.path("state")).unwrap().filter(|entry| !is_log(entry)) {
        let name = entry.unwrap().file_name();
        assert!(FlowLog::TAKEN.iter().any(|taken| name == *taken), "{name:?} is the daemon's");
    }
}

fn is_log(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("flows.jsonl")
}

/// The daemon has read everything before this.
fn until_taken(rig: &Rig, datapath: &mut Datapath) {
    assert_eq!(status(rig, datapath).0, 0);
}

#[test]
fn a_disk_that_takes_nothing_is_told_once_and_ends_with_it() {
    let (mut rig, mut datapath) =
        gateway_with(|rig| format!("file = \"{}\"", rig.path("there/flows.jsonl").display()));
    for _ in 0..20 {
        flows(&datapath, 1_000, 10);
    }
    let (code, value) = until(&rig, &mut datapath, 0, 200);
    let degraded = value["degraded"].to_string();
    assert!(code == 7 && degraded.contains("the flow log is not written"), "{degraded}");
    fs::create_dir(rig.path("there")).unwrap();
    flows(&datapath, 1_000, 10);
    let (code, value) = until(&rig, &mut datapath, 10, 200);
    assert_eq!((code, &value["flow_log"]["problem"]), (0, &Value::Null));
    rig.stop(Signal::TERM);
    let log = rig.log();
    assert_eq!(log.matches("flow log not written").count(), 1, "{log}");
    assert_eq!(log.matches("flow log can be written again").count(), 1, "{log}");
}

/// The reader of the file does not know the state folder; whoever puts it in force does.
#[test]
fn an_apply_with_a_file_among_the_daemons_own_is_refused() {
    let (mut rig, _datapath) = gateway("");
    let path = rig.path("state/history/43.json");
    rig.configure(&["anna"], &format!("[flow_log]\nfile = \"{}\"\n", path.display()));
    let (code, value) = answer(rig.ask(&["apply"]));
    let text = value.to_string();
    let want = format!("flow_log.file: {}: among bulkheadd's own files", path.display());
    assert!(code == 3 && text.contains(&want), "{text}");
    rig.stop(Signal::TERM);
}

/// A disk that does not answer: everything else goes on, and what is lost is counted.
#[test]
fn a_disk_that_hangs_holds_up_nothing_else() {
    let (mut rig, mut datapath) = gateway("");
    let path = rig.path("state/flows.jsonl");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    for _ in 0..100 {
        flows(&datapath, 1_000, FLOW_RECORDS_MAX);
    }
    let start = Instant::now();
    let (_, value) = status(&rig, &mut datapath);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let degraded = value["degraded"].to_string();
    assert!(degraded.contains("records wait for the disk"), "{degraded}");
    let lost = value["flow_log"]["lost"].as_u64().unwrap();
    assert!(lost >= 30 * FLOW_RECORDS_MAX as u64, "{value}");
    // An apply is answered as well, and so is the signal to end.
    let apply = rig.ask(&["apply"]);
    let generation = datapath.table().generation();
    datapath.tell(&FromDatapath::Confirmed { generation });
    assert_eq!(answer(apply).0, 0);
    rig.stop(Signal::TERM);
    let log = rig.log();
    assert_eq!(log.matches("flow log does not keep up").count(), 1, "{log}");
}
