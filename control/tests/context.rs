//! What is known of devices, from the command line to the labels that the datapath is told.

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
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bulkhead_control::knowledge::drawer_of;
use bulkhead_link::{FromDatapath, ToDatapath};
use jiff::{SignedDuration, Timestamp};
use rig::judge::{DEVICES, Judge, POLICY, SOUND, large};
use rig::slow_disk::SlowDisk;
use rig::{Datapath, Rig, answer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Starts the daemon with [`POLICY`] and sets a datapath up.
fn running(rig: &mut Rig, policy: &str) -> (Datapath, Judge) {
    rig.configure(&DEVICES, policy);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let judge = set_up(&mut datapath);
    (datapath, judge)
}

fn set_up(datapath: &mut Datapath) -> Judge {
    datapath.hello(None, 0);
    datapath.tell(&FromDatapath::Adopted);
    let (ToDatapath::Configure(_), None) = datapath.heard() else { panic!("not configured") };
    datapath.tell(&FromDatapath::Configured);
    datapath.peers(DEVICES.len());
    let judge = Judge::of(datapath.table());
    datapath.tell(&FromDatapath::Confirmed { generation: judge.table.generation() });
    judge
}

impl Datapath {
    fn next_table(&mut self) -> Judge {
        let judge = Judge::of(self.table());
        self.tell(&FromDatapath::Confirmed { generation: judge.table.generation() });
        judge
    }
}

fn set<'a>(rig: &Rig, device: &'a str, facts: &[&'a str]) -> Child {
    let mut arguments = vec!["context", "set", device];
    arguments.extend(facts);
    rig.ask(&arguments)
}

/// anna is sound, and the table in force says so.
fn anna_is_sound(rig: &Rig, datapath: &mut Datapath) -> Judge {
    is_sound(rig, datapath, "anna")
}

fn is_sound(rig: &Rig, datapath: &mut Datapath, device: &str) -> Judge {
    let asked = set(rig, device, &SOUND);
    let mut judge = datapath.next_table();
    // Two facts, two labels at most; the table may have come for the first of them.
    while !judge.allows(device) {
        let (message, fd) = datapath.heard();
        assert!(fd.is_none());
        let token = judge.relabel(message);
        datapath.tell(&FromDatapath::Relabelled { token });
    }
    assert_eq!(answer(asked).0, 0);
    judge
}

#[test]
fn a_fact_that_is_lost_is_one_message_and_the_answer_waits_for_its_confirmation() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, judge) = running(&mut rig, POLICY);
    assert!(!judge.allows("anna") && !judge.allows("bert"), "what is not known is false");
    let mut judge = anna_is_sound(&rig, &mut datapath);
    assert!(judge.allows("anna") && !judge.allows("bert"));

    let mut asked = set(&rig, "device:anna", &["disk_encrypted=false"]);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"), "taken away by one message");
    assert!(datapath.is_silent(Duration::from_millis(300)), "and by no table");
    assert!(asked.try_wait().unwrap().is_none(), "not acknowledged before it is confirmed");
    datapath.tell(&FromDatapath::Relabelled { token: token + 1_000 });
    assert!(datapath.is_silent(Duration::from_millis(100)));
    assert!(asked.try_wait().unwrap().is_none(), "another token confirms nothing");
    datapath.tell(&FromDatapath::Relabelled { token });
    let (code, value) = answer(asked);
    assert_eq!((code, &value["relabelled"], &value["facts"]), (0, &1.into(), &1.into()));
    assert_eq!(value["trouble"], serde_json::json!([]));

    // Back again: the table knows that label too.
    let asked = set(&rig, "anna", &["disk_encrypted=true"]);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(judge.allows("anna"));
    datapath.tell(&FromDatapath::Relabelled { token });
    assert_eq!(answer(asked).0, 0);

    let (_, value) = answer(rig.ask(&["context", "show", "anna"]));
    let shown = &value["devices"][0];
    assert_eq!(shown["labels"], serde_json::json!([judge.label("anna").0]));
    assert_eq!(shown["rules"], serde_json::json!([{ "id": "payroll", "in_effect": true }]));
    let (_, value) = answer(rig.ask(&["context", "show", "bert"]));
    assert_eq!(value["devices"][0]["rules"][0]["in_effect"], false);
    let question = rig.ask(&["peer", "show", "anna"]);
    datapath.status();
    let (_, value) = answer(question);
    assert_eq!(value["labels"], serde_json::json!([judge.label("anna").0]));
    for (running, verdict) in [(true, "allow"), (false, "deny")] {
        let mut explain = vec!["--config", "bulkhead.toml", "policy", "explain", "device:anna"];
        explain.extend(["10.44.0.122", "tcp/443"]);
        explain.extend(running.then_some("--running"));
        let (code, value) = answer(rig.ask(&explain));
        assert!(code == 0 && value["verdict"].to_string().contains(verdict), "{value}");
    }

    // What changes no label is not told, and answered at once.
    let (code, value) = answer(set(&rig, "anna", &["patch_age_days=4", "floor=3"]));
    assert_eq!((code, &value["relabelled"], &value["facts"]), (0, &0.into(), &2.into()));
    assert!(datapath.is_silent(Duration::ZERO));

    let asked = rig.ask(&["context", "clear", "device:anna"]);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"));
    datapath.tell(&FromDatapath::Relabelled { token });
    let (code, value) = answer(asked);
    assert_eq!((code, &value["facts"]), (0, &3.into()));
}

