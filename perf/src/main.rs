//! `bulkhead-perf run PROFILE`: measures, and prints the gateways side by side.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report is the product")]

use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_perf::hub::Hub;
use bulkhead_perf::measure::{Rate, measure, median};
use bulkhead_perf::profile::{HubKind, Profile};
use bulkhead_tests::{Failure, remove_worlds_on_signal};
use clap::Parser;

/// Bulkhead's performance suite. Run it on an otherwise idle machine, as root: it builds its
/// networks in namespaces and removes them.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Measures a profile.
    Run {
        /// A file like perf/profiles/office.toml.
        profile: PathBuf,
    },
}

fn main() -> ExitCode {
    let Command::Run { profile } = Command::parse();
    let profile = match Profile::load(&profile) {
        Ok(profile) => profile,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(3);
        }
    };
    match remove_worlds_on_signal().and_then(|()| run(&profile)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the run failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(profile: &Profile) -> Result<(), Failure> {
    println!(
        "# profile {}: {} s, {} rounds, medians; the gateways take turns",
        profile.name, profile.seconds, profile.rounds
    );
    if let Some(flood) = profile.flood {
        return bulkhead_perf::flood::run(profile, flood.times_capacity);
    }
    if let Some(revocation) = profile.revocation {
        return bulkhead_perf::revocation::run(profile, revocation);
    }
    // rates[gateway][load]
    let mut rates = vec![vec![vec![]; profile.load.len()]; profile.gateways.len()];
    for _ in 0..profile.rounds {
        for (kind, rates) in profile.gateways.iter().zip(&mut rates) {
            let hub = Hub::start(*kind)?;
            for (load, rates) in profile.load.iter().zip(rates) {
                rates.push(measure(&hub.office, load, profile.seconds)?);
            }
        }
    }
    for (at, load) in profile.load.iter().enumerate() {
        let mut line = vec![];
        for (kind, rates) in profile.gateways.iter().zip(&mut rates) {
            let rate = rates.get_mut(at).map(|rates| median(rates)).unwrap_or_default();
            line.push((*kind, rate));
        }
        report(&load.name, &line);
    }
    Ok(())
}

fn report(load: &str, rates: &[(HubKind, Rate)]) {
    let first = rates.first().map_or(0.0, |(_, rate)| rate.packets);
    for (kind, rate) in rates {
        println!(
            "perf {load} {}: {:.0} packets/s, {:.0} Mbit/s, {:.2} of the first",
            kind.name(),
            rate.packets,
            rate.bits / 1e6,
            rate.packets / first
        );
    }
}
