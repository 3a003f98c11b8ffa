//! `bulkhead policy`: questions about a configuration. The answers come from the policy compiler.

use std::fmt;
use std::path::{Path, PathBuf};

use bulkhead_config::Config;
use bulkhead_policy_compiler::{
    CompileErrors, Fact, Facts, QuestionError, TestOutcome, diff, explain_given, given, lint,
    reach, run_tests, who_can,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::{Exit, Said, hits};
use crate::api::{Answer, Refusal, RefusalKind, Request};
use crate::intent;
use crate::knowledge::of_json;

#[derive(Serialize)]
struct Tests {
    passed: bool,
    tests: Vec<TestOutcome>,
}

fn test(path: &Path, json: bool) -> Said {
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

/// Questions about the policy.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say what happens to a flow, and by which rule or why not.
    Explain {
        /// device:NAME, segment:NAME or an address.
        from: String,
        /// An address and a service: 10.20.1.5 tcp/443
        #[arg(required = true, num_args = 1..=2, value_names = ["ADDRESS", "SERVICE"])]
        to: Vec<String>,
        #[command(flatten)]
        situation: Situation,
    },
    /// Say who can reach a destination, and with what.
    WhoCan {
        /// An address, kind:NAME, any or internet, and optionally a service: 10.20.1.5 tcp/443
        #[arg(required = true, num_args = 1..=2, value_names = ["TO", "SERVICE"])]
        to: Vec<String>,
        #[command(flatten)]
        situation: Situation,
    },
    /// Say what someone can reach, and with what.
    Reach {
        /// An address, kind:NAME, any or internet.
        from: String,
        #[command(flatten)]
        situation: Situation,
    },
    /// Look for what is probably not meant. Exit code 1 if there is something.
    ///
    /// Groups without endpoints (empty-group); segments with the port and VLAN of another, whose hosts can
    /// take each other's addresses (shared-wire); rules that are over (expired), join no two endpoints
    /// (never-matching), have no effect because of denials (shadowed) or repeat others (redundant); rules
    /// that are about more than half of everything or any service with anybody (too-wide).
    Lint {
        /// Also rules that were not used since this moment, by the figures of the running gateway.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        unused_since: Option<Timestamp>,
        /// By these figures instead: what `bulkhead policy hits --json` wrote.
        #[arg(long, value_name = "FILE", requires = "unused_since")]
        hits: Option<PathBuf>,
    },
    /// Say how often each rule was used since the datapath started: flows, packets, bytes, the last time.
    ///
    /// A packet is a hit of the rule that lets it pass; of several the first of the file. What is denied
    /// is a hit of the rule that denies it, or of none. Of rules with stage = "shadow" it says what they
    /// would have allowed and denied. Asks the daemon.
    Hits,
    /// Say for which flows another file has another verdict, the largest change first.
    Diff {
        /// The file in force.
        old: PathBuf,
        /// The other one.
        new: PathBuf,
        /// The moment at which to compare them; now if not given.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<Timestamp>,
    },
    /// Run the tests in the configuration.
    Test,
}

/// What a question takes as given.
#[derive(Debug, Args)]
pub(super) struct Situation {
    /// The moment, with an offset: 2026-12-01T10:00:00+01:00; now if not given.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Something that is known of the device that asks: disk_encrypted=true
    #[arg(long, value_name = "NAME=VALUE")]
    given: Vec<String>,
    /// What the running gateway knows of devices is known; --given wins over it.
    #[arg(long)]
    running: bool,
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    let wanted = "a date and time with an offset, for example 2026-12-01T10:00:00+01:00";
    text.parse().map_err(|_| wanted)
}

impl Situation {
    /// What the running gateway knows, if that is asked for; else nothing but the time.
    fn known(&self, run_dir: &Path, json: bool) -> Result<Facts, Said> {
        let mut facts = Facts::at(self.at.unwrap_or_else(Timestamp::now));
        if !self.running {
            return Ok(facts);
        }
        let answer = super::client::ask(run_dir, Request::ContextShow { device: None }, json)?;
        let Answer::Context(context) = answer else { return Err(super::client::unexpected()) };
        for device in context.devices {
            let about = facts.devices.entry(device.device).or_default();
            for fact in device.facts {
                let Some(value) = of_json(&fact.value) else { continue };
                let ttl = fact.until.map(|until| until.duration_since(fact.set_at));
                let (source, set_at) = (fact.source, fact.set_at);
                about.set(&fact.attribute, Fact { value, source, set_at, ttl });
            }
        }
        Ok(facts)
    }

    /// With what is given of whoever asks.
    fn facts(&self, config: &Config, from: &str, mut known: Facts) -> Result<Facts, QuestionError> {
        if self.given.is_empty() {
            return Ok(known);
        }
        let now = known.now.unwrap_or_else(Timestamp::now);
        for (device, context) in given(config, from, &self.given, now)?.devices {
            let about = known.devices.entry(device).or_default();
            context.facts().for_each(|(attribute, fact)| about.set(attribute, fact.clone()));
        }
        Ok(known)
    }

    /// With what is given of every device.
    fn facts_of_all(&self, config: &Config, mut known: Facts) -> Result<Facts, QuestionError> {
        if self.given.is_empty() {
            return Ok(known);
        }
        for device in &config.devices {
            known = self.facts(config, &format!("device:{}", device.name), known)?;
        }
        Ok(known)
    }
}

impl PolicyCommand {
    fn situation(&self) -> Option<&Situation> {
        match self {
            Self::Explain { situation, .. }
            | Self::WhoCan { situation, .. }
            | Self::Reach { situation, .. } => Some(situation),
            Self::Lint { .. } | Self::Hits | Self::Diff { .. } | Self::Test => None,
        }
    }

    pub(super) fn run(self, path: &Path, run_dir: &Path, json: bool) -> Said {
        let known = match self.situation().map(|situation| situation.known(run_dir, json)) {
            Some(Ok(known)) => known,
            Some(Err(said)) => return said,
            None => Facts::default(),
        };
        match self {
            Self::Test => test(path, json),
            Self::Diff { old, new, at } => differ(&old, &new, at, json),
            Self::Lint { unused_since, hits } => {
                look(path, run_dir, (unused_since, hits.as_deref()), json)
            }
            Self::Hits => hits::hits(run_dir, json),
            Self::Explain { from, to, situation } => ask(path, json, |config| {
                let facts = situation.facts(config, &from, known)?;
                explain_given(config, &facts, &from, &to.join(" "))
            }),
            Self::WhoCan { to, situation } => ask(path, json, |config| {
                who_can(config, &situation.facts_of_all(config, known)?, &to.join(" "))
            }),
            Self::Reach { from, situation } => ask(path, json, |config| {
                let facts = match from.split_once(':') {
                    Some(("device" | "segment", _)) => situation.facts(config, &from, known)?,
                    Some(_) | None => situation.facts_of_all(config, known)?,
                };
                reach(config, &facts, &from)
            }),
        }
    }
}

/// Asks a question about a file.
fn ask<A: Serialize + fmt::Display>(
    path: &Path,
    json: bool,
    question: impl FnOnce(&Config) -> Result<A, QuestionError>,
) -> Said {
    let config = match intent::read(path) {
        Ok(config) => config,
        Err(refusal) => return Said::refused(json, &refusal),
    };
    match question(&config) {
        Ok(found) => {
            let text = || format!("{}\n", found.to_string().trim_end());
            Said::new(json, &found, text, Exit::Done)
        }
        Err(QuestionError::Compile(errors)) => invalid(json, &errors),
        Err(
            error @ (QuestionError::From { .. }
            | QuestionError::To { .. }
            | QuestionError::Who { .. }
            | QuestionError::Given { .. }
            | QuestionError::Disagreement { .. }),
        ) => Said::refused(json, &Refusal::new(RefusalKind::BadRequest, error.to_string())),
    }
}

fn look(
    path: &Path,
    run_dir: &Path,
    (unused_since, file): (Option<Timestamp>, Option<&Path>),
    json: bool,
) -> Said {
    let config = match intent::read(path) {
        Ok(config) => config,
        Err(refusal) => return Said::refused(json, &refusal),
    };
    let report = unused_since.map(|since| {
        let report = match file {
            Some(file) => hits::of_file(file),
            None => hits::of_gateway(run_dir, json),
        };
        report.map(|report| report.usage(since))
    });
    let usage = match report.transpose() {
        Ok(usage) => usage,
        Err(said) => return said,
    };
    match lint(&config, Timestamp::now(), usage.as_ref()) {
        Ok(found) => {
            let exit = if found.findings.is_empty() { Exit::Done } else { Exit::Failed };
            Said::new(json, &found, || found.to_string(), exit)
        }
        Err(errors) => invalid(json, &errors),
    }
}

fn differ(old: &Path, new: &Path, at: Option<Timestamp>, json: bool) -> Said {
    let configs = intent::read(old).and_then(|old| Ok((old, intent::read(new)?)));
    let (old, new) = match configs {
        Ok(configs) => configs,
        Err(refusal) => return Said::refused(json, &refusal),
    };
    let facts = Facts::at(at.unwrap_or_else(Timestamp::now));
    match diff(&old, &new, &facts) {
        Ok(found) => Said::new(json, &found, || found.to_string(), Exit::Done),
        Err(errors) => invalid(json, &errors),
    }
}

fn invalid(json: bool, errors: &CompileErrors) -> Said {
    let message = errors.to_string();
    Said::refused(json, &Refusal::new(RefusalKind::Invalid, message.trim_end()))
}

/// Runs the tests of a file, also if some fail.
pub(super) fn outcomes(config: &Config) -> Result<Vec<TestOutcome>, Refusal> {
    run_tests(config).map_err(|errors| {
        Refusal::new(RefusalKind::Invalid, errors.to_string().trim_end().to_owned())
    })
}