#[test]
fn facts_outlive_a_restart_and_the_table_is_made_with_them() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, _) = running(&mut rig, POLICY);
    anna_is_sound(&rig, &mut datapath);
    let (_, before) = answer(rig.ask(&["context", "show", "device:anna"]));
    rig.stop(Signal::KILL);
    drop(datapath);
    rig.start(&[]);
    let (_, after) = answer(rig.ask(&["context", "show"]));
    assert_eq!(before["devices"][0]["facts"], after["devices"][0]["facts"]);
    assert_eq!(after["devices"][0]["facts"][0]["source"], "cli");
    let judge = set_up(&mut rig.datapath());
    assert!(judge.allows("anna") && !judge.allows("bert"));
}

#[test]
fn what_was_set_while_no_datapath_was_there_is_said_so_and_counts_from_its_first_table() {
    let mut rig = Rig::new(&DEVICES);
    rig.configure(&DEVICES, POLICY);
    rig.start(&[]);
    let (code, value) = answer(set(&rig, "bert", &SOUND));
    assert_eq!(code, 7, "{value}");
    assert!(value["trouble"][0].as_str().unwrap().contains("first table"), "{value}");
    let judge = set_up(&mut rig.datapath());
    assert!(judge.allows("bert") && !judge.allows("anna"));
}

#[test]
fn a_fact_counts_until_its_time_to_live_runs_out_and_nobody_asks() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, _) = running(&mut rig, POLICY);
    let mut judge = anna_is_sound(&rig, &mut datapath);
    let before = Timestamp::now();
    let asked = set(&rig, "anna", &["disk_encrypted=true", "--ttl", "2s", "--source", "mdm"]);
    assert_eq!(answer(asked).0, 0);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"), "stale is as good as missing");
    assert!(Timestamp::now() >= before + SignedDuration::from_secs(2), "not too early");
    datapath.tell(&FromDatapath::Relabelled { token });
    let (_, value) = answer(rig.ask(&["context", "show", "anna"]));
    let facts = &value["devices"][0]["facts"];
    assert_eq!((&facts[0]["source"], &facts[0]["counts"]), (&"mdm".into(), &false.into()));
    assert_eq!(&facts[1]["counts"], &serde_json::json!(true));
}

#[test]
fn a_rule_starts_and_expires_by_itself() {
    let at = |seconds| (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string();
    let policy = format!(
        "[[rule]]\nid = \"shift\"\nfrom = [\"device:anna\"]\nto = [\"device:zoe\"]\n\
         services = [\"any\"]\nstarts = {}\nexpires = {}\n",
        at(3),
        at(6)
    );
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, mut judge) = running(&mut rig, &policy);
    assert!(!judge.allows("anna"));
    judge = datapath.next_table();
    assert!(judge.allows("anna"), "it has started, and the table before did not know of that");
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"), "it has expired");
    datapath.tell(&FromDatapath::Relabelled { token });
}

