//! `bulkhead apply --dry-run`, `confirm` and `history`, and what `status` says of the configuration.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::client::{ask, unexpected};
use super::text::{columns, duration};
use super::{Exit, Said, kept_keys};
use crate::api::{
    Answer, ChangedNames, ConfigurationAnswer, DryRunAnswer, FileAnswer, HistoryEntryAnswer,
    Request, WaitingAnswer,
};

pub(super) fn confirm(run_dir: &Path, generation: Option<u64>, json: bool) -> Said {
    let answer = match ask(run_dir, Request::Confirm { generation }, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::Confirmed { generation } = answer else { return unexpected() };
    let text = || format!("generation {generation} is confirmed\n");
    Said::new(json, &serde_json::json!({ "confirmed": generation }), text, Exit::Done)
}

pub(super) fn history(run_dir: &Path, config: &Path, json: bool) -> Said {
    let answer = match ask(run_dir, Request::History {}, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::History(history) = answer else { return unexpected() };
    let remarks = kept_keys::remarks(run_dir, config, &history);
    let entries: Vec<_> = history
        .entries
        .iter()
        .map(|entry| Listed { entry, remark: remarks.get(&entry.generation).map(String::as_str) })
        .collect();
    Said::new(json, &serde_json::json!({ "entries": entries }), || table(&entries), Exit::Done)
}

/// A generation as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    entry: &'a HistoryEntryAnswer,
    /// What became of its key files since.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'a str>,
}

pub(super) fn text(run_dir: &Path, generation: u64, json: bool) -> Said {
    let answer = match ask(run_dir, Request::HistoryText { generation }, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::Text(found) = answer else { return unexpected() };
    Said::new(json, &found, || found.text.clone(), Exit::Done)
}

pub(super) fn dry_run(run_dir: &Path, json: bool) -> Said {
    let answer = match ask(run_dir, Request::DryRun {}, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::DryRun(found) = answer else { return unexpected() };
    let passed = found.tests.iter().all(|test| test.passed);
    let exit = if passed { Exit::Done } else { Exit::TestFailed };
    Said::new(json, &found, || changes(&found), exit)
}

/// What `status` says of the configuration.
pub(super) fn configuration(configuration: &ConfigurationAnswer) -> String {
    let ConfigurationAnswer { in_force, standing, waiting, taking_back, file } = configuration;
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str("  ");
        text.push_str(&line);
        text.push('\n');
    };
    match in_force {
        Some(generation) => say(format!("in force since generation {generation}")),
        None => say("in force: the file as it was at the start; not in the history yet".to_owned()),
    }
    if let Some(WaitingAnswer { generation, left_ms, back_to }) = waiting {
        let left = duration(*left_ms);
        say(format!(
            "generation {generation} waits for bulkhead confirm {generation}; in {left}, or with \
             bulkhead rollback --of {generation}, generation {back_to} comes back"
        ));
    } else if let Some(from) = taking_back {
        say(format!("generation {from} was not confirmed and is being taken back"));
    } else if let (Some(standing), true) = (standing, standing != in_force) {
        say(format!("the next start puts generation {standing} in force"));
    }
    match file {
        FileAnswer::Same => {}
        FileAnswer::Differs => say(
            "the file says something else: see bulkhead apply --dry-run. Neither a restart nor a \
             reboot puts it in force, only bulkhead apply"
                .to_owned(),
        ),
        FileAnswer::Unreadable => say("the file cannot be read".to_owned()),
    }
    format!("\nconfiguration:\n{text}")
}

fn table(entries: &[Listed<'_>]) -> String {
    let title = ["generation", "when", "uid", "state", "message"];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().rev().map(|Listed { entry, remark }| {
        let remark = remark.map_or_else(String::new, |remark| format!(" [{remark}]"));
        vec![
            entry.generation.to_string(),
            when(entry.at),
            entry.by.map_or_else(|| "-".to_owned(), |by| by.to_string()),
            state(entry),
            (message(entry) + &remark).trim_start().to_owned(),
        ]
    }));
    columns(&rows)
}

fn when(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok());
    time.map_or_else(|| at.to_string(), |time| time.to_string())
}

fn state(entry: &HistoryEntryAnswer) -> String {
    let mut words = vec![entry.state.as_str()];
    if entry.in_force {
        words.push("in force");
    }
    if entry.standing && !entry.in_force {
        words.push("next start");
    }
    words.join(", ")
}

fn message(entry: &HistoryEntryAnswer) -> String {
    match entry.text_of {
        None => entry.message.clone(),
        Some(of) if entry.message.is_empty() => format!("(text of {of})"),
        Some(of) => format!("{} (text of {of})", entry.message),
    }
}

fn changes(found: &DryRunAnswer) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if found.same {
        let _ = writeln!(text, "{} is what is in force", found.path);
    }
    for (what, names) in
        [("device", &found.devices), ("segment", &found.segments), ("listener", &found.listeners)]
    {
        text.push_str(&named(what, names));
    }
    if !found.restart_needed.is_empty() {
        let all = found.restart_needed.join("\n  ");
        let _ =
            writeln!(text, "the datapath must be restarted, which interrupts traffic:\n  {all}");
    }
    match found.regions {
        0 => text.push_str("no verdict changes\n"),
        1 => text.push_str("verdicts change in 1 region\n"),
        count => drop(writeln!(text, "verdicts change in {count} regions, the largest first")),
    }
    for region in &found.verdicts {
        let (sign, word) = if region.allowed { ('+', "allowed") } else { ('-', "denied") };
        let [from, to, service] = &region.witness;
        let _ = writeln!(text, "{sign} {word}: {}", region.services.join(", "));
        let _ = writeln!(text, "  from     {}\n  to       {}", region.from, region.to);
        let _ = writeln!(text, "  as       {from} to {to} {service}");
    }
    if found.regions > found.verdicts.len() {
        let more = found.regions - found.verdicts.len();
        let _ = writeln!(text, "and {more} smaller regions");
    }
    let failed = found.tests.iter().filter(|test| !test.passed).count();
    let _ = match (found.tests.len(), failed) {
        (0, _) => writeln!(text, "no [[test]] in the file"),
        (1, 0) => writeln!(text, "the only test of the file passes"),
        (count, 0) => writeln!(text, "all {count} tests of the file pass"),
        (count, failed) => {
            writeln!(text, "{failed} of {count} tests fail, so apply would refuse it:")
        }
    };
    for test in found.tests.iter().filter(|test| !test.passed) {
        text.push_str(&test.text);
    }
    text
}

