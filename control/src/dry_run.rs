//! What an apply would change: nothing is sent, nothing is written.

use std::collections::BTreeMap;
use std::path::Path;

use bulkhead_config::{Config, Device, Listener, Place, Segment};
use bulkhead_policy_compiler::{Now, Region, TestOutcome, diff, run_tests};
use jiff::Timestamp;

use crate::api::{ChangedNames, DryRunAnswer, Refusal, RefusalKind, RegionAnswer, TestAnswer};
use crate::intent::{self, Intent, differences};
use crate::knowledge::Knowledge;
use crate::mirror::OwnAddresses;

/// Regions in one answer; nobody reads more, and each may name thousands of prefixes.
const REGIONS_MAX: usize = 1_000;

/// What is known of devices, at a moment.
pub type Known = (Knowledge, Timestamp);

/// Compares the file with what is in force, under what is known of devices now.
///
/// # Errors
///
/// [`RefusalKind::Invalid`] if the file is invalid. A test that fails is part of the answer.
pub fn dry_run(
    path: &Path,
    in_force: &Intent,
    (knowledge, now): &Known,
) -> Result<DryRunAnswer, Refusal> {
    let (config, text) = intent::read_text(path)?;
    let compiled = |errors: bulkhead_policy_compiler::CompileErrors| {
        Refusal::new(RefusalKind::Invalid, errors.to_string().trim_end().to_owned())
    };
    let tests = run_tests(&config).map_err(compiled)?;
    let old = &in_force.config;
    let mut facts = knowledge.facts(old, *now);
    facts.devices.extend(knowledge.facts(&config, *now).devices);
    let regions = diff(old, &config, &facts).map_err(compiled)?.regions;
    // The addresses of the box are not the file's.
    let own = OwnAddresses::default();
    let wanted = Intent::new(config.clone(), own).configuration;
    Ok(DryRunAnswer {
        path: path.display().to_string(),
        same: text == in_force.text,
        restart_needed: differences(&in_force.configuration, &wanted),
        devices: devices(old, &config),
        segments: segments(old, &config),
        listeners: listeners(old, &config),
        regions: regions.len(),
        verdicts: regions.iter().take(REGIONS_MAX).map(region).collect(),
        tests: tests.iter().map(test).collect(),
    })
}

fn region(region: &Region) -> RegionAnswer {
    let Region { now, from, to, services, witness, .. } = region;
    RegionAnswer {
        allowed: *now == Now::Allowed,
        from: from.to_string(),
        to: to.to_string(),
        services: services.iter().map(ToString::to_string).collect(),
        witness: [witness.from.to_string(), witness.to.to_string(), witness.service.to_string()],
    }
}

fn test(outcome: &TestOutcome) -> TestAnswer {
    TestAnswer {
        name: outcome.name.clone(),
        line: outcome.place.line,
        passed: outcome.passed(),
        text: outcome.to_string(),
    }
}

/// Lines move and positions shift without a change of meaning: neither is compared.
const NOWHERE: Place = Place { line: 0, column: 0 };

fn devices(old: &Config, new: &Config) -> ChangedNames {
    let plain = |config: &Config| {
        let device = |device: &Device| {
            let listener = device.listener.and_then(|at| config.wireguard.get(usize::from(at)));
            let listener = listener.map(|listener| listener.name.clone());
            (Device { place: NOWHERE, listener: None, ..device.clone() }, listener)
        };
        by_name(config.devices.iter().map(|found| (found.name.clone(), device(found))))
    };
    changed(&plain(old), &plain(new))
}

fn segments(old: &Config, new: &Config) -> ChangedNames {
    let plain = |config: &Config| {
        let segment = |segment: &Segment| {
            let plain = Segment { place: NOWHERE, port: 0, ..segment.clone() };
            (plain, port(config, segment.port))
        };
        by_name(config.segments.iter().map(|found| (found.name.clone(), segment(found))))
    };
    changed(&plain(old), &plain(new))
}

fn listeners(old: &Config, new: &Config) -> ChangedNames {
    let plain = |config: &Config| {
        let listener = |listener: &Listener| {
            let plain = Listener { place: NOWHERE, port: 0, ..listener.clone() };
            (plain, port(config, listener.port))
        };
        by_name(config.wireguard.iter().map(|found| (found.name.clone(), listener(found))))
    };
    changed(&plain(old), &plain(new))
}

fn port(config: &Config, at: u8) -> Option<String> {
    config.ports.get(usize::from(at)).map(|port| port.name.clone())
}

fn by_name<T>(all: impl Iterator<Item = (String, T)>) -> BTreeMap<String, T> {
    all.collect()
}

fn changed<T: PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> ChangedNames {
    let only = |these: &BTreeMap<String, T>, others: &BTreeMap<String, T>| {
        these.keys().filter(|name| !others.contains_key(*name)).cloned().collect()
    };
    let differs = |(name, now): &(&String, &T)| old.get(*name).is_some_and(|was| was != *now);
    ChangedNames {
        added: only(new, old),
        removed: only(old, new),
        changed: new.iter().filter(differs).map(|(name, _)| name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "schema = 1\n[port.m]\ndevice = \"lo\"\nkind = \"both\"\n\
                        [wireguard.w]\nport = \"m\"\nprivate_key_file = \"k\"\n";

    fn config(more: &str) -> Config {
        struct AnyKey;
        impl bulkhead_config::KeySource for AnyKey {
            fn secret(
                &self,
                _: &str,
            ) -> Result<bulkhead_config::Secret, bulkhead_config::KeyFileError> {
                Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap())
            }
        }
        Config::parse_with("x", &format!("{HEAD}{more}"), &AnyKey).unwrap()
    }

    fn device(name: &str, last: u8) -> String {
        let key = bulkhead_wg::PublicKey([last; 32]);
        format!("[device.{name}]\npublic_key = \"{key}\"\naddresses = [\"10.44.0.{last}/32\"]\n")
    }

    #[test]
    fn names_come_go_and_change_and_a_moved_line_is_no_change() {
        let segment =
            |subnet: &str| format!("[segment.s]\nport = \"m\"\nsubnets = [\"{subnet}\"]\n");
        let old = config(&(device("anna", 1) + &device("bert", 2) + &segment("10.20.1.0/24")));
        // Another port before the first shifts every position.
        let port = "[port.b]\ndevice = \"lo0\"\nkind = \"both\"\n# a comment\n";
        let new = config(
            &(port.to_owned()
                + &device("carl", 3)
                + &device("bert", 4)
                + &device("dora", 1)
                + &segment("10.20.2.0/24")),
        );
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = devices(&old, &new);
        assert_eq!(found.added, names(&["carl", "dora"]));
        assert_eq!(found.removed, names(&["anna"]));
        assert_eq!(found.changed, names(&["bert"]));
        assert_eq!(segments(&old, &new).changed, names(&["s"]));
        assert!(listeners(&old, &new).is_empty(), "{:?}", listeners(&old, &new));
        let moved = config(&(port.to_owned() + &device("bert", 2) + &device("anna", 1)));
        assert!(devices(&old, &moved).is_empty());
        assert_eq!(segments(&old, &moved).removed, names(&["s"]));
    }
}