#[test]
fn a_table_that_is_refused_leaves_the_labels_of_the_one_before_in_line() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, _) = running(&mut rig, POLICY);
    let mut judge = anna_is_sound(&rig, &mut datapath);
    // bert needs a new table; while it is under way anna loses.
    let bert = set(&rig, "bert", &SOUND);
    let table = datapath.table();
    let anna = set(&rig, "anna", &["disk_encrypted=false"]);
    let (message, _) = datapath.heard();
    let ToDatapath::Relabel { generation, token, .. } = message else { panic!("{message:?}") };
    assert_eq!(generation, table.generation(), "the newest");
    let reason = "a test".to_owned();
    datapath.tell(&FromDatapath::TableRefused { generation, reason: reason.clone() });
    datapath.tell(&FromDatapath::RelabelRefused { token, reason });
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"), "taken away under the table that is in force");
    datapath.tell(&FromDatapath::Relabelled { token });
    let (code, value) = answer(anna);
    assert_eq!((code, &value["trouble"]), (0, &serde_json::json!([])));
    let (code, value) = answer(bert);
    assert_eq!(code, 7);
    assert!(value["trouble"][0].as_str().unwrap().contains("new table"), "{value}");
}

/// Anna loses what she has when an apply begins to be compiled. Whether that is acknowledged before the
/// compiler is done.
fn loses_before_the_compiler_is_done() -> bool {
    let mut rig = Rig::new(&DEVICES);
    let policy = POLICY.to_owned() + &large();
    let (mut datapath, _) = running(&mut rig, &policy);
    let mut judge = anna_is_sound(&rig, &mut datapath);
    let apply = rig.ask(&["apply"]);
    rig.until("the compiler to begin", || rig.log().contains("compiles what was read"));
    let mut operator = rig.control().unwrap();
    operator.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    let lost = r#"{"device":"anna","set":{"disk_encrypted":false}}"#;
    let request = format!("{{\"request\":\"context-set\",\"changes\":[{lost}]}}\n");
    operator.write_all(request.as_bytes()).unwrap();
    let (message, _) = datapath.heard();
    if let ToDatapath::Table { generation } = message {
        datapath.tell(&FromDatapath::Confirmed { generation });
        assert_eq!(answer(apply).0, 0);
        return false;
    }
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"));
    datapath.tell(&FromDatapath::Relabelled { token });
    let mut line = String::new();
    BufReader::new(operator).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&said["answer"], &said["trouble"]), (&"context-changed".into(), &json!([])));
    let under_way = !rig.log().contains("what was read is compiled");
    // The table that was in the making would give it back.
    assert!(!datapath.next_table().allows("anna"));
    assert_eq!(answer(apply).0, 0);
    under_way
}

/// Goal: what is taken away does not wait for the compiler, and an apply does not give it back.
/// Method: the order of things, as the datapath and the log have it. The compiler may be done before the
/// test has said its word; not every time, unless everything waits for it.
#[test]
fn a_fact_that_is_lost_while_an_apply_is_compiled_is_acknowledged_before_its_table() {
    assert!((0..10).any(|_| loses_before_the_compiler_is_done()));
}

