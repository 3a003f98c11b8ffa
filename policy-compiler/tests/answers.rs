//! Explanations and test results as the operator reads them, on the example configuration.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use bulkhead_config::{Config, KeyFileError, KeySource, Secret};
use bulkhead_policy_compiler::{
    CompileError, PeerMap, QuestionError, Verdict, compile, explain, run_tests,
};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

const EXAMPLE: &str = include_str!("../../config/examples/small-company.toml");

fn read(text: &str) -> Config {
    Config::parse_with("bulkhead.toml", text, &AnyKey).unwrap_or_else(|errors| panic!("{errors}"))
}

fn answer(from: &str, to: &str) -> String {
    explain(&read(EXAMPLE), from, to).unwrap().to_string()
}

#[test]
fn an_allowed_flow_names_the_rule_and_why_it_covers_it() {
    let want = "\
allowed: device:anna-phone to 10.20.2.10 tcp/5432
  from     device:anna-phone (line 58)
  to       10.20.2.10, which is device:payroll-db (line 83)
  by       rule hr-payroll (line 134)
  because  it is from group:hr, which has user:anna@corp.example
           it is to device:payroll-db
           tcp/5432 is in postgres
";
    assert_eq!(answer("device:anna-phone", "10.20.2.10 tcp/5432"), want);
    let want = "\
allowed: 10.44.0.2 to 10.20.9.1 udp/4070
  from     10.44.0.2, which is device:it-jump (line 76)
  to       10.20.9.1, which is segment:doors (line 109)
  by       rule it-doors (line 152)
  because  it is from device:it-jump
           it is to segment:doors
           udp/4070 is one of any service
";
    assert_eq!(answer("10.44.0.2", "10.20.9.1 udp/4070"), want);
}

#[test]
fn a_denied_flow_names_the_rules_that_come_nearest() {
    let want = "\
denied: device:anna-laptop to 10.20.1.5 tcp/22
  from     device:anna-laptop (line 52)
  to       10.20.1.5, which is segment:offices (line 104)
  because  rules join the two, but none allows this service
  nearest  rule staff-offices (line 128): it is about https (tcp/443, udp/443) and printing \
(tcp/631, tcp/9100-9102) and smb (tcp/445), not tcp/22
  nearest  rule it-everywhere (line 140): it is from group:it, which device:anna-laptop is not
";
    assert_eq!(answer("device:anna-laptop", "10.20.1.5 tcp/22"), want);
    let want = "\
denied: segment:offices to 10.20.2.10 tcp/5432
  from     segment:offices (line 104)
  to       10.20.2.10, which is device:payroll-db (line 83)
  because  no rule goes from this source to this destination
  nearest  rule hr-payroll (line 134): it is from group:hr, which segment:offices is not
";
    assert_eq!(answer("segment:offices", "10.20.2.10 tcp/5432"), want);
    let want = "\
denied: 10.99.0.1 to 10.20.1.5 tcp/443
  from     10.99.0.1, which nobody has
  to       10.20.1.5, which is segment:offices (line 104)
  because  no device or segment has the source address
  help     addresses belong to a [device.NAME] or a [segment.NAME]
";
    assert_eq!(answer("10.99.0.1", "10.20.1.5 tcp/443"), want);
}

/// Of two devices that no rule joins: what lacks two things is named when nothing lacks one.
#[test]
fn rules_that_lack_two_things_are_named_only_if_none_lacks_one() {
    let want = "\
denied: device:carla-laptop to 10.50.0.7 tcp/443
  from     device:carla-laptop (line 70)
  to       10.50.0.7, which is device:warehouse (line 90)
  because  no rule goes from this source to this destination
  nearest  rule staff-offices (line 128): it is to segment:offices, which device:warehouse is not
";
    assert_eq!(answer("device:carla-laptop", "10.50.0.7 tcp/443"), want);
    let text = answer("device:payroll-db", "10.20.9.1 tcp/443");
    assert!(
        text.contains("nearest  rule it-doors (line 152): it is from device:it-jump"),
        "{text}"
    );
}

#[test]
fn a_question_that_cannot_be_understood_says_what_can() {
    let ask = |from, to| explain(&read(EXAMPLE), from, to).unwrap_err().to_string();
    assert_eq!(
        ask("device:ana-laptop", "10.20.1.5 tcp/443"),
        "device:ana-laptop: there is no device \"ana-laptop\"; did you mean device:anna-laptop?; \
         accepted are device:NAME, segment:NAME and IP addresses"
    );
    assert_eq!(
        ask("user:anna@corp.example", "10.20.1.5 tcp/443"),
        "user:anna@corp.example: nobody who could send a packet; accepted are device:NAME, \
         segment:NAME and IP addresses"
    );
    assert_eq!(
        ask("anna-laptop", "10.20.1.5 tcp/443"),
        "anna-laptop: the kind is missing; did you mean device:anna-laptop?; accepted are \
         device:NAME, segment:NAME and IP addresses"
    );
    assert_eq!(
        ask("10.44.0.7", "10.20.1.5:443"),
        "10.20.1.5:443: want an address and a service, for example 10.20.1.5 tcp/443"
    );
}

#[test]
fn an_explanation_is_plain_json() {
    let config = read(EXAMPLE);
    let found = explain(&config, "device:anna-laptop", "10.20.1.5 tcp/443").unwrap();
    assert_eq!(found.verdict, Verdict::Allow(0));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["verdict"]["allow"], 0);
    assert_eq!(json["rule"]["id"], "staff-offices");
    assert_eq!(json["rule"]["line"], 128);
    let denied = explain(&config, "device:anna-laptop", "10.20.1.5 tcp/22").unwrap();
    let json = serde_json::to_value(&denied).unwrap();
    assert_eq!(json["verdict"]["deny"], "service_not_allowed");
    assert_eq!(json["nearest"][0]["rule"]["id"], "staff-offices");
}

