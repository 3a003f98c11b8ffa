//! `[[test]]`: the answers that the policy must give, checked before it is put in force.

use core::fmt;

use bulkhead_config::{Config, Expectation, Place};
use jiff::Timestamp;
use serde::Serialize;

use crate::explain::Explanation;
use crate::oracle::{self, Owner};
use crate::policy::{Policy, QuestionError};
use crate::{CompileErrors, Fact, Facts, Verdict};

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
    Policy::new(config).and_then(|policy| policy.run_tests())
}

impl Policy<'_> {
    /// Runs every `[[test]]`, in the order of the file.
    ///
    /// # Errors
    ///
    /// If the policy does not compile with what a test takes as given.
    pub fn run_tests(&self) -> Result<Vec<TestOutcome>, CompileErrors> {
        let outcome = |test: &bulkhead_config::Test| {
            let facts = given(self.config, test);
            let same = facts == self.facts;
            let other = if same { None } else { Some(Policy::with(self.config, facts)?) };
            let policy = other.as_ref().unwrap_or(self);
            let allow = test.allow.iter().map(|flow| (flow, true));
            let asked: Vec<_> = allow.chain(test.deny.iter().map(|flow| (flow, false))).collect();
            let mut failures: Vec<_> = asked
                .iter()
                .filter_map(|(expected, want)| policy.failure(test, expected, *want))
                .collect();
            failures.sort_by_key(|failure| failure.place);
            let (name, place) = (test.name.clone(), test.place);
            Ok(TestOutcome { name, place, asked: asked.len(), failures })
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

/// What a test takes as given: of the device that asks nothing else is known, and of others nothing.
fn given(config: &Config, test: &bulkhead_config::Test) -> Facts {
    let mut facts = Facts { now: test.given.at, ..Facts::default() };
    let asks = oracle::origin(config, &test.from, [0, 0, 0, 0].into());
    let Some(Owner::Device(device)) = asks.map(|asks| asks.owner) else { return facts };
    // What never goes stale counts at any time, known or not.
    let set_at = test.given.at.unwrap_or(Timestamp::UNIX_EPOCH);
    for (name, value) in &test.given.attributes {
        let source = format!("test {}", test.name);
        let fact = Fact { value: value.clone(), source, set_at, ttl: None };
        facts.devices.entry(device.name.clone()).or_default().set(name, fact);
    }
    facts
}