#[test]
fn bad_input_changes_nothing_and_names_the_nearest() {
    let mut rig = Rig::new(&DEVICES);
    let (datapath, _) = running(&mut rig, POLICY);
    for (arguments, want) in [
        (&["anne", "managed=true"][..], "no device \"anne\"; did you mean device:anna?"),
        (&["anna", "disk_encripted=true"], "did you mean disk_encrypted?"),
        (&["anna", "disk_encrypted=yes"], "disk_encrypted is true or false, not \"yes\""),
        (&["anna", "risk=high"], "risk is a whole number, not \"high\""),
        (&["anna", "managed"], "\"managed\" is not NAME=VALUE"),
        (&["anna", "managed=true", "managed=false"], "given twice"),
        (&["anna", "managed=true", "--ttl", "soon"], "ttl \"soon\""),
        (&["anna", "managed=true", "--ttl", "0s"], "ttl \"0s\""),
        (&["anna", "managed=true", "--ttl", "400d"], "ttl \"400d\""),
    ] {
        let mut all = vec!["context", "set"];
        all.extend(arguments);
        let (code, value) = answer(rig.ask(&all));
        let message = value["refused"]["message"].as_str().unwrap();
        assert_eq!((code, message.contains(want)), (2, true), "{arguments:?}: {message}");
    }
    for arguments in [["context", "clear", "anne"], ["context", "show", "anne"]] {
        let (code, value) = answer(rig.ask(&arguments));
        assert_eq!((code, &value["refused"]["kind"]), (2, &"bad-request".into()));
    }
    let (_, value) = answer(rig.ask(&["context", "show"]));
    assert_eq!(value["devices"], serde_json::json!([]));
    assert!(datapath.is_silent(Duration::ZERO));
}

/// Anna and bert are sound, and lose it while the disk is at work over anna.
fn lose_while_the_disk_is_slow(rig: &mut Rig) -> (SlowDisk, [Child; 2], Datapath) {
    let (mut datapath, _) = running(rig, POLICY);
    anna_is_sound(rig, &mut datapath);
    let mut judge = is_sound(rig, &mut datapath, "bert");
    let disk = SlowDisk::over(rig, &format!("state/facts/{:02x}.new", drawer_of("anna")));
    let mut asked = ["anna", "bert"].map(|device| {
        let asked = set(rig, device, &["disk_encrypted=false"]);
        let (message, _) = datapath.heard();
        let token = judge.relabel(message);
        assert!(!judge.allows(device));
        datapath.tell(&FromDatapath::Relabelled { token });
        asked
    });
    // Whatever was said before was heard before this is answered.
    assert_eq!(answer(rig.ask(&["context", "show"])).0, 0);
    assert!(asked.iter_mut().all(|one| one.try_wait().unwrap().is_none()), "not on the disk");
    (disk, asked, datapath)
}

fn are_known_to_have_lost_it(rig: &Rig) -> bool {
    let (_, value) = answer(rig.ask(&["context", "show"]));
    let devices = value["devices"].as_array().unwrap();
    devices.len() == 2 && devices.iter().all(|one| one["facts"][0]["value"] == false)
}

/// Goal: who loses something loses it at once, also behind another for whom the disk takes its time.
#[test]
fn a_slow_disk_holds_up_answers_and_no_revocation() {
    let mut rig = Rig::new(&DEVICES);
    let (disk, asked, mut datapath) = lose_while_the_disk_is_slow(&mut rig);
    disk.fails();
    for one in asked {
        let (code, value) = answer(one);
        let trouble = value["trouble"][0].as_str().unwrap_or_default();
        assert!(code == 7 && trouble.contains("a restart would forget it"), "{value}");
    }
    rig.until("both to be kept", || {
        let question = rig.ask(&["status"]);
        datapath.status();
        answer(question).1["degraded"] == json!([])
    });
    rig.stop(Signal::KILL);
    rig.start(&[]);
    assert!(are_known_to_have_lost_it(&rig));
}

#[test]
fn what_is_not_on_the_disk_when_bulkheadd_is_told_to_end_is_written_before_it_does() {
    let mut rig = Rig::new(&DEVICES);
    let (disk, ..) = lose_while_the_disk_is_slow(&mut rig);
    let mut daemon = rig.daemon.take().unwrap();
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    disk.recovers();
    assert!(daemon.wait().unwrap().success(), "{}", rig.log());
    rig.start(&[]);
    assert!(are_known_to_have_lost_it(&rig));
}

fn lines(rig: &Rig, text: &str) -> (i32, serde_json::Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["--run-dir", "run", "--json", "context", "set", "--stdin", "--source", "mdm"])
        .current_dir(rig.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    answer(child)
}

