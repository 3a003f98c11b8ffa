//! DPDK's classifier on the same rules and packets, where Debian's `dpdk` is installed.
//!
//! `dpdk-test-acl` reads rules and a trace as text, classifies in bursts and says how many packets a
//! second it managed. The fastest of its methods that this processor has counts.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use bulkhead_table::Question;

use crate::lookup::{BATCH, Rule};

/// Methods of librte_acl for x86-64, narrowest last.
const METHODS: [&str; 4] = ["avx512x32", "avx512x16", "avx2", "sse"];

/// Nanoseconds per packet and the method; `None` if the program is not there or no method works.
#[must_use]
pub fn measure(rules: &[Rule], packets: &[Question]) -> Option<(f64, &'static str)> {
    let folder = tempfile::tempdir().unwrap();
    let (rules_at, trace_at) = (folder.path().join("rules"), folder.path().join("trace"));
    std::fs::write(&rules_at, rules_text(rules)).unwrap();
    std::fs::write(&trace_at, trace_text(packets)).unwrap();
    let timed = METHODS.iter().filter_map(|method| {
        let output = Command::new("dpdk-test-acl")
            .args(["--no-huge", "--no-shconf", "--no-pci", "--no-telemetry"])
            .arg(format!("--file-prefix=bulkhead-{}", std::process::id()))
            .args(["--force-max-simd-bitwidth=512", "-l", "1", "-m", "3072", "--"])
            .arg(format!("--rulesf={}", rules_at.display()))
            .arg(format!("--tracef={}", trace_at.display()))
            .args([
                "--rulenum=110000",
                "--tracenum=70000",
                "--bldcat=1",
                "--iter=50",
                "--verbose=0",
            ])
            .arg(format!("--tracestep={BATCH}"))
            .arg(format!("--alg={method}"))
            .output()
            .ok()?;
        // "…, 1618.03 cycles/pkt, 1236070.63 pkt/sec".
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = said.lines().find_map(|line| line.strip_suffix(" pkt/sec"))?;
        let rate: f64 = rate.rsplit(' ').next()?.parse().ok()?;
        Some((1e9 / rate, *method))
    });
    timed.min_by(|a, b| a.0.total_cmp(&b.0))
}

fn rules_text(rules: &[Rule]) -> String {
    let mut text = String::new();
    for Rule { source, destination, protocol, ports: (first, last) } in rules {
        writeln!(
            text,
            "@{source}\t{destination}\t0 : 65535\t{first} : {last}\t0x{protocol:02x}/0xff"
        )
        .unwrap();
    }
    text
}

fn trace_text(packets: &[Question]) -> String {
    let number = |ip| match ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(_) => 0,
    };
    let mut text = String::new();
    for packet in packets {
        let (from, to) = (number(packet.source.to_ip()), number(packet.destination.to_ip()));
        let (port, protocol) = (packet.service.port(), packet.service.protocol());
        writeln!(text, "{from}\t{to}\t40000\t{port}\t{protocol}").unwrap();
    }
    text
}
