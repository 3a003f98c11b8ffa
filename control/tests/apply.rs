//! `bulkhead apply --confirm`, `confirm`, `history`, `rollback` and `apply --dry-run`, with the built
//! daemon and CLI and a datapath that the test plays.

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
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bulkhead_link::{Configuration, FromDatapath, Peer, ToDatapath};
use rig::{Datapath, Rig, answer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A gateway with one device, confirmed as generation 1.
fn gateway() -> (Rig, Datapath, Configuration, Vec<Peer>) {
    let mut rig = Rig::new(&["anna"]);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (configuration, peers, generation) = datapath.set_up(1);
    assert_eq!(generation, 1);
    rig.until("the first generation to be kept", || kept(&rig) == [(1, "confirmed".into())]);
    (rig, datapath, configuration, peers)
}

/// Generation and state of everything in the history.
fn kept(rig: &Rig) -> Vec<(u64, String)> {
    let (code, history) = answer(rig.ask(&["history"]));
    assert_eq!(code, 0, "{history}");
    let entry = |entry: &Value| {
        (entry["generation"].as_u64().unwrap(), entry["state"].as_str().unwrap().to_owned())
    };
    history["entries"].as_array().unwrap().iter().map(entry).collect()
}

/// Puts the file in force, and plays the datapath meanwhile.
fn apply(rig: &Rig, datapath: &mut Datapath, words: &[&str], added: usize) -> Value {
    let asked = rig.ask(words);
    let peers = datapath.peers(added);
    let generation = datapath.table().generation();
    datapath.tell(&FromDatapath::Confirmed { generation });
    let (code, value) = answer(asked);
    assert_eq!(
        (code, &value["generation"], peers.len()),
        (0, &generation.into(), added),
        "{value}"
    );
    value
}

/// The table that comes without being asked for, and the removal of the device that it lacks.
fn comes_back(datapath: &mut Datapath) -> u64 {
    let generation = datapath.table().generation();
    datapath.tell(&FromDatapath::Confirmed { generation });
    let (message, _) = datapath.heard();
    assert!(matches!(message, ToDatapath::RemovePeer { .. }), "{message:?}");
    generation
}

fn status(rig: &Rig, datapath: &mut Datapath) -> (i32, Value) {
    let question = rig.ask(&["status"]);
    datapath.status();
    answer(question)
}

/// A datapath that runs is taken over by the next daemon; it has these peers.
fn take_over(
    rig: &Rig,
    configuration: &Configuration,
    generation: u64,
    peers: &[Peer],
) -> Datapath {
    let mut datapath = rig.datapath();
    datapath.hello(Some(configuration.clone()), generation);
    for peer in peers {
        datapath.tell(&FromDatapath::Peer(peer.clone()));
    }
    datapath.tell(&FromDatapath::Adopted);
    datapath
}

#[test]
fn apply_with_confirm_rolls_back_by_itself() {
    let (rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    let start = Instant::now();
    let value = apply(&rig, &mut datapath, &["apply", "--confirm", "2s", "-m", "for bert"], 1);
    assert_eq!((&value["confirm_within_s"], &value["configuration"]), (&2.into(), &2.into()));
    let (code, value) = status(&rig, &mut datapath);
    let waiting = &value["configuration"]["waiting"];
    assert_eq!((code, &waiting["generation"], &waiting["back_to"]), (0, &2.into(), &1.into()));

    assert_eq!(comes_back(&mut datapath), 3, "the number of the table always rises");
    assert!(start.elapsed() >= Duration::from_secs(2), "not before its time");
    let (code, value) = status(&rig, &mut datapath);
    let configuration = &value["configuration"];
    assert_eq!((code, &value["generation"], &configuration["in_force"]), (0, &3.into(), &1.into()));
    assert_eq!(
        (&configuration["waiting"], &configuration["file"]),
        (&Value::Null, &"differs".into())
    );
    let confirmed = |n| (n, "confirmed".to_owned());
    assert_eq!(kept(&rig), [confirmed(1), (2, "rolled-back".to_owned())]);
    let (code, value) = answer(rig.ask(&["confirm"]));
    assert_eq!((code, &value["refused"]["kind"]), (6, &"nothing-waiting".into()), "{value}");
    let (code, _) = answer(rig.ask(&["rollback"]));
    assert_eq!(code, 6);
}

#[test]
fn a_confirmation_in_time_keeps_it_and_a_start_begins_with_it() {
    let (mut rig, mut datapath, configuration, mut peers) = gateway();
    rig.configure(&["anna", "bert"], "");
    let asked = rig.ask(&["apply", "--confirm", "20s"]);
    peers.extend(datapath.peers(1));
    let generation = datapath.table().generation();
    datapath.tell(&FromDatapath::Confirmed { generation });
    assert_eq!(answer(asked).0, 0);
    let (code, value) = answer(rig.ask(&["confirm", "1"]));
    let message = value["refused"]["message"].as_str().unwrap();
    assert!(code == 6 && message.contains("bulkhead confirm 2"), "another waits: {value}");
    assert_eq!(answer(rig.ask(&["confirm", "2"])), (0, json!({ "confirmed": 2 })));
    rig.stop(Signal::KILL);
    rig.start(&[]);
    // The first thing that it hears is our question: the table in force is what stands.
    let mut datapath = take_over(&rig, &configuration, 2, &peers);
    let (code, value) = status(&rig, &mut datapath);
    let configuration = &value["configuration"];
    assert_eq!(
        (code, &configuration["in_force"], &configuration["standing"]),
        (0, &2.into(), &2.into())
    );
}

/// A network device has gone, say: the new datapath cannot have what stands.
#[test]
fn what_mends_a_refused_configuration_cannot_wait_for_its_confirmation() {
    let (mut rig, datapath, ..) = gateway();
    drop(datapath);
    rig.stop(Signal::TERM);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.hello(None, 0);
    datapath.tell(&FromDatapath::Adopted);
    let refuse = |datapath: &mut Datapath| {
        let (message, _) = datapath.heard();
        assert!(matches!(message, ToDatapath::Configure(_)), "{message:?}");
        datapath.tell(&FromDatapath::ConfigurationRefused { reason: "eth7 is gone".to_owned() });
    };
    refuse(&mut datapath);
    rig.configure(&["anna", "bert"], "");
    let mut refusal = |words: &[&str]| loop {
        let (code, value) = answer(rig.ask(words));
        let refused = &value["refused"];
        assert_eq!(code, 1, "{value}");
        if refused["kind"] != "busy" {
            return refused["message"].as_str().unwrap().to_owned();
        }
        // It was just being tried again.
        refuse(&mut datapath);
    };
    for words in [&["apply", "--confirm", "1m"][..], &["rollback", "1", "--confirm", "1m"]] {
        let message = refusal(words);
        let (reason, way_out) =
            ("(eth7 is gone)", "nothing was changed. Apply it without --confirm");
        assert!(message.contains(reason) && message.ends_with(way_out), "{message}");
    }
    assert_eq!(kept(&rig), [(1, "confirmed".to_owned())]);
}

#[test]
fn bulkheadd_is_killed_and_what_waits_is_rolled_back_at_its_time_by_the_next() {
    let (mut rig, mut datapath, configuration, mut peers) = gateway();
    rig.configure(&["anna", "bert"], "");
    let start = Instant::now();
    let asked = rig.ask(&["apply", "--confirm", "10s"]);
    peers.extend(datapath.peers(1));
    datapath.table();
    datapath.tell(&FromDatapath::Confirmed { generation: 2 });
    assert_eq!(answer(asked).0, 0);
    rig.stop(Signal::KILL);
    rig.start(&[]);
    let mut datapath = take_over(&rig, &configuration, 2, &peers);
    if start.elapsed() < Duration::from_secs(8) {
        let (code, value) = status(&rig, &mut datapath);
        let waiting = &value["configuration"]["waiting"];
        assert_eq!(
            (code, &waiting["generation"]),
            (0, &2.into()),
            "it is in force and waits: {value}"
        );
        assert!(waiting["left_ms"].as_u64().unwrap() < 10_000);
    }
    assert_eq!(comes_back(&mut datapath), 3);
    assert!(start.elapsed() >= Duration::from_secs(10), "not before its time");
    assert_eq!(kept(&rig)[1], (2, "rolled-back".to_owned()));
}

#[test]
fn bulkheadd_is_killed_and_started_after_the_time_was_up() {
    let (mut rig, mut datapath, configuration, mut peers) = gateway();
    rig.configure(&["anna", "bert"], "");
    let asked = rig.ask(&["apply", "--confirm", "3s"]);
    peers.extend(datapath.peers(1));
    datapath.table();
    datapath.tell(&FromDatapath::Confirmed { generation: 2 });
    assert_eq!(answer(asked).0, 0);
    rig.stop(Signal::KILL);
    let end = Instant::now() + Duration::from_secs(3);
    rig.until("the time to be up", || Instant::now() > end);
    rig.start(&[]);
    // At once, and nothing else before.
    let mut datapath = take_over(&rig, &configuration, 2, &peers);
    assert_eq!(comes_back(&mut datapath), 3);
    assert_eq!(kept(&rig)[1], (2, "rolled-back".to_owned()));
}

/// A power cut takes the run folder, which is in memory, and the datapath.
#[test]
fn after_a_power_cut_the_box_starts_with_what_was_confirmed_last() {
    let (mut rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    apply(&rig, &mut datapath, &["apply", "--confirm", "1h"], 1);
    rig.stop(Signal::KILL);
    drop(datapath);
    fs::remove_dir_all(rig.path("run")).unwrap();
    // What was half written then.
    let history = rig.path("state/history");
    fs::write(history.join("3.toml"), "schema = 1\n[gate").unwrap();
    fs::write(history.join("3.new"), "{\"generation\"").unwrap();
    fs::write(history.join("incoming.toml"), "").unwrap();
    fs::remove_file(rig.path("state/published.json")).unwrap();
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (_, peers, generation) = datapath.set_up(1);
    assert_eq!(peers[0].public_key, rig::private("anna").public_key().0);
    assert!(generation > 2, "{generation}: the number of the table always rises");
    assert_eq!(kept(&rig)[1], (2, "rolled-back".to_owned()));
    assert!(!history.join("3.toml").exists() && !history.join("3.new").exists());
    let mode = |name: &str| fs::metadata(rig.path(name)).unwrap().permissions().mode() & 0o777;
    let modes = ["state/history", "state/history/1.toml", "state/history/1.json"].map(mode);
    assert_eq!(modes, [0o700, 0o600, 0o600]);
}

#[test]
fn the_cli_dies_and_what_it_asked_for_is_rolled_back_all_the_same() {
    let (rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    let mut asked = rig.ask(&["apply", "--confirm", "2s"]);
    datapath.peers(1);
    let generation = datapath.table().generation();
    asked.kill().unwrap();
    asked.wait().unwrap();
    datapath.tell(&FromDatapath::Confirmed { generation });
    assert_eq!(comes_back(&mut datapath), 3);
}

#[test]
fn a_second_apply_waits_for_the_confirmation_of_the_first() {
    let (rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    apply(&rig, &mut datapath, &["apply", "--confirm", "1h"], 1);
    for words in [&["apply"][..], &["apply", "--confirm", "1m"], &["apply", "--next-start"]] {
        let (code, value) = answer(rig.ask(words));
        assert_eq!((code, &value["refused"]["kind"]), (8, &"waiting".into()), "{words:?} {value}");
    }
    // Another operator means what she has applied herself, which is gone by now.
    for words in [&["rollback", "--of", "1"][..], &["rollback", "1", "--of", "1"]] {
        let (code, value) = answer(rig.ask(words));
        let message = value["refused"]["message"].as_str().unwrap();
        let way_out = "nothing was taken back. To take that one back: bulkhead rollback --of 2";
        assert!(code == 6 && message.ends_with(way_out), "{words:?} {value}");
    }
    assert_eq!(kept(&rig)[1], (2, "waiting".to_owned()));
    // The operator takes it back before its time.
    let asked = rig.ask(&["rollback", "--of", "2"]);
    assert_eq!(comes_back(&mut datapath), 3);
    let (code, value) = answer(asked);
    assert_eq!((code, &value["rolled_back"], &value["configuration"]), (0, &2.into(), &1.into()));
    // Now it may be applied again; and a rollback to an older text ends another wait.
    apply(&rig, &mut datapath, &["apply", "--confirm", "1h"], 1);
    let (code, value) = answer(rig.ask(&["rollback", "2", "--confirm", "1h"]));
    assert_eq!((code, &value["refused"]["kind"]), (8, &"waiting".into()), "{value}");
    let back = apply(&rig, &mut datapath, &["rollback", "2", "-m", "it was right"], 0);
    assert_eq!(back["configuration"], 5);
    let states = ["confirmed", "rolled-back", "rolled-back", "confirmed"].map(str::to_owned);
    let want: Vec<_> = [1, 2, 4, 5].into_iter().zip(states).collect();
    assert_eq!(kept(&rig), want);
}

#[test]
fn rollback_to_a_generation_puts_its_text_in_force_under_a_greater_number() {
    let (mut rig, mut datapath, ..) = gateway();
    let first = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    rig.configure(&["anna", "bert"], "");
    apply(&rig, &mut datapath, &["apply", "-m", "for bert"], 1);
    let asked = rig.ask(&["rollback", "1", "-m", "bert has left"]);
    assert_eq!(comes_back(&mut datapath), 3);
    let (code, value) = answer(asked);
    assert_eq!((code, &value["configuration"]), (0, &3.into()), "{value}");
    let (_, history) = answer(rig.ask(&["history"]));
    let newest = &history["entries"][2];
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((&newest["by"], &newest["text_of"]), (&uid.into(), &1.into()));
    assert_eq!((&newest["message"], &newest["in_force"]), (&"bert has left".into(), &true.into()));
    assert_eq!(history["entries"][1]["message"], "for bert");
    assert_eq!(answer(rig.ask(&["history", "3"])).1["text"], first.as_str());
    for words in [["rollback", "9"], ["history", "9"]] {
        let (code, value) = answer(rig.ask(&words));
        assert_eq!((code, &value["refused"]["kind"]), (1, &"not-kept".into()), "{value}");
    }
    // The file is as the operator left it, so a start does not take it.
    rig.stop(Signal::TERM);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (_, peers, generation) = datapath.set_up(1);
    assert_eq!((peers.len(), generation), (1, 4));
}

/// Goal: whoever removes an old key knows what cannot come back without it, before and after. Method: a
/// key is rotated beside a running daemon, and the old file goes.
#[test]
fn history_says_what_cannot_come_back_because_a_key_file_is_gone() {
    let (rig, _datapath, ..) = gateway();
    let ask = |words: &[&str]| answer(rig.ask(&[&["--config", "bulkhead.toml"], words].concat()));
    let remark = || {
        let (code, history) = ask(&["history"]);
        assert_eq!(code, 0, "{history}");
        history["entries"][0]["remark"].clone()
    };
    assert_eq!(remark(), Value::Null);
    assert_eq!(ask(&["key", "rotate", "wg0"]).0, 0);
    let (_, done) = ask(&["key", "rotate", "wg0", "--finish"]);
    assert_eq!(done["generations_with_the_old_key"], json!([1]), "{done}");
    assert_eq!(remark(), Value::Null);
    fs::remove_file(rig.path("wg0.key")).unwrap();
    assert_eq!(remark(), "cannot come back: wg0.key is gone");
    // Without the file's place nothing is known of its keys.
    assert_eq!(answer(rig.ask(&["history"])).1["entries"][0]["remark"], Value::Null);
}

#[test]
fn a_file_that_was_edited_and_not_applied_is_not_put_in_force_by_a_start() {
    let (mut rig, datapath, ..) = gateway();
    drop(datapath);
    rig.stop(Signal::TERM);
    rig.configure(&["anna", "bert"], "");
    rig.start(&[]);
    assert!(rig.log().contains("the file says something else than generation 1"), "{}", rig.log());
    let mut datapath = rig.datapath();
    datapath.set_up(1);
    let (code, value) = status(&rig, &mut datapath);
    let configuration = &value["configuration"];
    assert_eq!(
        (code, &configuration["file"], &configuration["in_force"]),
        (0, &"differs".into(), &1.into())
    );
    apply(&rig, &mut datapath, &["apply"], 1);
    let (_, value) = status(&rig, &mut datapath);
    assert_eq!(value["configuration"]["file"], "same");
    // Not even if the file has gone.
    rig.stop(Signal::TERM);
    drop(datapath);
    fs::remove_file(rig.path("bulkhead.toml")).unwrap();
    rig.start(&[]);
    let mut datapath = rig.datapath();
    datapath.set_up(2);
    assert_eq!(status(&rig, &mut datapath).1["configuration"]["file"], "unreadable");
}

#[test]
fn what_is_kept_for_the_next_start_changes_nothing_before() {
    let (mut rig, mut datapath, ..) = gateway();
    // Only a restart of the datapath can bring this.
    let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    fs::write(rig.path("bulkhead.toml"), text.replace("sessions_max = 64", "sessions_max = 32"))
        .unwrap();
    assert_eq!(
        answer(rig.ask(&["apply", "--next-start", "-m", "smaller"])),
        (0, json!({ "kept": 2 }))
    );
    let (code, value) = status(&rig, &mut datapath);
    let configuration = &value["configuration"];
    assert_eq!(
        (code, &configuration["in_force"], &configuration["standing"]),
        (0, &1.into(), &2.into())
    );
    // Nobody has seen it work, so nothing may lead back to it.
    fs::write(rig.path("bulkhead.toml"), format!("# Another.\n{text}")).unwrap();
    let (code, value) = answer(rig.ask(&["apply", "--confirm", "1m"]));
    let told = value.to_string();
    assert!(code == 1 && told.contains("generation 2 is kept for the next start"), "{code} {told}");
    drop(datapath);
    rig.stop(Signal::TERM);
    rig.start(&[]);
    let mut datapath = rig.datapath();
    let (configuration, _, generation) = datapath.set_up(1);
    assert_eq!((configuration.sessions_max, generation), (32, 3));
}

#[test]
fn a_damaged_history_and_a_text_that_does_not_load_stop_the_start_and_say_the_way_out() {
    let (mut rig, datapath, ..) = gateway();
    drop(datapath);
    rig.stop(Signal::TERM);
    let failed = |code: i32| {
        let output = rig.command(&[]).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    };
    let entry = rig.path("state/history/1.json");
    let whole = fs::read(&entry).unwrap();
    fs::write(&entry, &whole[..whole.len() / 2]).unwrap();
    let text = failed(1);
    assert!(
        text.contains("1.json is damaged") && text.contains("the configuration file is what"),
        "{text}"
    );
    fs::write(&entry, &whole).unwrap();
    fs::rename(rig.path("wg0.key"), rig.path("old.key")).unwrap();
    let text = failed(3);
    assert!(text.contains("generation 1, which was confirmed last, cannot be loaded"), "{text}");
    assert!(text.contains("history/1.toml:"), "its place: {text}");
    fs::rename(rig.path("old.key"), rig.path("wg0.key")).unwrap();
    rig.start(&[]);
}

#[test]
fn a_full_disk_refuses_an_apply_before_anything_changes() {
    let (rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    let blocked = rig.path("state/history/incoming.toml");
    fs::create_dir(&blocked).unwrap();
    let (code, value) = answer(rig.ask(&["apply"]));
    let message = value["refused"]["message"].as_str().unwrap();
    assert!(code == 1 && message.ends_with("nothing was changed"), "{value}");
    fs::remove_dir(&blocked).unwrap();
    // The datapath has heard nothing of it.
    apply(&rig, &mut datapath, &["apply"], 1);
}

#[test]
fn the_datapath_dies_while_something_waits_and_the_next_one_gets_what_was_confirmed_last() {
    let (rig, mut datapath, ..) = gateway();
    rig.configure(&["anna", "bert"], "");
    apply(&rig, &mut datapath, &["apply", "--confirm", "2s"], 1);
    drop(datapath);
    rig.until("the way back", || {
        answer(rig.ask(&["status"])).1["configuration"]["in_force"] == json!(1)
    });
    assert_eq!(kept(&rig)[1].1, "rolled-back");
    let mut datapath = rig.datapath();
    let (_, peers, generation) = datapath.set_up(1);
    assert_eq!((peers[0].public_key, generation), (rig::private("anna").public_key().0, 3));
    assert_eq!(status(&rig, &mut datapath).1["configuration"]["in_force"], 1);
}

/// A gateway whose datapath judges by generation 2, with two devices; then its daemon is replaced by
/// one of a release that keeps a history, after `edited` was done to the file.
fn upgraded(edited: impl FnOnce(&Rig)) -> (Rig, Datapath) {
    let (mut rig, mut datapath, configuration, mut peers) = gateway();
    rig.configure(&["anna", "bert"], "");
    let asked = rig.ask(&["apply"]);
    peers.extend(datapath.peers(1));
    datapath.table();
    datapath.tell(&FromDatapath::Confirmed { generation: 2 });
    assert_eq!(answer(asked).0, 0);
    rig.stop(Signal::KILL);
    fs::remove_dir_all(rig.path("state/history")).unwrap();
    edited(&rig);
    rig.start(&[]);
    let datapath = take_over(&rig, &configuration, 2, &peers);
    (rig, datapath)
}

#[test]
fn the_first_start_with_a_history_keeps_what_runs_as_what_stands() {
    let (rig, mut datapath) = upgraded(|_| ());
    rig.until("what runs to be kept", || kept(&rig) == [(2, "confirmed".into())]);
    // The first thing that it hears is our question: nothing is put in force anew.
    let (code, value) = status(&rig, &mut datapath);
    let configuration = &value["configuration"];
    assert_eq!((code, &configuration["in_force"]), (0, &2.into()), "{value}");
    // So there is a way back from the first change on.
    rig.configure(&["anna", "bert", "carl"], "");
    apply(&rig, &mut datapath, &["apply", "--confirm", "1s"], 1);
    assert_eq!(comes_back(&mut datapath), 4);
    assert_eq!(kept(&rig)[1], (3, "rolled-back".to_owned()));
}

#[test]
fn the_first_start_with_a_history_takes_the_file_that_is_there() {
    let (rig, mut datapath) = upgraded(|rig| rig.configure(&["anna"], ""));
    assert_eq!(comes_back(&mut datapath), 3);
    rig.until("the file to be kept", || kept(&rig) == [(3, "confirmed".into())]);
    assert_eq!(status(&rig, &mut datapath).1["configuration"]["in_force"], 3);
}

/// The file needs a datapath that is set up anew: what runs is nothing that could be kept.
#[test]
fn the_first_start_with_a_history_keeps_nothing_that_does_not_run() {
    let smaller = |rig: &Rig| {
        let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
        let text = text.replace("sessions_max = 64", "sessions_max = 32");
        fs::write(rig.path("bulkhead.toml"), text).unwrap();
    };
    let (mut rig, mut datapath) = upgraded(smaller);
    let (code, value) = status(&rig, &mut datapath);
    assert_eq!((code, &value["configuration"]["in_force"]), (7, &Value::Null), "{value}");
    assert!(value["degraded"][0].as_str().unwrap().contains("sessions_max"), "{value}");
    let (code, value) = answer(rig.ask(&["apply", "--confirm", "1h"]));
    let why = value["refused"]["message"].as_str().unwrap();
    assert!(code == 1 && why.contains("no configuration was confirmed yet"), "{value}");
    assert_eq!(kept(&rig), []);
    // Its restart is what puts the file in force, and what works is kept.
    drop(datapath);
    rig.stop(Signal::TERM);
    rig.start(&[]);
    let (configuration, _, generation) = rig.datapath().set_up(2);
    assert_eq!((configuration.sessions_max, generation), (32, 3));
    rig.until("the file to be kept", || kept(&rig) == [(3, "confirmed".into())]);
}

#[test]
fn a_failing_test_refuses_the_apply_with_its_name_and_place() {
    let (rig, ..) = gateway();
    let test = "[[test]]\nname = \"anna reaches the till\"\nfrom = \"device:anna\"\n\
                allow = [\"10.44.0.97 tcp/1\"]\n";
    rig.configure(&["anna", "bert"], test);
    let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("name = \"anna")).unwrap();
    let (code, value) = answer(rig.ask(&["apply", "-m", "oops"]));
    let diagnostic = &value["refused"]["diagnostics"][0];
    assert_eq!((code, &diagnostic["line"]), (4, &line.into()), "{value}");
    assert!(diagnostic["problem"].as_str().unwrap().contains("anna reaches the till"), "{value}");
    let (code, value) = answer(rig.ask(&["apply", "--dry-run"]));
    assert_eq!((code, &value["tests"][0]["passed"]), (4, &false.into()), "{value}");
    assert_eq!(value["tests"][0]["line"], line);
    assert_eq!(kept(&rig).len(), 1);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let (rig, mut datapath, ..) = gateway();
    let (code, value) = answer(rig.ask(&["apply", "--dry-run"]));
    assert_eq!((code, &value["same"], &value["regions"]), (0, &true.into(), &0.into()), "{value}");
    let rule = "[service.web]\nports = [\"tcp/443\"]\n[[rule]]\nid = \"web\"\nfrom = [\"device:bert\"]\n\
                to = [\"device:carl\"]\nservices = [\"web\"]\n[[test]]\nname = \"web\"\n\
                from = \"device:bert\"\nallow = [\"10.44.0.99 tcp/443\"]\n";
    rig.configure(&["bert", "carl"], rule);
    let before = fs::read_dir(rig.path("state/history")).unwrap().count();
    let (code, value) = answer(rig.ask(&["apply", "--dry-run"]));
    assert_eq!((code, &value["same"]), (0, &false.into()), "{value}");
    assert_eq!(
        value["devices"],
        json!({ "added": ["bert", "carl"], "removed": ["anna"], "changed": [] })
    );
    assert_eq!(value["tests"][0]["passed"], true);
    assert_eq!(value["regions"], 1);
    assert_eq!(
        value["verdicts"][0]["witness"],
        json!(["10.44.0.98", "10.44.0.99", "tcp/443"]),
        "{value}"
    );
    assert_eq!(fs::read_dir(rig.path("state/history")).unwrap().count(), before);
    let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    fs::write(rig.path("bulkhead.toml"), text.replace("sessions_max = 64", "sessions_max = 32"))
        .unwrap();
    let (_, value) = answer(rig.ask(&["apply", "--dry-run"]));
    let restart = value["restart_needed"][0].as_str().unwrap();
    assert!(restart.contains("sessions_max"), "{value}");
    fs::write(rig.path("bulkhead.toml"), "schema = 2\n").unwrap();
    assert_eq!(answer(rig.ask(&["apply", "--dry-run"])).0, 3);
    // The datapath has heard nothing of all this.
    assert_eq!(status(&rig, &mut datapath).1["generation"], 1);
}

#[test]
fn nonsense_is_refused_before_anything_is_read() {
    let (rig, ..) = gateway();
    for line in [
        r#"{"request":"apply","message":"two\nlines"}"#,
        r#"{"request":"apply","message":"\u001b[2J"}"#,
        r#"{"request":"apply","confirm_s":0}"#,
        r#"{"request":"apply","confirm_s":86401}"#,
        r#"{"request":"apply","next_start":true,"confirm_s":5}"#,
        r#"{"request":"rollback","generation":-1}"#,
    ] {
        let said = rig.say(format!("{line}\n").as_bytes());
        assert!(said.contains("bad-request"), "{line} {said}");
    }
    assert_eq!(kept(&rig).len(), 1);
}
