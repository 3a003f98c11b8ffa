//! The command line as its users meet it: the built binary, its output, its exit codes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking, their helpers too, and wait by the clock"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const GOOD: &str = r#"schema = 1
[gateway]
name = "gw-test"
[port.outside]
device = "lo"
[port.inside]
device = "lo-none"
kind = "segment"
[wireguard.wg0]
port = "outside"
private_key_file = "wg0.key"
[device.laptop]
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.7/32"]
[segment.apps]
port = "inside"
subnets = ["10.20.1.0/24"]
[service.https]
ports = ["tcp/443"]
[[rule]]
id = "web"
from = ["device:laptop"]
to = ["segment:apps"]
services = ["https"]
[[test]]
name = "the laptop reaches the apps"
from = "device:laptop"
allow = ["10.20.1.5 tcp/443"]
deny = ["10.20.1.5 tcp/22"]
"#;

struct Case {
    folder: TempDir,
}

struct Output {
    code: i32,
    out: String,
    err: String,
}

impl Case {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("wg0.key");
        fs::write(&key, "YKXWIpzkTiUBBDxCRZ4F/BsgSp9u0CnbHWe5nrOkm04=\n").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        fs::write(folder.path().join("bulkhead.toml"), config).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["--config", "bulkhead.toml", "--run-dir", "run"])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        Output {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self, arguments: &[&str]) -> (i32, serde_json::Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.err, "", "with --json everything is on standard output");
        (output.code, serde_json::from_str(&output.out).unwrap())
    }
}

#[test]
fn a_good_file_is_summed_up() {
    let case = Case::new(GOOD);
    let output = case.run(&["check"]);
    let head = "bulkhead.toml: 1 device, 1 segment, 1 rule, a table of ";
    assert!(output.out.starts_with(head), "{}{}", output.out, output.err);
    assert!(output.out.ends_with(" bytes; 1 of 1 tests passed\n"), "{}", output.out);
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    let (code, value) = case.json(&["check", "bulkhead.toml"]);
    assert_eq!((code, &value["valid"], &value["devices"]), (0, &true.into(), &1.into()));
}

/// As the package has it: the key is the daemon's, and who operates the gateway is root.
#[test]
fn root_checks_a_file_whose_key_is_the_daemons() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let case = Case::new(GOOD);
    std::os::unix::fs::chown(case.path().join("wg0.key"), Some(1001), Some(1001)).unwrap();
    for command in
        [&["check"][..], &["policy", "test"], &["key", "show"], &["device", "remove", "laptop"]]
    {
        let output = case.run(command);
        assert!(!output.err.contains("belongs to user"), "{command:?}: {}", output.err);
    }
    assert_eq!(case.run(&["check"]).code, 0);
    let key = ["key", "rotate", "wg0"];
    let output = case.run(&key);
    assert_eq!(output.code, 0, "{}", output.err);
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(case.path().join("wg0-next.key")).unwrap(),
    );
    assert_eq!(owner, 1001, "the daemon must read the new one too");
}

#[test]
fn every_mistake_is_shown_with_its_line_and_a_caret() {
    let bad =
        GOOD.replace("10.20.1.0/24", "10.20.1.0/33").replace("segment:apps\"]", "segment:app\"]");
    let case = Case::new(&bad);
    let output = case.run(&["check"]);
    assert_eq!((output.code, output.out.as_str()), (3, ""));
    for want in ["bulkhead.toml:17:", "10.20.1.0/33", "bulkhead.toml:23:", "segment:app", "^"] {
        assert!(output.err.contains(want), "{want} not in {}", output.err);
    }
    assert!(output.err.ends_with("bulkhead: the configuration has 2 mistakes\n"), "{}", output.err);
    let (code, value) = case.json(&["check"]);
    let diagnostics = &value["refused"]["diagnostics"];
    assert_eq!((code, &value["refused"]["kind"]), (3, &"invalid".into()));
    assert_eq!((&diagnostics[0]["line"], &diagnostics[1]["line"]), (&17.into(), &23.into()));
    assert_eq!(Case::new(&bad).run(&["check", "absent.toml"]).code, 3);
}

#[test]
fn a_failed_test_is_told_apart_from_a_mistake() {
    let case = Case::new(
        &GOOD
            .replace("deny = [\"10.20.1.5 tcp/22\"]", "deny = [\"10.20.1.5 tcp/443\"]")
            .replace("allow = [\"10.20.1.5 tcp/443\"]\n", ""),
    );
    for command in [&["check"][..], &["policy", "test"]] {
        let output = case.run(command);
        assert_eq!(output.code, 4, "{}", output.err);
        assert!(output.out.contains("FAILED  the laptop reaches the apps"), "{}", output.out);
    }
    let (code, value) = case.json(&["policy", "test"]);
    assert_eq!((code, &value["passed"]), (4, &false.into()));
    let output = Case::new(GOOD).run(&["policy", "test"]);
    assert_eq!((output.code, output.out.starts_with("ok ")), (0, true), "{}", output.out);
}

