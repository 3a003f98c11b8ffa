//! How long a policy takes to compile: all of it, and after one rule has changed.
//!
//! From the typed configuration to the bytes of the table, on one core. Before it is measured, the
//! answer is checked: the bytes validate, and some flows are judged as the oracle judges them.

use std::sync::Arc;
use std::time::Instant;

use bulkhead_config::{Config, Flow, Origin};
use bulkhead_policy_compiler::company::Company;
use bulkhead_policy_compiler::{Compiler, Facts, PeerMap, Reading, Verdict, oracle};
use bulkhead_table::{PeerIndex, Service, Table};
use bulkhead_wire::Address;

/// What was measured, and of what.
#[derive(Clone, Copy, Debug)]
pub struct CompileSpeed {
    /// Seconds from a configuration to the bytes of its table.
    pub full_s: f64,
    /// Milliseconds of the same after one rule has changed.
    pub one_rule_ms: f64,
    /// Bytes of the table.
    pub table_bytes: usize,
    /// Labels of the table.
    pub labels: u16,
    /// Seconds that reading the file took before.
    pub read_s: f64,
}

/// Measures a company of so many devices and rules; the best of `rounds`.
///
/// # Errors
///
/// What kept the company from being compiled, or a wrong answer of its table.
pub fn measure(devices: u32, rules: u32, rounds: u32) -> Result<CompileSpeed, String> {
    let company = Company { devices, rules, seed: 1 };
    let text = company.text();
    let start = now();
    let config =
        Config::parse_with("company.toml", &text, &bulkhead_policy_compiler::company::NoSecret)
            .map_err(|errors| errors.to_string())?;
    let read_s = start.elapsed().as_secs_f64();
    let keys = config.devices.iter().map(|device| device.public_key.0);
    let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
    let mut other = config.clone();
    let changed = other.rules.get_mut(0).ok_or("a company without rules")?;
    changed.to.clone_from(&config.rules.get(1).ok_or("a company with one rule")?.to);

    let facts = Facts::default();
    let (mut full_s, mut one_rule_ms) = (f64::MAX, f64::MAX);
    let (mut table_bytes, mut labels) = (0, 0);
    for _ in 0..rounds {
        let mut compiler = Compiler::default();
        let mut once = |config: &Config| -> Result<f64, String> {
            let start = now();
            let compiled = compiler
                .compile(config, &peers, 1, Reading::Enforced, &facts)
                .map_err(|errors| errors.to_string())?;
            let bytes = compiled.draft.emit().map_err(|error| error.to_string())?;
            let took = start.elapsed().as_secs_f64();
            (table_bytes, labels) = (bytes.len(), compiled.draft.labels);
            check(config, &bytes)?;
            Ok(took)
        };
        full_s = full_s.min(once(&config)?);
        one_rule_ms = one_rule_ms.min(1e3 * once(&other)?);
    }
    Ok(CompileSpeed { full_s, one_rule_ms, table_bytes, labels, read_s })
}

/// Asks the table about a device of each of some teams and a server each.
fn check(config: &Config, bytes: &[u8]) -> Result<(), String> {
    let table = Table::new(Arc::new(bytes.to_vec())).map_err(|error| error.to_string())?;
    let view = table.view();
    for (device, host) in config.devices.iter().step_by(997).zip(&config.hosts).take(20) {
        let (Some(from), Some(to)) = (device.addresses.first(), host.addresses.first()) else {
            continue;
        };
        for port in [1_000, 1_515, 2_900] {
            let flow = Flow { destination: to.addr(), protocol: 6, port };
            let from_address = Origin::Address(from.addr());
            let want =
                oracle::judge(config, Reading::Enforced, &Facts::default(), &from_address, &flow);
            let label = |address| {
                view.endpoint(view.endpoint_at(Address::from(address))).map(|end| end.label)
            };
            let (Some(from), Some(to)) = (label(from.addr()), label(to.addr())) else {
                return Err(format!("{} or {} is nobody", device.name, host.name));
            };
            let found = view.judge(from, to, Service::tcp(port));
            let allowed = matches!(found, bulkhead_table::Verdict::Allow(_));
            if allowed != matches!(want, Verdict::Allow(_)) {
                return Err(format!("{} to {flow} is {found:?}, not {want:?}", device.name));
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
