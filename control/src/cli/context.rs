//! `bulkhead context`: what is known of devices.

use std::io::{self, Read};
use std::path::Path;

use bulkhead_config::counted;
use clap::{Args, Subcommand};

use super::client::{answer, ask, unexpected};
use super::text::columns;
use super::{Exit, Said};
use crate::api::{
    Answer, ContextAnswer, ContextChangedAnswer, Diagnostic, FactChange, REQUEST_MAX, Refusal,
    RefusalKind, Request,
};

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Say what is known of a device. Done when every worker judges by it and it is on disk.
    ///
    /// Rules with a posture ask for it. What is not known, or no longer counts, is as good as false.
    Set(Set),
    /// Forget what is known of a device.
    Clear {
        /// device:NAME
        device: String,
        /// Only these attributes; without any: all.
        attributes: Vec<String>,
    },
    /// Show what is known, by whom, and until when.
    Show {
        /// device:NAME; without it: all of which something is known.
        device: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// device:NAME
    #[arg(required_unless_present = "stdin")]
    device: Option<String>,
    /// Attributes and their values: disk_encrypted=false patch_age_days=3
    #[arg(value_name = "NAME=VALUE", required_unless_present = "stdin")]
    facts: Vec<String>,
    /// How long it counts: 90s, 30m, 1h, at most 366 days; without it: until it is set again.
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Who says so, for those who read it later.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Read one JSON object a line instead: {"device":"NAME","set":{"managed":true},"ttl":"1h"}
    ///
    /// All lines are taken together, or none: each bad line is named by its number, and nothing is
    /// changed. --ttl and --source are for lines that have none.
    #[arg(long, conflicts_with_all = ["device", "facts"])]
    stdin: bool,
}

impl ContextCommand {
    pub(super) fn run(self, run_dir: &Path, json: bool) -> Said {
        match self {
            Self::Set(set) if set.stdin => set.lines(run_dir, json),
            Self::Set(set) => set.one(run_dir, json),
            Self::Clear { device, attributes } => {
                change(run_dir, Request::ContextClear { device, attributes }, json)
            }
            Self::Show { device } => {
                let answer = match ask(run_dir, Request::ContextShow { device }, json) {
                    Ok(answer) => answer,
                    Err(said) => return said,
                };
                let Answer::Context(context) = answer else { return unexpected() };
                Said::new(json, &context, || text(&context), Exit::Done)
            }
        }
    }
}

impl Set {
    fn one(self, run_dir: &Path, json: bool) -> Said {
        let mut wanted = FactChange {
            device: self.device.unwrap_or_default(),
            ttl: self.ttl,
            source: self.source,
            ..FactChange::default()
        };
        for fact in &self.facts {
            let Some((name, value)) = fact.split_once('=') else {
                let why = format!("{fact:?} is not NAME=VALUE; nothing was changed");
                return Said::refused(json, &Refusal::new(RefusalKind::BadRequest, why));
            };
            if wanted.set.insert(name.to_owned(), value.into()).is_some() {
                let why = format!("{name} is given twice; nothing was changed");
                return Said::refused(json, &Refusal::new(RefusalKind::BadRequest, why));
            }
        }
        let changes = vec![wanted];
        let request = Request::ContextSet { changes, written: true, only_check: false };
        match answer(run_dir, request, json) {
            // There is one change, and its mistakes are the message.
            Ok(Answer::Refused(refusal)) => {
                Said::refused(json, &Refusal::new(refusal.kind, refusal.message))
            }
            Ok(answer) => changed(answer, json),
            Err(said) => said,
        }
    }

