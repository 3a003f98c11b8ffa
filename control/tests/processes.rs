//! The process of the datapath, where the daemon starts it: that dies, hangs, is deaf, or is told to end.

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

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_link::{Channel, ChannelError, FromDatapath, Peer, ToDatapath};
use rig::{Datapath, Rig, answer};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A program in the rig's folder that the daemon starts as its datapath, and that says who it is.
struct Program {
    started: PathBuf,
}

impl Program {
    /// Goes on with `then`, in sh; `$2` is the link.
    fn new(rig: &Rig, then: &str) -> Self {
        let (program, started) = (rig.path("datapath"), rig.path("started"));
        let script = format!(
            "#!/bin/sh\nread -r _ _ _ _ _ sid _ < /proc/$$/stat\necho $$ $sid \"$@\" >> {}\n{then}\n",
            started.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        Self { started }
    }

    /// Becomes one of the tests below, which does not hear SIGTERM.
    fn deaf(rig: &Rig, test: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        let then = "trap '' TERM\nBULKHEAD_TEST_LINK=\"$2\" exec";
        Self::new(rig, &format!("{then} {} --exact {test}", own.display()))
    }

    /// What each that was started has said.
    fn words(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.started).unwrap_or_default();
        let whole = text.lines().filter(|line| line.contains("--link"));
        whole.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    fn pids(&self) -> Vec<Pid> {
        let pid = |words: &Vec<String>| Pid::from_raw(words[0].parse().unwrap()).unwrap();
        self.words().iter().map(pid).collect()
    }

    /// The newest, once so many were started.
    fn newest(&self, rig: &Rig, count: usize) -> Pid {
        rig.until("a start", || self.pids().len() >= count);
        self.pids()[count - 1]
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // All before the last have gone.
        if let Some(last) = self.pids().last() {
            let _ = kill_process(*last, Signal::KILL);
        }
    }
}

#[test]
fn a_datapath_is_started_in_its_own_session_again_when_it_dies_and_outlives_us() {
    let mut rig = Rig::new(&["anna"]);
    let program = Program::new(&rig, "exec sleep 600");
    rig.start(&["--datapath", "datapath"]);
    let first = program.newest(&rig, 1);
    let words = program.words().remove(0);
    assert_eq!(words[0], words[1], "leader of its own session");
    assert_eq!(words[2..], ["--link", rig.path("run/link.sock").to_str().unwrap()]);
    kill_process(first, Signal::KILL).unwrap();
    let second = program.newest(&rig, 2);
    assert!(test_kill_process(second).is_ok());
    rig.stop(Signal::TERM);
    assert!(test_kill_process(second).is_ok());
}

#[test]
fn a_datapath_that_does_not_connect_is_killed_and_another_is_started() {
    let mut rig = Rig::new(&["anna"]);
    let program = Program::new(&rig, "trap '' TERM\nexec sleep 600");
    rig.start(&["--datapath", "datapath"]);
    let first = program.newest(&rig, 1);
    program.newest(&rig, 2);
    assert!(test_kill_process(first).is_err(), "deaf or not");
    let told = format!("(process {}) did not connect within 20 s", first.as_raw_nonzero());
    let (link, path) = (rig.path("run/link.sock"), rig.path("datapath"));
    let remedy = format!(
        "run it by hand and read what it says: {} --link {}",
        path.display(),
        link.display()
    );
    assert_eq!(rig.log().matches(&told).count(), 1, "{}", rig.log());
    assert!(rig.log().contains(&remedy), "{}", rig.log());
    let (code, status) = answer(rig.ask(&["status"]));
    assert!(code == 7 && status["degraded"].to_string().contains(&told), "{status}");
}

/// What the daemon of the next test starts: it connects and says nothing. Who runs the tests has no link
/// for it, and then it is none.
#[test]
fn a_datapath_that_says_nothing() {
    let Some(link) = std::env::var_os("BULKHEAD_TEST_LINK") else { return };
    let _link = rig::connect_to(Path::new(&link));
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_datapath_that_says_nothing_is_killed_and_another_is_started() {
    let mut rig = Rig::new(&["anna"]);
    let program = Program::deaf(&rig, "a_datapath_that_says_nothing");
    rig.start(&["--datapath", "datapath"]);
    let first = program.newest(&rig, 1);
    rig.until("its time to be up", || rig.log().contains("did not say what it runs"));
    program.newest(&rig, 2);
    assert!(test_kill_process(first).is_err(), "deaf or not");
    let (_, status) = answer(rig.ask(&["status"]));
    let told = format!("(process {}) did not say what it runs", first.as_raw_nonzero());
    assert!(status["degraded"].to_string().contains(&told), "{status}");
}

/// What the daemon of the next test starts: it does as it is told, but for SIGTERM.
#[test]
fn a_datapath_that_is_well() {
    let Some(link) = std::env::var_os("BULKHEAD_TEST_LINK") else { return };
    let channel = Channel::new(rig::connect_to(Path::new(&link))).unwrap();
    let mut datapath = Datapath { channel, credit: 0 };
    datapath.hello(None, 0);
    datapath.tell(&FromDatapath::Adopted);
    // A question may come at any time.
    loop {
        let answer = match datapath.heard().0 {
            ToDatapath::Configure(_) => FromDatapath::Configured,
            ToDatapath::Peer(_) => continue,
            ToDatapath::Table { generation } => FromDatapath::Confirmed { generation },
            ToDatapath::AskStatus { token } => {
                FromDatapath::Status { token, status: Box::default() }
            }
            other => panic!("{other:?}"),
        };
        datapath.tell(&answer);
    }
}

#[test]
fn a_datapath_that_is_deaf_to_its_end_is_killed_for_an_apply_that_restarts_it() {
    let mut rig = Rig::new(&["anna"]);
    let program = Program::deaf(&rig, "a_datapath_that_is_well");
    rig.start(&["--datapath", "datapath"]);
    let well = |generation: u64| {
        let (code, status) = answer(rig.ask(&["status"]));
        (code, &status["generation"]) == (0, &generation.into())
    };
    rig.until("the first", || well(1));
    let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    fs::write(rig.path("bulkhead.toml"), text.replace("sessions_max = 64", "sessions_max = 32"))
        .unwrap();
    let (code, value) = answer(rig.ask(&["apply", "--restart-datapath"]));
    assert_eq!((code, &value["datapath_restarted"]), (0, &true.into()), "{value}");
    let [first, second] = program.pids()[..] else { panic!("{:?}", program.pids()) };
    assert!(test_kill_process(first).is_err() && test_kill_process(second).is_ok());
    let told =
        format!("(process {}) was told to end and did not within 5 s", first.as_raw_nonzero());
    assert!(value["warning"].as_str().unwrap().contains(&told), "{value}");
    assert!(rig.log().contains(&told), "{}", rig.log());
    assert!(well(2));
}

/// What the daemon of the next test starts: it does as it is told, and when the daemon dies it goes on and
/// greets the next with what it has.
#[test]
fn a_datapath_that_outlives_its_daemon() {
    let Some(link) = std::env::var_os("BULKHEAD_TEST_LINK") else { return };
    let (mut setup, mut peers, mut table) = (None, vec![], 0);
    loop {
        let mut datapath = Datapath { channel: connected(Path::new(&link)), credit: 0 };
        datapath.hello(setup.clone(), table);
        for peer in &peers {
            datapath.tell(&FromDatapath::Peer(Peer::clone(peer)));
        }
        datapath.tell(&FromDatapath::Adopted);
        while let Some(message) = heard(&mut datapath) {
            let answer = match message {
                ToDatapath::Configure(wanted) => {
                    setup = Some(wanted);
                    FromDatapath::Configured
                }
                ToDatapath::Table { generation } => {
                    table = generation;
                    FromDatapath::Confirmed { generation }
                }
                ToDatapath::AskStatus { token } => {
                    FromDatapath::Status { token, status: Box::default() }
                }
                ToDatapath::Peer(peer) => {
                    peers.push(peer);
                    continue;
                }
                _ => continue,
            };
            datapath.tell(&answer);
        }
    }
}

/// As soon as there is a daemon.
fn connected(link: &Path) -> Channel {
    loop {
        if UnixStream::connect(link.with_file_name("control.sock")).is_ok() {
            return Channel::new(rig::connect_to(link)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `None`: the daemon has gone.
fn heard(datapath: &mut Datapath) -> Option<ToDatapath> {
    loop {
        match datapath.channel.receive() {
            Ok((message, _)) => return Some(message),
            Err(ChannelError::NotReady) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return None,
        }
    }
}

/// Goal: what nobody confirmed does not judge, also if `bulkheadd` was dead when its time was up.
#[test]
fn a_datapath_that_was_set_up_for_what_was_not_confirmed_is_restarted_by_the_next_daemon() {
    let mut rig = Rig::new(&["anna"]);
    let own = std::env::current_exe().unwrap();
    let test = "a_datapath_that_outlives_its_daemon";
    let then = format!("BULKHEAD_TEST_LINK=\"$2\" exec {} --exact {test}", own.display());
    let program = Program::new(&rig, &then);
    rig.start(&["--datapath", "datapath"]);
    let configuration = |rig: &Rig| answer(rig.ask(&["status"])).1["configuration"].clone();
    rig.until("the first", || configuration(&rig)["standing"] == 1);
    let text = fs::read_to_string(rig.path("bulkhead.toml")).unwrap();
    fs::write(rig.path("bulkhead.toml"), text.replace("sessions_max = 64", "sessions_max = 32"))
        .unwrap();
    let (code, value) = answer(rig.ask(&["apply", "--restart-datapath", "--confirm", "2s"]));
    assert_eq!(code, 0, "{value}");
    rig.stop(Signal::KILL);
    let unconfirmed = program.newest(&rig, 2);
    std::thread::sleep(Duration::from_secs(3));
    rig.start(&["--datapath", "datapath"]);
    program.newest(&rig, 3);
    rig.until("what stands", || {
        let (code, status) = answer(rig.ask(&["status"]));
        code == 0 && status["configuration"]["in_force"] == 1 && status["generation"] != 2
    });
    // Not ours to reap: its daemon has died.
    let stat = format!("/proc/{}/stat", unconfirmed.as_raw_nonzero());
    let lives = fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!lives, "it would judge for ever");
    assert!(rig.log().contains("was told to end, and another is started"), "{}", rig.log());
}