#[test]
fn a_batch_of_json_lines_is_taken_whole_or_not_at_all() {
    let mut rig = Rig::new(&DEVICES);
    rig.configure(&DEVICES, POLICY);
    rig.start(&[]);
    let good = "{\"device\":\"anna\",\"set\":{\"managed\":true}}\n\n";
    let bad = format!(
        "{good}{{\"device\":\"bort\",\"set\":{{\"managed\":true}}}}\nnot json\n\
         {{\"device\":\"bert\",\"set\":{{\"managed\":1,\"risk\":true}},\"ttl\":\"1h\"}}\n\
         {{\"device\":\"bert\",\"sets\":{{}}}}\n{{\"device\":\"bert\",\"set\":{{}}}}\n"
    );
    let (code, value) = lines(&rig, &bad);
    assert_eq!((code, &value["refused"]["kind"]), (2, &"bad-request".into()));
    let found: Vec<(u64, &str)> = value["refused"]["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["line"].as_u64().unwrap(), one["problem"].as_str().unwrap()))
        .collect();
    let want = [
        (3, "did you mean device:bert?"),
        (4, "expected"),
        (5, "managed is true or false, not 1; risk is a whole number, not true"),
        (6, "unknown field `sets`"),
        (7, "it sets nothing"),
    ];
    assert_eq!(found.len(), want.len(), "{found:?}");
    for ((line, problem), (number, part)) in found.iter().zip(want) {
        assert_eq!((*line, problem.contains(part)), (number, true), "{problem}");
    }
    let (_, value) = answer(rig.ask(&["context", "show"]));
    assert_eq!(value["devices"], serde_json::json!([]), "the good line neither");

    let good = format!("{good}{{\"device\":\"device:bert\",\"set\":{{\"risk\":7,\"tier\":1}}}}");
    let (code, value) = lines(&rig, &good);
    assert_eq!((code, &value["devices"], &value["facts"]), (7, &2.into(), &3.into()));
    let (_, value) = answer(rig.ask(&["context", "show"]));
    let facts = &value["devices"][1]["facts"];
    assert_eq!((&facts[0]["attribute"], &facts[0]["value"]), (&"risk".into(), &7.into()));
    assert_eq!(&facts[0]["source"], "mdm");
}

#[test]
fn a_torn_file_of_facts_is_an_error_that_denies() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, _) = running(&mut rig, POLICY);
    anna_is_sound(&rig, &mut datapath);
    rig.stop(Signal::TERM);
    drop(datapath);
    let files: Vec<_> =
        fs::read_dir(rig.path("state/facts")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let text = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], &text[..text.len() - 40]).unwrap();
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let judge = set_up(&mut datapath);
    assert!(!judge.allows("anna"));
    let question = rig.ask(&["status"]);
    datapath.status();
    let (code, value) = answer(question);
    assert_eq!(code, 7);
    assert!(value["degraded"][0].as_str().unwrap().contains(".torn is not what was written"));
    assert!(files[0].with_extension("torn").exists(), "kept for whoever looks into it");
}

#[test]
fn facts_that_cannot_be_kept_are_in_force_and_said_to_be_lost_with_a_restart() {
    let mut rig = Rig::new(&DEVICES);
    let (mut datapath, _) = running(&mut rig, POLICY);
    let mut judge = anna_is_sound(&rig, &mut datapath);
    fs::rename(rig.path("state/facts"), rig.path("state/elsewhere")).unwrap();
    let asked = set(&rig, "anna", &["disk_encrypted=false"]);
    let (message, _) = datapath.heard();
    let token = judge.relabel(message);
    assert!(!judge.allows("anna"), "the wire does not wait for the disk");
    datapath.tell(&FromDatapath::Relabelled { token });
    let (code, value) = answer(asked);
    assert_eq!(code, 7);
    assert!(value["trouble"][0].as_str().unwrap().contains("a restart would forget it"));
    fs::rename(rig.path("state/elsewhere"), rig.path("state/facts")).unwrap();
    rig.until("the next attempt", || {
        let question = rig.ask(&["status"]);
        datapath.status();
        answer(question).0 == 0
    });
    rig.stop(Signal::KILL);
    drop(datapath);
    rig.start(&[]);
    assert!(!set_up(&mut rig.datapath()).allows("anna"));
}
