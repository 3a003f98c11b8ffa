//! `make bench`: one line per goal, `goal NAME: FIGURE (want OP TARGET) ok|short`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the lines are the product")]

use bulkhead_bench::memory_cost;

fn main() {
    println!("# a packet through one worker in memory, against two AEAD operations of ring");
    for (len, target) in [(1420, 1.3), (64, 2.0)] {
        let cost = memory_cost::measure(len, 3_000);
        println!(
            "# {len} bytes: worker {:.0} ns, two operations {:.0} ns, the rest {:.0} ns",
            cost.worker_ns,
            cost.rival_ns,
            cost.worker_ns - cost.rival_ns
        );
        goal(&format!("memory-cost-{len}"), cost.ratio(), target);
    }
}

/// A figure that must not be larger than its target.
fn goal(name: &str, figure: f64, at_most: f64) {
    let verdict = if figure <= at_most { "ok" } else { "short" };
    println!("goal {name}: {figure:.2} (want <= {at_most}) {verdict}");
}
