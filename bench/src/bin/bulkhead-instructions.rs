//! Counts the instructions of the hot functions under callgrind and holds them against the record, and
//! looks into the machine code of the hot stages for calls that do not belong there.
//!
//! ```text
//!   bulkhead-instructions check        fails if a subject needs over 5 % more than the record says,
//!                                      or if a stage calls somebody who is not on the list
//!   bulkhead-instructions record       writes the record anew; commit it with the reason
//!   bulkhead-instructions run NAME N   what callgrind runs: the subject N times
//! ```
//!
//! A run of `2 N` minus a run of `N` is what `N` turns cost, without start and set-up. Callgrind
//! knows no AVX-512, and which back end is the fastest depends on the machine, so the AEAD is counted on
//! its AVX2 path everywhere.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use bulkhead_aead::Backend;
use bulkhead_bench::calls;
use bulkhead_bench::subject::{NAMES, named};

/// Where the record is, from the root of the repository.
const RECORD: &str = "bench/instructions.toml";

/// What a subject may need beyond its record.
const TOLERANCE: f64 = 1.05;

/// Turns of the shorter run.
const TURNS: u32 = 20;

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", name, turns] => run(name, turns),
        ["check"] => check_calls().and_then(|()| check()),
        ["record"] => record(),
        _ => Err("usage: bulkhead-instructions check | record | run NAME TURNS".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bulkhead-instructions: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, turns: &str) -> Result<(), String> {
    let mut subject = named(name).ok_or_else(|| format!("no subject `{name}`"))?;
    let turns: u32 = turns.parse().map_err(|_| format!("`{turns}` is no number of turns"))?;
    for _ in 0..turns {
        subject.run();
    }
    Ok(())
}

fn check_calls() -> Result<(), String> {
    calls::check(&std::env::current_exe().map_err(|error| error.to_string())?)
}

fn check() -> Result<(), String> {
    let known = read(Path::new(RECORD))?;
    if !Backend::Avx2.is_supported() {
        println!("NOT CHECKED: the record is of the AVX2 path, which this processor has not");
        return Ok(());
    }
    let mut worse = vec![];
    for (name, count) in measure()? {
        let before = known.get(&name).copied();
        let change = before.map_or(f64::INFINITY, |before| count / before);
        println!(
            "{name:12} {count:9.1} instructions a packet, record {:9.1}",
            before.unwrap_or(0.0)
        );
        if change > TOLERANCE {
            worse.push(name);
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than 5 % above {RECORD}: {}. If the work is worth it, run `make instructions-record` \
         and commit the record with the reason",
        worse.join(", ")
    ))
}

fn record() -> Result<(), String> {
    let mut text = String::from(
        "# Instructions a packet of the hot functions under callgrind (`make instructions`).\n",
    );
    for (name, count) in measure()? {
        text.push_str(&format!("{name} = {count:.1}\n"));
    }
    std::fs::write(RECORD, text).map_err(|error| format!("{RECORD}: {error}"))
}

fn read(path: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{RECORD}: {error}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, count) = line.split_once(" = ")?;
            Some((name.to_owned(), count.parse().ok()?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{RECORD}: want lines `NAME = NUMBER`"))
}

fn measure() -> Result<Counts, String> {
    let mut counts = Counts::new();
    for name in NAMES {
        let packets = named(name).map_or(1, |subject| subject.packets);
        let (short, long) = (count(name, TURNS)?, count(name, 2 * TURNS)?);
        let turns = f64::from(TURNS) * packets as f64;
        counts.insert(name.to_owned(), (long - short) / turns);
    }
    Ok(counts)
}

/// Instructions of a whole run.
fn count(name: &str, turns: u32) -> Result<f64, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["run", name, &turns.to_string()])
        .env("BULKHEAD_AEAD", "avx2")
        .output()
        .map_err(|error| format!("valgrind: {error}; install the package `valgrind`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "==123== Collected : 4567".
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind said nothing about `{name}`:\n{said}"))
}
