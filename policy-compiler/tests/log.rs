//! What the table says about the flow log, for every kind of rule.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::Arc;

use bulkhead_config::{Config, KeyFileError, KeySource, Secret};
use bulkhead_policy_compiler::{PeerMap, compile};
use bulkhead_table::{Log, PeerIndex, RuleIndex, Table};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

const EXAMPLE: &str = include_str!("../../config/examples/small-company.toml");

/// A table in which every combination is a rule of its own, behind those of the example.
fn table(denied: &str) -> (Table, usize) {
    let mut text = format!("{EXAMPLE}\n[flow_log]\ndenied = \"{denied}\"\n");
    for (action, stage, log) in combinations() {
        text += &format!(
            "[[rule]]\nid = \"{action}-{stage}-{log}\"\nfrom = [\"any\"]\nto = [\"any\"]\n\
             services = [\"any\"]\naction = \"{action}\"\nstage = \"{stage}\"\nlog = \"{log}\"\n"
        );
    }
    let config = Config::parse_with("x.toml", &text, &AnyKey).unwrap_or_else(|e| panic!("{e}"));
    let keys = config.devices.iter().map(|device| device.public_key.0);
    let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
    let draft = compile(&config, &peers, 1).unwrap().draft;
    let first = config.rules.len() - combinations().count();
    (Table::new(Arc::new(draft.emit().unwrap())).unwrap(), first)
}

fn combinations() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ["allow", "deny"].into_iter().flat_map(|action| {
        ["enforce", "shadow"].into_iter().flat_map(move |stage| {
            ["none", "new", "all"].into_iter().map(move |log| (action, stage, log))
        })
    })
}

#[test]
fn a_rule_in_force_logs_what_it_says_and_a_shadow_rule_what_nobody_allows() {
    for denied in ["none", "new"] {
        let none = if denied == "new" { Log::New } else { Log::None };
        let (table, first) = table(denied);
        let view = table.view();
        assert_eq!(view.log(None), none);
        for (at, what) in combinations().enumerate() {
            let want = match what {
                ("allow", "enforce", "all") => Log::All,
                ("allow" | "deny", "enforce", "new") | ("deny", "enforce", "all") => Log::New,
                ("allow", "shadow", "none") => none,
                ("allow", "shadow", "new" | "all") => Log::New,
                _ => Log::None,
            };
            let rule = RuleIndex(u32::try_from(first + at).unwrap());
            assert_eq!(view.log(Some(rule)), want, "{what:?} with denied = {denied}");
        }
        let untouched = (0..first).map(|at| view.log(Some(RuleIndex(u32::try_from(at).unwrap()))));
        assert!(untouched.into_iter().all(|log| log == Log::None));
    }
}