#[test]
fn the_tests_of_the_example_pass() {
    let outcomes = run_tests(&read(EXAMPLE)).unwrap();
    assert_eq!(outcomes.len(), 5);
    assert!(outcomes.iter().all(|outcome| outcome.asked > 0));
    for outcome in &outcomes {
        assert!(outcome.passed(), "{outcome}");
    }
    let first = outcomes[0].to_string();
    let want = "ok      HR reaches payroll from any of its devices, and only its database \
                (line 158, 3 flows)\n";
    assert_eq!(first, want);
}

#[test]
fn a_failed_test_says_which_flow_and_why() {
    let text = EXAMPLE
        .replace("services = [\"postgres\"]", "services = [\"ssh\"]")
        .replace("members = [\"user:ben@corp.example\", \"device:it-jump\"]", "members = []");
    let outcomes = run_tests(&read(&text)).unwrap();
    let want = "\
FAILED  HR reaches payroll from any of its devices, and only its database (line 158)
  line 160: want 10.20.2.10 tcp/5432 allowed
    denied: device:anna-phone to 10.20.2.10 tcp/5432
      from     device:anna-phone (line 58)
      to       10.20.2.10, which is device:payroll-db (line 83)
      because  rules join the two, but none allows this service
      nearest  rule hr-payroll (line 134): it is about ssh (tcp/22), not tcp/5432
  line 161: want 10.20.2.10 tcp/22 denied
    allowed: device:anna-phone to 10.20.2.10 tcp/22
      from     device:anna-phone (line 58)
      to       10.20.2.10, which is device:payroll-db (line 83)
      by       rule hr-payroll (line 134)
      because  it is from group:hr, which has user:anna@corp.example
               it is to device:payroll-db
               tcp/22 is in ssh
";
    assert_eq!(outcomes[0].to_string(), want);
    let passed: Vec<bool> = outcomes.iter().map(|outcome| outcome.passed()).collect();
    assert_eq!(passed, [false, true, true, true, false]);
}

#[test]
fn a_device_without_a_peer_is_refused() {
    let config = read(EXAMPLE);
    let errors = compile(&config, &PeerMap::new(), 1).unwrap_err();
    assert_eq!(errors.list().len(), config.devices.len());
    assert!(matches!(&errors.list()[0],
        CompileError::NoPeer { device, place } if device == "anna-laptop" && place.line == 52));
    let first = errors.to_string();
    assert!(first.starts_with("policy: device anna-laptop (line 52) has no peer index\n"));
}

/// A thousand and more devices, each with a rule of its own: refused with what to do.
#[test]
fn a_policy_that_tells_too_many_apart_is_refused_with_advice() {
    use std::fmt::Write;
    let mut text = String::from(
        "schema = 1\n[gateway]\npeers_max = 5000\n[port.p]\ndevice = \"p\"\n\
         [wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n",
    );
    for n in 0..4_097u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let key = bulkhead_config::PublicKey(key);
        let (high, low) = (n / 256, n % 256);
        writeln!(
            text,
            "[device.d{n}]\npublic_key = \"{key}\"\naddresses = [\"10.3.{high}.{low}/32\"]\n\
             [[rule]]\nid = \"r{n}\"\nfrom = [\"device:d{n}\"]\nto = [\"device:d0\"]\n\
             services = [\"any\"]"
        )
        .unwrap();
    }
    let error = explain(&read(&text), "device:d1", "10.3.0.0 tcp/1").unwrap_err();
    let QuestionError::Compile(errors) = error else { panic!("{error}") };
    assert!(matches!(errors.list(), [CompileError::Labels { needed: 4_098, .. }]));
    let want = "policy: the rules tell 4098 kinds of endpoints apart; at most 4096: rule r998 (line \
                7997) is the first too many; let rules name groups and tags instead of single \
                devices\n";
    assert_eq!(errors.to_string(), want);
}

/// 101 names to 100 names about 100 ranges are 1,010,000 rules when written out.
#[test]
fn more_than_a_million_rules_when_written_out_are_refused() {
    use std::fmt::Write;
    let mut text = String::from(
        "schema = 1\n[port.p]\ndevice = \"p\"\n[wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n",
    );
    for n in 0..101u8 {
        let key = bulkhead_config::PublicKey([n + 1; 32]);
        writeln!(text, "[device.d{n}]\npublic_key = \"{key}\"\naddresses = [\"10.3.0.{n}/32\"]")
            .unwrap();
    }
    let list = |count: u8, item: &dyn Fn(u8) -> String| {
        (0..count).map(|n| format!("{:?}", item(n))).collect::<Vec<_>>().join(", ")
    };
    let ports = list(100, &|n| format!("tcp/{}", 2 * u16::from(n) + 1));
    writeln!(text, "[service.many]\nports = [{ports}]").unwrap();
    let devices = |count| list(count, &|n| format!("device:d{n}"));
    let rule = |from| {
        format!(
            "[[rule]]\nid = \"r\"\nfrom = [{}]\nto = [{}]\nservices = [\"many\"]\n",
            devices(from),
            devices(100)
        )
    };
    let found =
        explain(&read(&format!("{text}{}", rule(100))), "device:d1", "10.3.0.0 tcp/1").unwrap();
    assert_eq!(found.verdict, Verdict::Allow(0));
    let error =
        explain(&read(&format!("{text}{}", rule(101))), "device:d1", "10.3.0.0 tcp/1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy: 1010000 rules when written out; at most 1000000: rule r (line 313) is the first too \
         many\n"
    );
}
