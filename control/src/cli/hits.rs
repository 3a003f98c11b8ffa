//! `bulkhead policy hits`, and its figures for `bulkhead policy lint`.

use std::path::Path;

use bulkhead_policy_compiler::Usage;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::client::{ask, unexpected};
use super::text::{bytes, columns, duration};
use super::{Exit, Said};
use crate::api::{Answer, Effect, HitAnswer, HitsAnswer, Request};

/// What `--json` writes and `lint --hits` reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// When the figures were read.
    taken_at: Timestamp,
    #[serde(flatten)]
    answer: HitsAnswer,
}

pub(super) fn hits(run_dir: &Path, json: bool) -> Said {
    match of_gateway(run_dir, json) {
        Ok(report) => Said::new(json, &report, || text(&report.answer), Exit::Done),
        Err(said) => said,
    }
}

impl Report {
    /// What `lint` wants to know.
    pub(super) fn usage(&self, unused_since: Timestamp) -> Usage {
        let ago = |ms: u64| {
            let ago = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
            self.taken_at.checked_sub(ago).unwrap_or(Timestamp::MIN)
        };
        let last = |found: &crate::api::RuleHitsAnswer| {
            found.hit.last_ms.map(|ms| (found.rule.clone(), ago(ms)))
        };
        Usage {
            counted_since: ago(self.answer.counted_ms),
            unused_since,
            known: self.answer.rules.iter().map(|found| found.rule.clone()).collect(),
            last: self.answer.rules.iter().filter_map(last).collect(),
        }
    }
}

/// The figures of the running gateway.
pub(super) fn of_gateway(run_dir: &Path, json: bool) -> Result<Report, Said> {
    let answer = ask(run_dir, Request::Hits {}, json)?;
    let Answer::Hits(answer) = answer else { return Err(unexpected()) };
    Ok(Report { taken_at: Timestamp::now(), answer: *answer })
}

/// The figures that were written to a file.
pub(super) fn of_file(path: &Path) -> Result<Report, Said> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Said::failed(format_args!("{}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| {
        let file = path.display();
        Said::failed(format_args!("{file}: {error}; want what bulkhead policy hits --json writes"))
    })
}

fn text(answer: &HitsAnswer) -> String {
    let head = ["rule", "line", "effect", "flows", "packets", "bytes", "last"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for found in &answer.rules {
        let effect = match found.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
            Effect::WouldAllow => "would allow",
            Effect::WouldDeny => "would deny",
        };
        rows.push(row(&found.rule, &found.line.to_string(), effect, &found.hit));
    }
    rows.push(row("(no rule)", "", "deny", &answer.denied));
    if answer.gone.packets > 0 || answer.gone.flows > 0 {
        rows.push(row("(rules that are gone)", "", "", &answer.gone));
    }
    let counted = duration(answer.counted_ms);
    format!("{}\ncounted for {counted}, since the datapath started\n", columns(&rows))
}

fn row(name: &str, line: &str, effect: &str, hit: &HitAnswer) -> Vec<String> {
    let last = hit.last_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", duration(ms)));
    let (flows, packets) = (hit.flows.to_string(), hit.packets.to_string());
    vec![
        name.to_owned(),
        line.to_owned(),
        effect.to_owned(),
        flows,
        packets,
        bytes(hit.bytes),
        last,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RuleHitsAnswer;

    fn answer() -> HitsAnswer {
        let hit = HitAnswer { packets: 12, bytes: 2_048, flows: 3, last_ms: Some(61_000) };
        let rule = |name: &str, line, effect, hit| RuleHitsAnswer {
            rule: name.to_owned(),
            path: "b.toml".to_owned(),
            line,
            effect,
            hit,
        };
        HitsAnswer {
            counted_ms: 3_600_000,
            rules: vec![
                rule("web", 7, Effect::Allow, hit),
                rule("old", 19, Effect::WouldDeny, HitAnswer::default()),
            ],
            denied: HitAnswer { packets: 5, bytes: 400, flows: 0, last_ms: Some(0) },
            gone: HitAnswer::default(),
        }
    }

    #[test]
    fn hits_are_shown_by_rule_with_what_no_rule_allows() {
        let want = "\
rule       line  effect      flows  packets  bytes    last
web        7     allow           3       12  2.0 KiB  1 min 1 s ago
old        19    would deny      0        0  0 B      never
(no rule)        deny            0        5  400 B    0 ms ago

counted for 1 h 0 min, since the datapath started
";
        assert_eq!(text(&answer()), want);
    }

    #[test]
    fn what_hits_writes_lint_reads() {
        let taken_at: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let written = serde_json::to_string(&Report { taken_at, answer: answer() }).unwrap();
        assert!(
            written
                .contains(r#""rule":"web","path":"b.toml","line":7,"effect":"allow","packets":12"#),
            "{written}"
        );
        let read: Report = serde_json::from_str(&written).unwrap();
        let since: Timestamp = "2026-11-24T11:30:00Z".parse().unwrap();
        let usage = read.usage(since);
        assert_eq!(usage.counted_since.to_string(), "2026-11-24T11:00:00Z");
        assert_eq!(usage.last["web"].to_string(), "2026-11-24T11:58:59Z");
        assert!(usage.known.contains("old") && !usage.last.contains_key("old"));
    }
}
