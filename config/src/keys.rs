//! Every key that the file may have, by table. `default.toml` shows each, and a test holds it to
//! that.

pub(crate) const ROOT: &[&str] = &[
    "schema",
    "gateway",
    "flows",
    "flow_log",
    "port",
    "wireguard",
    "user",
    "tag",
    "group",
    "device",
    "segment",
    "host",
    "internet",
    "service",
    "attribute",
    "posture",
    "rule",
    "test",
];
pub(crate) const GATEWAY: &[&str] = &[
    "name",
    "workers",
    "cpus",
    "frames_per_worker",
    "ring_entries",
    "sessions_max",
    "peers_max",
    "flows_per_worker",
];
pub(crate) const FLOWS: &[&str] =
    &["midstream", "on_revoke", "new_per_second", "live_per_source", "timeouts"];
pub(crate) const FLOW_LOG: &[&str] = &["file", "size_max_mib", "denied"];
pub(crate) const FLOW_TIMEOUTS: &[&str] = &[
    "tcp_syn_sent",
    "tcp_syn_recv",
    "tcp_unacknowledged",
    "tcp_established",
    "tcp_fin_wait",
    "tcp_close_wait",
    "tcp_last_ack",
    "tcp_time_wait",
    "tcp_close",
    "udp",
    "udp_stream",
    "icmp",
    "other",
];
pub(crate) const PORT: &[&str] = &["device", "queues", "kind", "attach", "bind"];
pub(crate) const WIREGUARD: &[&str] = &[
    "port",
    "listen_port",
    "private_key_file",
    "dark",
    "mtu",
    "dscp",
    "show_private_key",
    "show_preshared_keys",
    "client",
    "timers",
];
pub(crate) const CLIENT: &[&str] = &["endpoint", "allowed_ips", "dns", "keepalive", "pool"];
pub(crate) const TIMERS: &[&str] =
    &["rekey_after", "reject_after", "rekey_attempt", "rekey_timeout", "keepalive"];
pub(crate) const USER: &[&str] = &["email"];
pub(crate) const TAG: &[&str] = &["description"];
pub(crate) const GROUP: &[&str] = &["members"];
pub(crate) const DEVICE: &[&str] = &[
    "user",
    "public_key",
    "preshared_key_file",
    "addresses",
    "listener",
    "endpoint",
    "keepalive",
    "tags",
];
pub(crate) const SEGMENT: &[&str] = &["port", "subnets", "vlan", "stage"];
pub(crate) const HOST: &[&str] = &["addresses"];
pub(crate) const INTERNET: &[&str] = &["via"];
pub(crate) const SERVICE: &[&str] = &["ports"];
pub(crate) const ATTRIBUTE: &[&str] = &["type"];
pub(crate) const POSTURE: &[&str] = &["require", "at_most", "at_least"];
pub(crate) const TIME: &[&str] = &["days", "hours", "zone"];
pub(crate) const RULE: &[&str] = &[
    "id", "from", "to", "services", "posture", "time", "when", "starts", "expires", "action",
    "stage", "log",
];
pub(crate) const TEST: &[&str] = &["name", "from", "given", "allow", "deny"];

/// Every table with its keys, as `default.toml` shows them.
pub const TABLES: &[(&str, &[&str])] = &[
    ("", ROOT),
    ("gateway", GATEWAY),
    ("flows", FLOWS),
    ("flow_log", FLOW_LOG),
    ("timeouts", FLOW_TIMEOUTS),
    ("port", PORT),
    ("wireguard", WIREGUARD),
    ("client", CLIENT),
    ("timers", TIMERS),
    ("user", USER),
    ("tag", TAG),
    ("group", GROUP),
    ("device", DEVICE),
    ("segment", SEGMENT),
    ("host", HOST),
    ("internet", INTERNET),
    ("service", SERVICE),
    ("attribute", ATTRIBUTE),
    ("posture", POSTURE),
    ("time", TIME),
    ("rule", RULE),
    ("test", TEST),
];
