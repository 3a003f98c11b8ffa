//! `make demo`, without the time to read: it works twice in a row, can be interrupted, and leaves
//! nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use bulkhead_tests::program;
use rustix::process::{Pid, Signal, kill_process};

fn start() -> Child {
    Command::new(program("bulkhead-demo").unwrap())
        .env("BULKHEAD_DEMO_PACE_MS", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Nothing with the name of this process is left.
fn assert_nothing_left(pid: u32) {
    let prefix = format!("bh-{pid}.");
    for folder in ["/run/netns".into(), std::env::temp_dir()] {
        let left: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&prefix))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn it_works_twice_in_a_row_and_leaves_nothing() {
    for _ in 0..2 {
        let child = start();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}\n{wrong}");
        for want in [
            "SHA-256",
            "hr-legacy",
            "after the command was given, then silence",
            "Mbit/s",
            "drop_revoked",
            "nothing is lost",
        ] {
            assert!(told.contains(want), "{want:?} not in\n{told}");
        }
        assert_nothing_left(pid);
    }
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    let mut child = start();
    let pid = child.id();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("A live connection dies") {
        assert_ne!(out.read_line(&mut told).unwrap(), 0, "it ended early: {told}");
    }
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    let mut wrong = String::new();
    child.stderr.take().unwrap().read_to_string(&mut wrong).unwrap();
    assert_eq!(status.code(), Some(130), "{wrong}");
    assert!(wrong.contains("everything is removed"), "{wrong}");
    assert_nothing_left(pid);
}