fn named(what: &str, names: &ChangedNames) -> String {
    let signed = [('+', &names.added), ('-', &names.removed), ('~', &names.changed)];
    let lines = signed
        .into_iter()
        .flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign} {what} {name}\n")));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RegionAnswer, TestAnswer};

    #[test]
    fn the_history_reads_newest_first() {
        let entry = |generation, state: &str, message: &str| HistoryEntryAnswer {
            generation,
            at: 1_795_000_000 + generation,
            by: Some(0),
            message: message.to_owned(),
            state: state.to_owned(),
            ..HistoryEntryAnswer::default()
        };
        let entries = [
            HistoryEntryAnswer { by: None, ..entry(1, "confirmed", "found at the first start") },
            entry(2, "rolled-back", "too much"),
            entry(3, "rolled-back", ""),
            HistoryEntryAnswer {
                text_of: Some(1),
                in_force: true,
                standing: true,
                ..entry(5, "confirmed", "")
            },
        ];
        let gone = "cannot come back: a.key is gone";
        let remarks = [None, Some(gone), Some(gone), None];
        let listed: Vec<_> =
            entries.iter().zip(remarks).map(|(entry, remark)| Listed { entry, remark }).collect();
        let want = "\
generation  when                  uid  state                message
         5  2026-11-18T11:06:45Z  0    confirmed, in force  (text of 1)
         3  2026-11-18T11:06:43Z  0    rolled-back          [cannot come back: a.key is gone]
         2  2026-11-18T11:06:42Z  0    rolled-back          too much [cannot come back: a.key is gone]
         1  2026-11-18T11:06:41Z  -    confirmed            found at the first start
";
        assert_eq!(table(&listed), want);
    }

    #[test]
    fn a_dry_run_says_names_regions_and_failing_tests() {
        let names = |name: &str| vec![name.to_owned()];
        let found = DryRunAnswer {
            path: "bulkhead.toml".to_owned(),
            devices: ChangedNames {
                added: names("carl"),
                removed: names("anna"),
                changed: names("bert"),
            },
            regions: 3,
            verdicts: vec![RegionAnswer {
                allowed: false,
                from: "device:anna".to_owned(),
                to: "segment:payroll".to_owned(),
                services: names("tcp/443"),
                witness: ["10.44.0.7", "10.20.1.0", "tcp/443"].map(str::to_owned),
            }],
            tests: vec![
                TestAnswer { passed: true, ..TestAnswer::default() },
                TestAnswer { text: "FAILED  no (line 9)\n".to_owned(), ..TestAnswer::default() },
            ],
            ..DryRunAnswer::default()
        };
        let want = "\
+ device carl
- device anna
~ device bert
verdicts change in 3 regions, the largest first
- denied: tcp/443
  from     device:anna
  to       segment:payroll
  as       10.44.0.7 to 10.20.1.0 tcp/443
and 2 smaller regions
1 of 2 tests fail, so apply would refuse it:
FAILED  no (line 9)
";
        assert_eq!(changes(&found), want);
        let passed = TestAnswer { passed: true, ..TestAnswer::default() };
        let good = DryRunAnswer { tests: vec![passed], ..found };
        assert!(changes(&good).ends_with("\nthe only test of the file passes\n"));
    }

    #[test]
    fn the_status_says_what_waits_and_that_the_file_is_something_else() {
        let waiting = Some(WaitingAnswer { generation: 8, left_ms: 61_000, back_to: 7 });
        let file = FileAnswer::Differs;
        let (in_force, standing) = (Some(8), Some(7));
        let status = ConfigurationAnswer { in_force, standing, waiting, taking_back: None, file };
        let said = configuration(&status);
        let waits = "8 waits for bulkhead confirm 8; in 1 min 1 s, or with bulkhead rollback --of 8, \
                     generation 7 comes back";
        assert!(said.contains(waits), "{said}");
        assert!(said.contains("only bulkhead apply"), "{said}");
        let kept = configuration(&ConfigurationAnswer { waiting: None, ..status });
        assert!(kept.contains("the next start puts generation 7 in force"), "{kept}");
    }
}
