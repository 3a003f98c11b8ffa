//! libFuzzer around one target, which `BULKHEAD_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use bulkhead_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("BULKHEAD_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found.expect("BULKHEAD_FUZZ_TARGET names no target").1
    });
    target(bytes);
});
