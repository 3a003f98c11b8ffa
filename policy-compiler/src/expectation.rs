//! `[[test]]`: the answers that the policy must give, checked before it is put in force.

use core::fmt;

use bulkhead_config::{Config, Expectation, Place};
use serde::Serialize;

use crate::explain::Explanation;
use crate::policy::{Policy, QuestionError};
use crate::{CompileErrors, Verdict};

/// How one `[[test]]` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// How many flows it asks about.
    pub asked: usize,
    /// Those with another answer than the file wants; empty: passed.
    pub failures: Vec<Failure>,
}

impl TestOutcome {
    /// Whether all answers were as wanted.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// A flow with another answer than the file wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Where it stands in the file.
    pub place: Place,
    /// Destination and service, as written.
    pub flow: String,
    /// Whether the file wants it allowed.
    pub want_allowed: bool,
    /// Why the policy says otherwise; none if that could not be worked out.
    pub explanation: Option<Explanation>,
    /// What kept the question from being answered.
    pub defect: Option<String>,
}

impl fmt::Display for TestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, place, asked, failures } = self;
        if self.passed() {
            return writeln!(f, "ok      {name} (line {}, {asked} flows)", place.line);
        }
        writeln!(f, "FAILED  {name} (line {})", place.line)?;
        for failure in failures {
            let want = if failure.want_allowed { "allowed" } else { "denied" };
            writeln!(f, "  line {}: want {} {want}", failure.place.line, failure.flow)?;
            let reason = failure.explanation.as_ref().map(ToString::to_string);
            for line in reason.or_else(|| failure.defect.clone()).unwrap_or_default().lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Runs every `[[test]]`, in the order of the file.
///
/// # Errors
///
/// If the policy does not compile.
pub fn run_tests(config: &Config) -> Result<Vec<TestOutcome>, CompileErrors> {
    Policy::new(config).map(|policy| policy.run_tests())
}

impl Policy<'_> {
    /// Runs every `[[test]]`, in the order of the file.
    #[must_use]
    pub fn run_tests(&self) -> Vec<TestOutcome> {
        let outcome = |test: &bulkhead_config::Test| {
            let allow = test.allow.iter().map(|flow| (flow, true));
            let asked: Vec<_> = allow.chain(test.deny.iter().map(|flow| (flow, false))).collect();
            let mut failures: Vec<_> = asked
                .iter()
                .filter_map(|(expected, want)| self.failure(test, expected, *want))
                .collect();
            failures.sort_by_key(|failure| failure.place);
            TestOutcome { name: test.name.clone(), place: test.place, asked: asked.len(), failures }
        };
        self.config.tests.iter().map(outcome).collect()
    }

    fn failure(
        &self,
        test: &bulkhead_config::Test,
        expected: &Expectation,
        want_allowed: bool,
    ) -> Option<Failure> {
        let (explanation, defect) = match self.explain(&test.from, &expected.flow) {
            Ok(found) if matches!(found.verdict, Verdict::Allow(_)) == want_allowed => return None,
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(QuestionError::to_string(&error))),
        };
        let flow = expected.flow.to_string();
        Some(Failure { place: expected.place, flow, want_allowed, explanation, defect })
    }
}
