//! `bulkhead check`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bulkhead_config::counted;
use bulkhead_policy_compiler::{Facts, TestOutcome};
use serde::Serialize;

use super::{Exit, Said};
use crate::api::Refusal;
use crate::intent;
use crate::publish::{ConfigPolicy, Policy, SharedCompiler};

/// What is right about a configuration.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    devices: usize,
    segments: usize,
    rules: usize,
    table_bytes: usize,
    tests: Vec<TestOutcome>,
}

pub(super) fn check(path: &Path, json: bool) -> Said {
    match checked(path) {
        Ok(checked) => {
            let exit = if checked.valid { Exit::Done } else { Exit::TestFailed };
            Said::new(json, &checked, || text(path, &checked), exit)
        }
        Err(refusal) => Said::refused(json, &refusal),
    }
}

fn checked(path: &Path) -> Result<Checked, Refusal> {
    let config = intent::read(path)?;
    let tests = super::policy::outcomes(&config)?;
    let keys = config.devices.iter().map(|device| bulkhead_wg::PublicKey(device.public_key.0));
    let peers: BTreeMap<_, _> = keys.zip(0..).collect();
    let (devices, segments, rules) =
        (config.devices.len(), config.segments.len(), config.rules.len());
    let blob = ConfigPolicy::new(Arc::new(config))
        .table(&SharedCompiler::default(), &peers, 1, &Facts::default())?
        .blob;
    let valid = tests.iter().all(TestOutcome::passed);
    Ok(Checked { valid, devices, segments, rules, table_bytes: blob.bytes.len(), tests })
}

fn text(path: &Path, checked: &Checked) -> String {
    let Checked { devices, segments, rules, table_bytes, tests, .. } = checked;
    let failed: String =
        tests.iter().filter(|test| !test.passed()).map(ToString::to_string).collect();
    let passed = tests.iter().filter(|test| test.passed()).count();
    format!(
        "{failed}{}: {}, {}, {}, a table of {table_bytes} bytes; {passed} of {} tests passed\n",
        path.display(),
        counted(*devices, "device"),
        counted(*segments, "segment"),
        counted(*rules, "rule"),
        tests.len()
    )
}