#[test]
fn a_verdict_names_its_rule() {
    let case = Case::new(GOOD);
    let allowed = case.run(&["policy", "explain", "device:laptop", "10.20.1.5", "tcp/443"]);
    assert_eq!(allowed.code, 0, "{}", allowed.err);
    assert!(allowed.out.contains("web") && allowed.out.contains("20"), "{}", allowed.out);
    let (code, value) = case.json(&["policy", "explain", "device:laptop", "10.20.1.5 tcp/22"]);
    assert_eq!((code, &value["rule"]), (0, &serde_json::Value::Null));
    let unknown = case.run(&["policy", "explain", "device:lap", "10.20.1.5 tcp/22"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("device:lap"), "{}", unknown.err);
}

#[test]
fn who_can_reach_lint_and_diff_answer_without_a_daemon() {
    let case = Case::new(GOOD);
    let who = case.run(&["policy", "who-can", "10.20.1.5", "tcp/443"]);
    assert_eq!(who.code, 0, "{}", who.err);
    assert!(who.out.contains("device:laptop") && who.out.contains("rule web"), "{}", who.out);
    let (code, value) = case.json(&["policy", "reach", "device:laptop"]);
    assert_eq!((code, &value["rows"][0]["services"][0]), (0, &"tcp/443".into()));
    assert_eq!(value["rows"][0]["to"]["prefixes"][0], "10.20.1.0/24");
    assert_eq!(case.run(&["policy", "reach", "device:lap"]).code, 2);

    let clean = case.run(&["policy", "lint"]);
    assert_eq!((clean.code, clean.out.as_str()), (0, "nothing found\n"), "{}", clean.err);
    let empty = Case::new(&format!("{GOOD}[group.none]\nmembers = []\n"));
    let (code, value) = empty.json(&["policy", "lint"]);
    assert_eq!((code, &value["findings"][0]["kind"]), (1, &"empty-group".into()));
    let apps = GOOD.lines().position(|line| line == "[segment.apps]").unwrap() + 1;
    let second = "[segment.db]\nport = \"inside\"\nsubnets = [\"10.20.2.0/24\"]\n";
    let (code, value) = Case::new(&format!("{GOOD}{second}")).json(&["policy", "lint"]);
    let found = &value["findings"][0];
    assert_eq!((code, &found["kind"]), (1, &"shared-wire".into()));
    assert_eq!(found["line"], GOOD.lines().count() + 1);
    assert_eq!(found["other"], serde_json::json!({ "about": "segment apps", "line": apps }));

    let old = case.folder.path().join("bulkhead.toml").display().to_string();
    let new = case.folder.path().join("new.toml");
    fs::write(&new, GOOD.replace("tcp/443\"]\n[[rule", "tcp/22\"]\n[[rule")).unwrap();
    let new = new.display().to_string();
    let same = case.run(&["policy", "diff", &old, &old]);
    assert_eq!((same.code, same.out.as_str()), (0, "no verdict changes\n"), "{}", same.err);
    let (code, value) = case.json(&["policy", "diff", &old, &new]);
    let changes = value["regions"].as_array().unwrap();
    assert_eq!((code, changes.len()), (0, 2));
    assert_eq!((&changes[0]["now"], &changes[1]["now"]), (&"allowed".into(), &"denied".into()));
    assert_eq!(changes[0]["witness"]["service"], "tcp/22");
}

#[test]
fn an_explanation_takes_a_time_and_facts_as_given() {
    let posture = "[posture.calm]\nat_most = { risk = 50 }\n[[rule]]\nid = \"calm\"\n\
        from = [\"device:laptop\"]\nto = [\"segment:apps\"]\nservices = [\"any\"]\n\
        posture = [\"calm\"]\ntime = { hours = \"07:00-19:00\" }\n[[test]]";
    let case = Case::new(&GOOD.replace("[[test]]", posture));
    let ask = |at: &str, given: &str| {
        let question = ["policy", "explain", "device:laptop", "10.20.1.5 tcp/22"];
        let (code, value) = case.json(&[&question[..], &["--at", at, "--given", given]].concat());
        (code, value["verdict"].to_string(), value["flips"].as_array().map_or(0, Vec::len))
    };
    let noon = "2026-11-24T12:00:00Z";
    assert_eq!(ask(noon, "risk=10"), (0, "{\"allow\":1}".to_owned(), 1));
    let denied = "{\"deny\":\"service_not_allowed\"}".to_owned();
    assert_eq!(ask(noon, "risk=51"), (0, denied.clone(), 1));
    // The other rule lacks the service only: one change, where this one would take two.
    assert_eq!(ask("2026-11-24T20:00:00Z", "risk=51"), (0, denied, 1));
    assert_eq!(ask(noon, "risks=1").0, 2);
}

#[test]
fn without_a_daemon_the_advice_is_where_to_look() {
    let case = Case::new(GOOD);
    for command in [&["status"][..], &["counters"], &["peer", "list"], &["apply"]] {
        let output = case.run(command);
        assert_eq!((output.code, output.out.as_str()), (5, ""));
        assert!(output.err.contains("run/control.sock") && output.err.contains("systemctl"));
        let (code, value) = case.json(command);
        assert_eq!(code, 5);
        assert!(value["unreachable"]["message"].is_string());
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let case = Case::new(GOOD);
    for command in [&["reboot"][..], &[], &["policy", "explain", "device:laptop"], &["man"]] {
        assert_eq!(case.run(command).code, 2, "{command:?}");
    }
    let help = case.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("  7  degraded"), "{}", help.out);
}

#[test]
fn a_package_gets_its_pages_and_completions() {
    let case = Case::new(GOOD);
    let out = case.path().join("man");
    assert_eq!(case.run(&["man", "--out", "man"]).code, 1, "the folder must exist");
    fs::create_dir(&out).unwrap();
    assert_eq!(case.run(&["man", "--out", "man"]).code, 0);
    for page in ["bulkhead.1", "bulkhead-apply.1", "bulkhead-policy-explain.1", "bulkheadd.8"] {
        let text = fs::read_to_string(out.join(page)).unwrap();
        assert!(text.contains(".TH "), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = case.run(&["completions", shell]);
        assert_eq!(script.code, 0);
        assert!(script.out.contains("restart-datapath"), "{shell}");
    }
}