    fn lines(self, run_dir: &Path, json: bool) -> Said {
        let mut text = String::new();
        let limit = u64::try_from(REQUEST_MAX).unwrap_or(u64::MAX);
        let read = io::stdin().lock().take(limit).read_to_string(&mut text);
        match read {
            Ok(len) if len < REQUEST_MAX => {}
            Ok(_) => {
                let why = format!("stdin has more than {REQUEST_MAX} bytes; nothing was changed");
                return Said::refused(json, &Refusal::new(RefusalKind::BadRequest, why));
            }
            Err(error) => return Said::failed(format_args!("stdin cannot be read: {error}")),
        }
        let (changes, numbers, mut bad) = parse(&text, self.ttl.as_ref(), self.source.as_ref());
        let only_check = !bad.is_empty();
        if changes.is_empty() && !only_check {
            let why = "stdin has no line; nothing was changed";
            return Said::refused(json, &Refusal::new(RefusalKind::BadRequest, why));
        }
        if !changes.is_empty() {
            let request = Request::ContextSet { changes, written: false, only_check };
            let answer = match answer(run_dir, request, json) {
                Ok(answer) => answer,
                Err(said) => return said,
            };
            if let Answer::Refused(refusal) = answer {
                if refusal.diagnostics.is_empty() {
                    return Said::refused(json, &refusal);
                }
                bad.extend(refusal.diagnostics.into_iter().map(|one| {
                    let at = usize::try_from(one.line).unwrap_or(0).checked_sub(1);
                    let number = at.and_then(|at| numbers.get(at)).copied().unwrap_or(0);
                    mistake(number, one.problem)
                }));
            } else if !only_check {
                return changed(answer, json);
            }
        }
        bad.sort_by_key(|one| one.line);
        let message = format!("{} bad lines; nothing was changed", bad.len());
        let refusal = Refusal { kind: RefusalKind::BadRequest, message, diagnostics: bad };
        Said::refused(json, &refusal)
    }
}

/// The changes, the numbers of their lines, and what is wrong with the others.
fn parse(
    text: &str,
    ttl: Option<&String>,
    source: Option<&String>,
) -> (Vec<FactChange>, Vec<u32>, Vec<Diagnostic>) {
    let (mut changes, mut numbers, mut bad) = (vec![], vec![], vec![]);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<FactChange>(line) {
            Ok(mut change) => {
                change.ttl = change.ttl.or_else(|| ttl.cloned());
                change.source = change.source.or_else(|| source.cloned());
                changes.push(change);
                numbers.push(number);
            }
            Err(error) => bad.push(mistake(number, error.to_string())),
        }
    }
    (changes, numbers, bad)
}

fn mistake(line: u32, problem: String) -> Diagnostic {
    let text = format!("stdin:{line}: {problem}");
    Diagnostic { path: "stdin".to_owned(), line, column: 0, problem, text }
}

fn change(run_dir: &Path, request: Request, json: bool) -> Said {
    match ask(run_dir, request, json) {
        Ok(answer) => changed(answer, json),
        Err(said) => said,
    }
}

fn changed(answer: Answer, json: bool) -> Said {
    let Answer::ContextChanged(changed) = answer else { return unexpected() };
    let exit = if changed.trouble.is_empty() { Exit::Done } else { Exit::Degraded };
    Said::new(json, &changed, || done(&changed), exit)
}

fn done(changed: &ContextChangedAnswer) -> String {
    let ContextChangedAnswer { devices, facts, relabelled, generation, confirm_us, trouble } =
        changed;
    let said = format!("{} of {}", counted(*facts, "fact"), counted(*devices, "device"));
    if trouble.is_empty() {
        let labels = counted(*relabelled, "endpoint");
        return format!(
            "{said}: in force on every worker after {confirm_us} us, generation {generation}\n\
             other labels: {labels}\n"
        );
    }
    let trouble: String = trouble.iter().map(|trouble| format!("  {trouble}\n")).collect();
    format!("{said}:\n{trouble}")
}

fn text(context: &ContextAnswer) -> String {
    let title = ["device", "attribute", "value", "source", "set", "counts"];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    for device in &context.devices {
        rows.extend(device.facts.iter().map(|fact| {
            let counts = match (fact.counts, fact.until) {
                (false, _) => "no longer".to_owned(),
                (true, None) => "until it is set again".to_owned(),
                (true, Some(until)) => format!("until {until:.0}"),
            };
            vec![
                device.device.clone(),
                fact.attribute.clone(),
                fact.value.to_string(),
                fact.source.clone(),
                format!("{:.0}", fact.set_at),
                counts,
            ]
        }));
    }
    let facts = if rows.len() == 1 { "nothing is known\n".to_owned() } else { columns(&rows) };
    let rules = context.devices.iter().flat_map(|device| &device.rules);
    let rules: String = rules
        .map(|rule| {
            let effect = if rule.in_effect { "in effect" } else { "not in effect" };
            format!("rule {}: {effect}\n", rule.id)
        })
        .collect();
    facts + &rules
}
