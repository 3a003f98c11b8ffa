//! `bulkhead policy explain` and `bulkhead policy test`

use std::path::Path;

use bulkhead_config::Config;
use bulkhead_policy_compiler::{QuestionError, TestOutcome, run_tests};
use serde::Serialize;

use super::{Exit, Said};
use crate::api::{Refusal, RefusalKind};
use crate::intent;

#[derive(Serialize)]
struct Tests {
    passed: bool,
    tests: Vec<TestOutcome>,
}

pub(super) fn test(path: &Path, json: bool) -> Said {
    let tests = match intent::read(path).and_then(|config| outcomes(&config)) {
        Ok(tests) => tests,
        Err(refusal) => return Said::refused(json, &refusal),
    };
    let passed = tests.iter().all(TestOutcome::passed);
    let exit = if passed { Exit::Done } else { Exit::TestFailed };
    let tests = Tests { passed, tests };
    let text = || match tests.tests.len() {
        0 => "no [[test]] in the configuration\n".to_owned(),
        _ => tests.tests.iter().map(ToString::to_string).collect(),
    };
    Said::new(json, &tests, text, exit)
}

pub(super) fn explain(path: &Path, from: &str, to: &str, json: bool) -> Said {
    let config = match intent::read(path) {
        Ok(config) => config,
        Err(refusal) => return Said::refused(json, &refusal),
    };
    match bulkhead_policy_compiler::explain(&config, from, to) {
        Ok(found) => {
            let text = || format!("{}\n", found.to_string().trim_end());
            Said::new(json, &found, text, Exit::Done)
        }
        Err(QuestionError::Compile(errors)) => {
            let message = errors.to_string();
            Said::refused(json, &Refusal::new(RefusalKind::Invalid, message.trim_end()))
        }
        Err(
            error @ (QuestionError::From { .. }
            | QuestionError::To { .. }
            | QuestionError::Disagreement { .. }),
        ) => Said::refused(json, &Refusal::new(RefusalKind::BadRequest, error.to_string())),
    }
}

/// Runs the tests of a file, also if some fail.
pub(super) fn outcomes(config: &Config) -> Result<Vec<TestOutcome>, Refusal> {
    run_tests(config).map_err(|errors| {
        Refusal::new(RefusalKind::Invalid, errors.to_string().trim_end().to_owned())
    })
}
