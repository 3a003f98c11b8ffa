//! The manual equals the code: `default.toml` shows every key, and the values that it calls
//! defaults are those of the code.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use bulkhead_config::keys::TABLES;
use bulkhead_config::{Config, KeyFileError, KeySource, Secret};

const MANUAL: &str = include_str!("../default.toml");

/// Keys that have a default.
const DEFAULTS: usize = 53;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap())
    }
}

fn read(text: &str) -> Config {
    Config::parse_with("default.toml", text, &AnyKey).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Takes the comment signs from the lines that begin with `sign` and then a key. Returns how many.
fn uncomment(text: &str, sign: &str) -> (String, usize) {
    let mut count = 0;
    let lines: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix(sign) {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                count += 1;
                rest
            }
            Some(_) | None => line,
        })
        .collect();
    (lines.join("\n"), count)
}

#[test]
fn the_defaults_of_the_manual_are_those_of_the_code() {
    let (written, count) = uncomment(MANUAL, "#");
    assert_eq!(count, DEFAULTS, "lines `#key = value`");
    // Equal to the last place in the file: only comment signs in column 1 have gone.
    assert_eq!(read(&written), read(MANUAL));
}

/// The test above would pass if the reader did not look at the values.
#[test]
fn a_wrong_default_would_be_noticed() {
    let (written, _) = uncomment(MANUAL, "#");
    let mut changed = 0;
    for (line, other) in [
        ("name = \"gateway\"", "name = \"gw\""),
        ("frames_per_worker = 8192", "frames_per_worker = 8193"),
        ("ring_entries = 2048", "ring_entries = 1024"),
        ("sessions_max = 16384", "sessions_max = 16385"),
        ("peers_max = 4096", "peers_max = 4095"),
        ("flows_per_worker = 65536", "flows_per_worker = 65537"),
        ("midstream = \"adopt\"", "midstream = \"refuse\""),
        ("on_revoke = \"drop\"", "on_revoke = \"reset\""),
        ("new_per_second = 4096", "new_per_second = 4097"),
        ("live_per_source = 32768", "live_per_source = 32767"),
        ("tcp_syn_sent = \"120s\"", "tcp_syn_sent = \"121s\""),
        ("tcp_syn_recv = \"60s\"", "tcp_syn_recv = \"61s\""),
        ("tcp_unacknowledged = \"300s\"", "tcp_unacknowledged = \"301s\""),
        ("tcp_established = \"432000s\"", "tcp_established = \"432001s\""),
        ("tcp_fin_wait = \"120s\"", "tcp_fin_wait = \"121s\""),
        ("tcp_close_wait = \"60s\"", "tcp_close_wait = \"61s\""),
        ("tcp_last_ack = \"30s\"", "tcp_last_ack = \"31s\""),
        ("tcp_time_wait = \"120s\"", "tcp_time_wait = \"121s\""),
        ("tcp_close = \"10s\"", "tcp_close = \"11s\""),
        ("udp = \"30s\"", "udp = \"31s\""),
        ("udp_stream = \"120s\"", "udp_stream = \"121s\""),
        ("icmp = \"30s\"", "icmp = \"31s\""),
        ("other = \"600s\"", "other = \"601s\""),
        ("file = \"flows.jsonl\"", "file = \"other.jsonl\""),
        ("size_max_mib = 64", "size_max_mib = 65"),
        ("denied = \"none\"", "denied = \"new\""),
        ("attach = \"auto\"", "attach = \"native\""),
        ("bind = \"auto\"", "bind = \"copy\""),
        ("kind = \"wireguard\"", "kind = \"both\""),
        ("queues = 1", "queues = 2"),
        ("listen_port = 51820", "listen_port = 51821"),
        ("dark = false", "dark = true"),
        ("mtu = 1420", "mtu = 1400"),
        ("dscp = \"clear\"", "dscp = \"copy\""),
        ("rekey_after = \"120s\"", "rekey_after = \"119s\""),
        ("reject_after = \"180s\"", "reject_after = \"179s\""),
        ("rekey_attempt = \"90s\"", "rekey_attempt = \"89s\""),
        ("rekey_timeout = \"5s\"", "rekey_timeout = \"4s\""),
        ("keepalive = \"10s\"", "keepalive = \"9s\""),
        ("email = \"\"", "email = \"x\""),
        ("description = \"\"", "description = \"x\""),
        ("tags = []", "tags = [\"tag:managed\"]"),
        ("cpus = []", "cpus = [1]"),
        ("action = \"allow\"", "action = \"deny\""),
        ("stage = \"enforce\"\n# Which", "stage = \"shadow\"\n# Which"),
        ("log = \"none\"", "log = \"all\""),
        ("show_private_key = false", "show_private_key = true"),
        ("show_preshared_keys = false", "show_preshared_keys = true"),
        ("allowed_ips = []", "allowed_ips = [\"0.0.0.0/0\"]"),
        ("dns = []", "dns = [\"10.0.0.53\"]"),
        ("pool = []", "pool = [\"10.44.0.0/24\"]"),
    ] {
        let other = written.replacen(&format!("\n{line}"), &format!("\n{other}"), 1);
        assert_ne!(other, written, "{line} is not in the manual");
        assert_ne!(read(&other), read(MANUAL), "{line}");
        changed += 1;
    }
    // With one queue there is one worker either way, and there is one stage.
    assert_eq!(changed, DEFAULTS - 2, "all but workers and the stage of a segment");
}

#[test]
fn the_manual_shows_every_key() {
    let (all, _) = uncomment(MANUAL, "#");
    let (all, examples) = uncomment(&all, "#~ ");
    assert_eq!(examples, 17, "lines `#~ key = value`");
    // What it shows is accepted, all of it at once.
    let config = read(&all);
    let device = &config.devices[0];
    assert_eq!(device.user.as_deref(), Some("anna"));
    assert!(device.preshared_key.is_some() && device.endpoint.is_some());
    assert!(device.keepalive.is_some());
    assert_eq!(config.segments[0].vlan, Some(201));
    assert_eq!(config.tests[0].allow.len(), 1);

    let root: toml::Table = all.parse().unwrap();
    for (table, keys) in TABLES {
        let shown: Vec<&toml::Table> = match *table {
            "" => vec![&root],
            one @ ("gateway" | "internet" | "flows" | "flow_log") => {
                vec![root[one].as_table().unwrap()]
            }
            "timeouts" => vec![root["flows"]["timeouts"].as_table().unwrap()],
            sub @ ("client" | "timers") => vec![root["wireguard"]["wg0"][sub].as_table().unwrap()],
            "time" => vec![root["rule"][0]["time"].as_table().unwrap()],
            list @ ("rule" | "test") => {
                root[list].as_array().unwrap().iter().map(|item| item.as_table().unwrap()).collect()
            }
            named => {
                let all = root[named].as_table().unwrap().values();
                all.map(|item| item.as_table().unwrap()).collect()
            }
        };
        for key in *keys {
            assert!(shown.iter().any(|shown| shown.contains_key(*key)), "[{table}] {key}");
        }
    }
}
