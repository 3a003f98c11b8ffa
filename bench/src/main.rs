//! `make bench`: one line per goal, `goal NAME: FIGURE (want OP TARGET) ok|short`.
//!
//! `bulkhead-bench [PART]…` measures some parts only.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the lines are the product")]

use std::process::ExitCode;

use bulkhead_aead::Backend;
use bulkhead_bench::aead::{self, Mix};
use bulkhead_bench::lookup::{self, Company, Shape, Traffic};
use bulkhead_bench::{compile_speed, flows, handshake_cost, memory_cost, rte_acl};

/// What is measured, in this order.
const PARTS: [(&str, fn()); 6] = [
    ("memory", memory),
    ("handshake", handshake),
    ("aead", batches),
    ("flows", flows),
    ("lookup", lookups),
    ("compile", compiles),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |wanted: &String| PARTS.iter().any(|(name, _)| name == wanted);
    if let Some(unknown) = wanted.iter().find(|wanted| !known(wanted)) {
        let names = PARTS.map(|(name, _)| name).join(", ");
        eprintln!("bulkhead-bench: {unknown:?} is no part; give some of: {names}; or none for all");
        return ExitCode::from(2);
    }
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
    ExitCode::SUCCESS
}

/// An initiation that is answered.
fn handshake() {
    println!("# an initiation answered, against boringtun");
    let cost = handshake_cost::measure(600);
    println!("# ours {:.0} ns, boringtun {:.0} ns", cost.ours_ns, cost.rival_ns);
    goal("handshake-vs-boringtun", cost.ratio(), 0.55);
}

/// A packet through a whole worker, against two operations of the faster library.
fn memory() {
    println!(
        "# a packet through one worker in memory (10,000 rules, 10,000 flows), against two AEAD \
         operations of the faster library; our back end is {}",
        bulkhead_aead::choice().backend
    );
    let mixes =
        [("1420", Mix::Equal(1_420), 0.4), ("imix", Mix::Imix, 0.45), ("64", Mix::Equal(64), 0.4)];
    for (name, mix, target) in mixes {
        let cost = memory_cost::measure(mix, 3_000);
        println!(
            "# {name}: worker {:.0} ns, of it crypto {:.0} ns, the rest {:.0} ns; library {:.0} ns",
            cost.worker_ns,
            cost.crypto_ns,
            cost.rest_ns(),
            cost.rival_ns
        );
        goal(&format!("memory-cost-{name}"), cost.ratio(), target);
        if name == "64" {
            goal("non-crypto-ns", cost.rest_ns(), 90.0);
        }
    }
}

/// From a configuration to its table, all of it and after one rule has changed.
fn compiles() {
    println!("# a policy from its configuration to the bytes of its table, on one core");
    match compile_speed::measure(100_000, 10_000, 3) {
        Ok(speed) => {
            println!(
                "# 100000 devices, 10000 rules: read in {:.2} s before, {} labels, {:.1} MB",
                speed.read_s,
                speed.labels,
                speed.table_bytes as f64 / 1e6
            );
            goal("compile-100k-endpoints-s", speed.full_s, 2.0);
            goal("compile-one-rule-ms", speed.one_rule_ms, 200.0);
        }
        // A wrong answer or a refusal is a goal that is missed.
        Err(problem) => {
            println!("# {problem}");
            goal("compile-100k-endpoints-s", f64::INFINITY, 2.0);
            goal("compile-one-rule-ms", f64::INFINITY, 200.0);
        }
    }
}

/// Packets per second with a million live flows, as a part of those with a thousand.
fn flows() {
    let [few, many] = flows::measure(3_000);
    println!(
        "# a packet of 64 bytes: {few:.0} ns with 1,000 live flows, {many:.0} ns with 1,000,000"
    );
    goal_at_least("flows-1m-vs-1k", few / many, 0.8);
}

/// Seal and open of batches of 64, every message with a key of its own, against the library.
fn batches() {
    println!("# nanoseconds to seal / to open a message in a batch of {}", aead::BATCH);
    let all = [("1420", Mix::Equal(1_420)), ("64", Mix::Equal(64)), ("imix", Mix::Imix)];
    for (backend, prefix, targets) in [
        (Backend::Avx512, "aead", [Some(3.0), Some(6.0), Some(3.0)]),
        (Backend::Avx2, "aead-avx2", [Some(1.5), None, None]),
    ] {
        for ((name, mix), target) in all.into_iter().zip(targets) {
            if !backend.is_supported() {
                if target.is_some() {
                    println!("# {prefix}-{name}: NOT MEASURED, this processor has no {backend}");
                }
                continue;
            }
            let times = aead::measure(backend, mix, aead::BATCH, 2_000);
            println!(
                "# {backend}, {name}: {:.0} / {:.0}, library {:.0} / {:.0}",
                times.ours.seal_ns,
                times.ours.open_ns,
                times.library.seal_ns,
                times.library.open_ns
            );
            match target {
                Some(target) => goal_at_least(&format!("{prefix}-{name}"), times.factor(), target),
                None => println!("# {backend}, {name}: factor {:.2}", times.factor()),
            }
        }
    }
}

/// Both addresses and the verdict, per packet, by number of rules.
fn lookups() {
    println!(
        "# nanoseconds a packet for both addresses and the verdict, batches of 32, 100,000 hosts"
    );
    for (name, rules, target) in [
        ("1k", 1_000, 15.0),
        ("10k", 10_000, 15.0),
        ("100k", 100_000, 15.0),
        ("1m", 1_000_000, 25.0),
    ] {
        let company = Company::new(Shape::of(rules), 1);
        company.check(&company.traffic(Traffic::Uniform, 256, 3));
        let [uniform, zipf, adversarial] = [Traffic::Uniform, Traffic::Zipf, Traffic::Adversarial]
            .map(|kind| lookup::measure(&company.table, &company.traffic(kind, 32 * 256, 2), 201));
        println!(
            "# {rules} rules, {:.1} MB: uniform {uniform:.1}, Zipf {zipf:.1}, adversarial {adversarial:.1}",
            company.table.size() as f64 / 1e6
        );
        goal(&format!("lookup-{name}-rules"), uniform, target);
        if rules == 100_000 {
            goal("lookup-adversarial", adversarial / uniform, 1.2);
        }
        let of_acl = match rules {
            10_000 => 1.0,
            100_000 => 0.25,
            _ => continue,
        };
        match rte_acl::measure(&company.rules, &company.traffic(Traffic::Uniform, 32 * 256, 2)) {
            Some((acl, method)) => {
                println!("# librte_acl on the same rules and packets, {method}: {acl:.1}");
                goal(&format!("lookup-vs-rte-acl-{name}"), uniform / acl, of_acl);
            }
            None => {
                println!("# lookup-vs-rte-acl-{name}: not measured, dpdk-test-acl is not installed")
            }
        }
    }
}

/// A figure that must not be larger than its target.
fn goal(name: &str, figure: f64, at_most: f64) {
    let verdict = if figure <= at_most { "ok" } else { "short" };
    println!("goal {name}: {figure:.2} (want <= {at_most}) {verdict}");
}

/// A figure that must not be smaller than its target.
fn goal_at_least(name: &str, figure: f64, at_least: f64) {
    let verdict = if figure >= at_least { "ok" } else { "short" };
    println!("goal {name}: {figure:.2} (want >= {at_least}) {verdict}");
}
