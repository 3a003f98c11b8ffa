//! A report as the operator reads it, and the many ways to be wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use bulkhead_config::{Config, ConfigErrors, KeyFileError, KeySource, Mistake, Secret};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, name: &str) -> Result<Secret, KeyFileError> {
        match name {
            "open.key" => Err(KeyFileError::Mode { mode: 0o644 }),
            "bobs.key" => Err(KeyFileError::Owner { owner: 1001, me: 0 }),
            "gone.key" => Err(KeyFileError::Io("no such file".to_owned())),
            "roots.key" => Err(KeyFileError::Io("permission denied".to_owned())),
            "junk.key" => Err(KeyFileError::Content),
            // RFC 7748 §6.1: Alice, who is device two below, and Bob.
            "alice.key" => Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap()),
            "next.key" => Ok("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()),
            _ => Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap()),
        }
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse_with("bulkhead.toml", text, &AnyKey)
}

#[test]
fn a_report_reads_like_this() {
    let text = r#"schema = 1
[gateway]
ring_entries = 1000
[port.outside]
device = "eth0"
quees = 2
[wireguard.wg0]
port = "outsied"
private_key_file = "open.key"
[device.anna]
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.7/24"]
	tags = ["tag:managed"]
[[rule]]
id = "web"
from = ["group:hr"]
to = ["device:ana"]
services = ["any"]
"#;
    let want = r#"bulkhead.toml:3:16: gateway.ring_entries: not a power of two
  3 | ring_entries = 1000
    |                ^^^^
      found:    1000
      accepted: 256, 512, 1024, 2048, 4096 or 8192
bulkhead.toml:6:1: port.outside.quees: unknown key
  6 | quees = 2
    | ^^^^^
      accepted: device, queues, kind, attach, bind
      help:     did you mean queues?
bulkhead.toml:8:8: wireguard.wg0.port: there is no port "outsied"
  8 | port = "outsied"
    |        ^^^^^^^^^
      accepted: outside
      help:     did you mean outside?
bulkhead.toml:9:20: wireguard.wg0.private_key_file: the key file cannot be used: mode 0644: others than the owner can read or change it
  9 | private_key_file = "open.key"
    |                    ^^^^^^^^^^
      found:    open.key
      accepted: a file of mode 0600 or stricter with one base64 key
      help:     chmod 600 open.key, and make a new key if others may have read it
bulkhead.toml:12:14: device.anna.addresses: bits to the right of the prefix length are set
  12 | addresses = ["10.44.0.7/24"]
     |              ^^^^^^^^^^^^^^
       found:    10.44.0.7/24
       accepted: an address with a prefix length, for example 10.44.0.7/32, fd44::7/128 or 10.50.0.0/24
       help:     write 10.44.0.0/24 for the network, 10.44.0.7/32 for the one address
bulkhead.toml:13:10: device.anna.tags: there is no tag "managed"
  13 | 	tags = ["tag:managed"]
     | 	        ^^^^^^^^^^^^^
       accepted: nothing: this file defines no [tag.NAME]
bulkhead.toml:16:9: rule.web.from: there is no group "hr"
  16 | from = ["group:hr"]
     |         ^^^^^^^^^^
       accepted: nothing: this file defines no [group.NAME]
bulkhead.toml:17:7: rule.web.to: there is no device "ana"
  17 | to = ["device:ana"]
     |       ^^^^^^^^^^^^
       accepted: anna
       help:     did you mean anna?
"#;
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.to_string(), want);
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json["mistakes"][1]["kind"], "unknown-key");
    assert_eq!(
        (&json["mistakes"][1]["line"], &json["mistakes"][1]["column"]),
        (&6.into(), &1.into())
    );
}

/// A file without a mistake; the tests below make one at a time.
const GOOD: &str = r#"schema = 1
[gateway]
name = "gw"
workers = 1
[port.a]
device = "eth0"
[port.b]
device = "eth1"
kind = "segment"
[wireguard.wg0]
port = "a"
private_key_file = "gw.key"
[user.anna]
[tag.managed]
[group.hr]
members = ["user:anna"]
[device.one]
user = "anna"
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.1/32", "fd44::1/128"]
tags = ["tag:managed"]
[device.two]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
addresses = ["10.44.0.2/32"]
[segment.apps]
port = "b"
subnets = ["10.20.1.0/24"]
[segment.db]
port = "b"
subnets = ["10.20.2.0/24"]
[service.https]
ports = ["tcp/443"]
[[rule]]
id = "web"
from = ["group:hr"]
to = ["segment:apps"]
services = ["https"]
[[test]]
name = "web"
from = "device:one"
allow = ["10.20.1.5 tcp/443"]
"#;

#[test]
fn a_good_file_is_read() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.gateway.workers, 1);
    assert_eq!(config.ports.len(), 2);
    assert_eq!((config.wireguard[0].port, config.segments[0].port), (0, 1));
    assert_eq!(config.devices[1].place.line, 22);
    assert_eq!(config.rules[0].place.line, 34);
    assert_eq!(config.rules[0].place.column, 6);
}

#[test]
fn an_endpoint_is_an_address_or_a_name() {
    let read = |endpoint: &str| {
        let line = format!("endpoint = \"{endpoint}\"");
        let device = parse(&GOOD.replace("user = \"anna\"", &line)).unwrap().devices.remove(0);
        let name = device.endpoint_name.map(|name| format!("{} {}", name.host, name.port));
        (device.endpoint.map(|address| address.to_string()), name)
    };
    for address in ["203.0.113.7:51820", "[2001:db8::7]:51820"] {
        assert_eq!(read(address), (Some(address.to_owned()), None));
    }
    for (text, want) in [
        ("vpn.example.com:51820", "vpn.example.com 51820"),
        ("Branch-7.Example.COM:1", "branch-7.example.com 1"),
        ("site:51820", "site 51820"),
        ("9lives.example:9", "9lives.example 9"),
    ] {
        assert_eq!(read(text), (None, Some(want.to_owned())));
    }
}

#[test]
fn several_listeners_may_share_a_udp_port_with_different_keys() {
    let another = |name: &str, key: &str| {
        format!("[wireguard.{name}]\nport = \"a\"\nprivate_key_file = \"{key}\"\n[user.anna]")
    };
    let text = GOOD.replace("[user.anna]", &another("next", "next.key"));
    let config = parse(&text.replace("user = \"anna\"", "listener = \"wg0\"")).unwrap();
    let names: Vec<_> = config.wireguard.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["next", "wg0"]);
    assert_eq!(config.wireguard[0].listen_port, config.wireguard[1].listen_port);
    assert_ne!(config.wireguard[0].public_key, config.wireguard[1].public_key);
    assert_eq!((config.devices[0].listener, config.devices[1].listener), (Some(1), None));

    // A fifth on one UDP port is one too many; the keys are all the same here, which is told too.
    let mut crowd = GOOD.to_owned();
    for name in ["b", "c", "d", "e"] {
        crowd = crowd.replace("[user.anna]", &another(name, "next.key"));
    }
    let problems: Vec<_> =
        parse(&crowd).unwrap_err().list().iter().map(|error| error.problem.clone()).collect();
    let many = problems.iter().filter(|problem| problem.starts_with("too many listeners"));
    assert_eq!((many.count(), problems.len()), (1, 4), "{problems:?}");
}

/// What stands in the file, what stands there instead, and the first line of the one report.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str)] = &[
    ("schema = 1\n", "", "1:1: schema: schema is missing"),
    ("schema = 1", "schema = 2", "1:10: schema: this release reads schema 1 only"),
    ("schema = 1", "schema = 1\ninclude = [\"x\"]", "2:1: include: unknown key"),
    ("[gateway]\nname = \"gw\"\nworkers = 1", "[gatway]", "2:2: gatway: unknown key"),
    ("name = \"gw\"", "name = \"\"", "3:8: gateway.name: empty"),
    ("name = \"gw\"", "name = \"a b\"", "3:8: gateway.name: not a name"),
    ("name = \"gw\"", "name = 7", "3:8: gateway.name: wrong type"),
    ("workers = 1", "workers = \"1\"", "4:11: gateway.workers: wrong type"),
    ("workers = 1", "workers = -1", "4:11: gateway.workers: out of range"),
    ("workers = 1", "workers = 65", "4:11: gateway.workers: out of range"),
    ("workers = 1", "workers = 2", "4:11: gateway.workers: port a has only 1 queue"),
    ("workers = 1", "cpus = [1, 2]", "4:8: gateway.cpus: 2 CPUs for 1 worker"),
    ("workers = 1", "cpus = [true]", "4:9: gateway.cpus: wrong type"),
    ("workers = 1", "ring_entries = 128", "4:16: gateway.ring_entries: out of range"),
    ("workers = 1", "ring_entries = 16384", "4:16: gateway.ring_entries: out of range"),
    ("workers = 1", "ring_entries = 4096", "2:1: gateway.frames_per_worker: too few frames for 2 queues of 4096 ring entries per worker"),
    ("workers = 1", "sessions_max = 100", "4:16: gateway.sessions_max: too few sessions for 4096 peers"),
    ("workers = 1", "peers_max = 1", "4:13: gateway.peers_max: this file has 2 devices"),
    ("device = \"eth0\"", "device = \"eth1\"", "8:10: port.b.device: the device eth1 of another port is already at line 6"),
    ("device = \"eth0\"", "device = \"../etc\"", "6:10: port.a.device: not the name of a network device"),
    ("device = \"eth0\"", "queues = 1", "5:7: port.a.device: device is missing"),
    ("device = \"eth0\"", "device = \"eth0\"\nqueues = 0", "7:10: port.a.queues: out of range"),
    ("device = \"eth0\"", "device = \"eth0\"\nbind = \"zero-copy\"", "7:8: port.a.bind: unknown value"),
    ("kind = \"segment\"", "kind = \"segment\"\nattach = \"driver\"", "10:10: port.b.attach: unknown value"),
    ("kind = \"segment\"", "kind = 1", "9:8: port.b.kind: wrong type"),
    ("[port.a]", "[port.\"c d\"]\ndevice = \"eth2\"\n[port.a]", "5:7: port.c d: not a name"),
    ("[wireguard.wg0]\nport = \"a\"\nprivate_key_file = \"gw.key\"\n", "", "1:1: wireguard: there is no [wireguard.NAME]"),
    ("[wireguard.wg0]\nport = \"a\"\nprivate_key_file = \"gw.key\"\n", "[wireguard]\n", "1:1: wireguard: there is no [wireguard.NAME]"),
    ("[user.anna]", "[wireguard.wg1]\nport = \"a\"\nprivate_key_file = \"gw.key\"\n[user.anna]", "13:12: wireguard.wg1.private_key_file: the key of listener wg0 is already at line 10"),
    ("user = \"anna\"", "listener = \"wg1\"", "18:12: device.one.listener: there is no wireguard \"wg1\""),
    ("\"gw.key\"", "\"alice.key\"", "23:14: device.two.public_key: this is the gateway's own key, of listener wg0"),
    ("user = \"anna\"", "listener = 0", "18:12: device.one.listener: wrong type"),
    ("port = \"a\"", "port = \"b\"", "11:8: wireguard.wg0.port: this port is for segments only"),
    ("port = \"a\"", "port = \"c\"", "11:8: wireguard.wg0.port: there is no port \"c\""),
    ("port = \"a\"", "port = \"a\"\nlisten_port = 0", "12:15: wireguard.wg0.listen_port: out of range"),
    ("port = \"a\"", "port = \"a\"\nlisten_port = 65536", "12:15: wireguard.wg0.listen_port: out of range"),
    ("port = \"a\"", "port = \"a\"\nmtu = 1279", "12:7: wireguard.wg0.mtu: out of range"),
    ("port = \"a\"", "port = \"a\"\nmtu = 9000", "12:7: wireguard.wg0.mtu: out of range"),
    ("port = \"a\"", "port = \"a\"\ndscp = \"64\"", "12:8: wireguard.wg0.dscp: not a DSCP policy"),
    ("port = \"a\"", "port = \"a\"\ndscp = \"EF\"", "12:8: wireguard.wg0.dscp: not a DSCP policy"),
    ("port = \"a\"", "port = \"a\"\ndscp = 46", "12:8: wireguard.wg0.dscp: wrong type"),
    ("\"gw.key\"", "\"gone.key\"", "12:20: wireguard.wg0.private_key_file: the key file cannot be used: no such file"),
    ("\"gw.key\"", "\"bobs.key\"", "12:20: wireguard.wg0.private_key_file: the key file cannot be used: it belongs to user 1001"),
    ("\"gw.key\"", "\"junk.key\"", "12:20: wireguard.wg0.private_key_file: the key file cannot be used: its content is not a WireGuard key"),
    ("private_key_file = \"gw.key\"", "", "10:12: wireguard.wg0.private_key_file: private_key_file is missing"),
    ("\"gw.key\"", "\"gw.key\"\ntimers = 1", "13:10: wireguard.wg0.timers: wrong type"),
    ("\"gw.key\"", "\"gw.key\"\ntimers.rekey_after = \"121s\"", "13:22: wireguard.wg0.timers.rekey_after: out of range"),
    ("\"gw.key\"", "\"gw.key\"\ntimers.rekey_after = \"2 min\"", "13:22: wireguard.wg0.timers.rekey_after: not a duration"),
    ("\"gw.key\"", "\"gw.key\"\ntimers.reject_after = \"120s\"", "13:23: wireguard.wg0.timers.reject_after: not above rekey_after: a session would end before its successor is asked for"),
    ("\"gw.key\"", "\"gw.key\"\ntimers.rekey_attempt = \"5s\"", "13:1: wireguard.wg0.timers.rekey_timeout: not below rekey_attempt: a handshake would never be tried again"),
    ("\"gw.key\"", "\"gw.key\"\ntimers = { rekey_after = \"10s\", reject_after = \"15s\" }", "13:10: wireguard.wg0.timers.keepalive: with rekey_timeout not below reject_after: a session could end before it is renewed"),
    ("[user.anna]", "[user.anna]\nemail = [1]", "14:9: user.anna.email: wrong type"),
    ("[tag.managed]", "[tag]\nmanaged = 1", "15:11: tag.managed: wrong type"),
    ("[tag.managed]", "[tag.managed]\n[tag.managed]", "15:6: managed is already at line 14"),
    ("members = [\"user:anna\"]", "members = [\"group:hr\"]", "16:12: group.hr.members: the group contains itself"),
    ("members = [\"user:anna\"]", "members = [\"any\"]", "16:12: group.hr.members: \"any\" cannot be referred to here"),
    ("members = [\"user:anna\"]", "members = [\"port:a\"]", "16:12: group.hr.members: \"port\" cannot be referred to here"),
    ("members = [\"user:anna\"]", "members = [\"anna\"]", "16:12: group.hr.members: the kind is missing"),
    ("members = [\"user:anna\"]", "members = [\"user:anna\", \"user:anna\"]", "16:25: group.hr.members: user:anna is already at line 16"),
    ("members = [\"user:anna\"]", "", "15:8: group.hr.members: members is missing"),
    ("user = \"anna\"", "user = \"bob\"", "18:8: device.one.user: there is no user \"bob\""),
    ("user = \"anna\"", "user = \"\"", "18:8: device.one.user: empty"),
    ("user = \"anna\"", "preshared_key_file = \"junk.key\"", "18:22: device.one.preshared_key_file: the key file cannot be used: its content is not a WireGuard key"),
    ("user = \"anna\"", "endpoint = \"host\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"host:0\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"host:65536\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"-vpn.example.com:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"vpn-.example.com:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"vpn..com:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"vpn_1.example.com:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"192.0.2:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"192.0.2.300:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"192.0.2.1:0\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "endpoint = \"2001:db8::7:51820\"", "18:12: device.one.endpoint: not an address or host name with a port"),
    ("user = \"anna\"", "keepalive = \"0s\"", "18:13: device.one.keepalive: out of range"),
    ("user = \"anna\"", "keepalive = \"2500ms\"", "18:13: device.one.keepalive: not whole seconds"),
    ("\"gw.key\"", "\"gw.key\"\nclient = { keepalive = \"2500ms\" }", "13:24: wireguard.wg0.client.keepalive: not whole seconds"),
    ("user = \"anna\"", "keepalive = 25", "18:13: device.one.keepalive: wrong type"),
    ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=", "23:14: device.two.public_key: the key of device one is already at line 19"),
    ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "hSDwCYkwp1R0i33ctD73Wg2", "23:14: device.two.public_key: not a WireGuard key"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.0.1/32\"]", "24:14: device.two.addresses: 10.44.0.1/32 of device one is already at line 20"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.0.2/32\", \"10.44.0.2/32\"]", "24:30: device.two.addresses: 10.44.0.2/32 of device two is already at line 24"),
    ("[\"10.44.0.2/32\"]", "[\"10.20.1.0/24\"]", "27:12: segment.apps.subnets: 10.20.1.0/24 of device two is already at line 24"),
    ("[\"10.44.0.2/32\"]", "[]", "24:13: device.two.addresses: the list is empty"),
    ("[\"10.44.0.2/32\"]", "\"10.44.0.2/32\"", "24:13: device.two.addresses: wrong type"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.0.2\"]", "24:14: device.two.addresses: the prefix length is missing"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.0.2/33\"]", "24:14: device.two.addresses: not a prefix length"),
    ("[\"10.44.0.2/32\"]", "[\"fd44::2/129\"]", "24:14: device.two.addresses: not a prefix length"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.0.2/8\"]", "24:14: device.two.addresses: bits to the right of the prefix length are set"),
    ("[\"10.44.0.2/32\"]", "[\"10.44.2/32\"]", "24:14: device.two.addresses: not an address"),
    ("[\"10.44.0.2/32\"]", "[\"224.0.0.0/8\"]", "24:14: device.two.addresses: multicast addresses belong to no endpoint"),
    ("[\"10.44.0.2/32\"]", "[\"127.0.0.1/32\"]", "24:14: device.two.addresses: loopback addresses never leave a host"),
    ("[\"10.44.0.2/32\"]", "[\"0.0.0.0/8\"]", "24:14: device.two.addresses: 0.0.0.0/8 is never routed"),
    ("[\"10.44.0.2/32\"]", "[\"169.254.0.0/16\"]", "24:14: device.two.addresses: link-local addresses are never routed"),
    ("[\"10.44.0.2/32\"]", "[\"fe80::/64\"]", "24:14: device.two.addresses: link-local addresses are never routed"),
    ("[\"10.44.0.2/32\"]", "[\"255.255.255.255/32\"]", "24:14: device.two.addresses: the broadcast address belongs to no endpoint"),
    ("[\"10.44.0.2/32\"]", "[\"::/128\"]", "24:14: device.two.addresses: the unspecified address is never routed"),
    ("[\"10.44.0.2/32\"]", "[\"::ffff:10.0.0.1/128\"]", "24:14: device.two.addresses: IPv4-mapped addresses never appear on the wire; write the IPv4 address"),
    ("tags = [\"tag:managed\"]", "tags = [\"managed\"]", "21:9: device.one.tags: the kind is missing"),
    ("tags = [\"tag:managed\"]", "tags = [\"tag:manged\"]", "21:9: device.one.tags: there is no tag \"manged\""),
    ("tags = [\"tag:managed\"]", "tags = [\"user:anna\"]", "21:9: device.one.tags: \"user\" cannot be referred to here"),
    ("[segment.db]\nport = \"b\"", "[segment.db]\nport = \"a\"", "29:8: segment.db.port: this port is for WireGuard only"),
    ("[segment.db]\nport = \"b\"", "[segment.db]\nport = \"b\"\nvlan = 0", "30:8: segment.db.vlan: out of range"),
    ("[segment.db]\nport = \"b\"", "[segment.db]\nport = \"b\"\nvlan = 4095", "30:8: segment.db.vlan: out of range"),
    ("[segment.db]\nport = \"b\"", "[segment.db]\nport = \"b\"\nstage = \"shadow\"", "30:9: segment.db.stage: not in this release"),
    ("[segment.db]\nport = \"b\"", "[segment.db]\nport = \"b\"\nstage = \"enfroce\"", "30:9: segment.db.stage: unknown value"),
    ("10.20.2.0/24", "10.20.0.0/16", "30:12: segment.db.subnets: overlaps 10.20.1.0/24 of segment apps at line 27"),
    ("10.20.2.0/24", "10.20.1.128/25", "30:12: segment.db.subnets: overlaps 10.20.1.0/24 of segment apps at line 27"),
    ("10.20.2.0/24", "10.20.1.0/24", "30:12: segment.db.subnets: overlaps 10.20.1.0/24 of segment apps at line 27"),
    ("ports = [\"tcp/443\"]", "ports = []", "32:9: service.https.ports: the list is empty"),
    ("ports = [\"tcp/443\"]", "ports = [\"tcp/0\"]", "32:10: service.https.ports: not a port; accepted are 1 to 65535, or a range of them"),
    ("ports = [\"tcp/443\"]", "ports = [\"sctp/1\"]", "32:10: service.https.ports: unknown protocol; accepted are tcp, udp, icmp, icmpv6 and protocol/NUMBER"),
    ("[service.https]", "[service.any]\nports = [\"tcp\"]\n[service.https]", "31:10: service.any: this name is reserved: it means every protocol and port"),
    ("id = \"web\"\n", "", "33:1: rule[1].id: id is missing"),
    ("id = \"web\"", "id = \"web\"\nlogs = \"new\"", "35:1: rule.web.logs: unknown key"),
    ("from = [\"group:hr\"]", "from = [\"self\"]", "35:9: rule.web.from: \"self\" cannot be referred to here"),
    ("to = [\"segment:apps\"]", "to = [\"host:printer\"]", "36:7: rule.web.to: there is no host \"printer\""),
    ("services = [\"https\"]", "services = [\"https\"]\naction = \"denied\"", "38:10: rule.web.action: unknown value"),
    ("services = [\"https\"]", "services = [\"https\"]\nstage = \"observe\"", "38:9: rule.web.stage: unknown value"),
    ("services = [\"https\"]", "services = [\"https\"]\nlog = true", "38:7: rule.web.log: wrong type"),
    ("[service.https]", "[host.far]\naddresses = [\"10.99.0.0/16\"]\n[service.https]", "32:14: host.far.addresses: nothing leads there"),
    ("[service.https]", "[host.far]\naddresses = [\"10.20.1.1/24\"]\n[service.https]", "32:14: host.far.addresses: bits to the right of the prefix length are set"),
    ("[service.https]", "[internet]\nvia = \"device:three\"\n[service.https]", "32:7: internet.via: there is no device \"three\""),
    ("[service.https]", "[internet]\n[service.https]", "31:1: internet.via: via is missing"),
    ("services = [\"https\"]", "services = [\"https\"]\nposture = [\"healty\"]", "38:12: rule.web.posture: there is no posture \"healty\""),
    ("services = [\"https\"]", "services = [\"https\"]\ntime = { days = \"mon-fry\" }", "38:17: rule.web.time.days: cannot be read as days"),
    ("services = [\"https\"]", "services = [\"https\"]\ntime = { hours = \"7-19\" }", "38:18: rule.web.time.hours: cannot be read as hours"),
    ("services = [\"https\"]", "services = [\"https\"]\ntime = { zone = \"Europe/Berlim\" }", "38:17: rule.web.time.zone: there is no such time zone"),
    ("services = [\"https\"]", "services = [\"https\"]\ntime = { from = \"07:00\" }", "38:10: rule.web.time.from: unknown key"),
    ("services = [\"https\"]", "services = [\"https\"]\ntime = \"mon-fri\"", "38:8: rule.web.time: wrong type"),
    ("services = [\"https\"]", "services = [\"https\"]\nstarts = 2026-12-01T00:00:00", "38:10: rule.web.starts: not a moment"),
    ("services = [\"https\"]", "services = [\"https\"]\nexpires = \"tomorrow\"", "38:11: rule.web.expires: wrong type"),
    ("services = [\"https\"]", "services = [\"https\"]\nstarts = 2026-12-01T00:00:00Z\nexpires = 2026-11-30T00:00:00Z", "39:11: rule.web.expires: the rule expires before it starts"),
    ("[service.https]", "[posture.p]\nrequire = { disk_encripted = true }\n[service.https]", "32:13: posture.p.require.disk_encripted: there is no attribute \"disk_encripted\""),
    ("[service.https]", "[posture.p]\nrequire = { managed = \"yes\" }\n[service.https]", "32:23: posture.p.require.managed: wrong type"),
    ("[service.https]", "[posture.p]\nat_most = { managed = true }\n[service.https]", "32:13: posture.p.at_most.managed: only whole numbers have a limit; managed is true or false"),
    ("[service.https]", "[posture.p]\nat_least = { risk = 1.5 }\n[service.https]", "32:21: posture.p.at_least.risk: wrong type"),
    ("[service.https]", "[posture.p]\n[service.https]", "31:10: posture.p.require: the posture demands nothing"),
    ("[service.https]", "[posture.p]\nrequire = [\"managed\"]\n[service.https]", "32:11: posture.p.require: wrong type"),
    ("[service.https]", "[attribute.risk]\ntype = \"int\"\n[service.https]", "31:12: attribute.risk: this attribute is built in"),
    ("[service.https]", "[attribute.floor]\ntype = \"float\"\n[service.https]", "32:8: attribute.floor.type: unknown value"),
    ("[service.https]", "[attribute.floor]\n[service.https]", "31:12: attribute.floor.type: type is missing"),
    ("from = \"device:one\"", "from = \"device:one\"\ngiven = { at = 5 }", "41:16: test.web.given.at: wrong type"),
    ("from = \"device:one\"", "from = \"device:one\"\ngiven = { riks = 5 }", "41:11: test.web.given.riks: there is no attribute \"riks\""),
    ("from = [\"group:hr\"]", "from = []", "35:8: rule.web.from: the list is empty"),
    ("from = [\"group:hr\"]", "", "34:6: rule.web.from: from is missing"),
    ("from = [\"group:hr\"]", "from = [\"grop:hr\"]", "35:9: rule.web.from: \"grop\" cannot be referred to here"),
    ("from = [\"group:hr\"]", "from = [\"group:hr\", 5]", "35:21: rule.web.from: wrong type"),
    ("to = [\"segment:apps\"]", "to = [\"segment:app\"]", "36:7: rule.web.to: there is no segment \"app\""),
    ("services = [\"https\"]", "services = [\"http\"]", "37:13: rule.web.services: there is no service \"http\""),
    ("services = [\"https\"]", "services = [\"https\", \"https\"]", "37:22: rule.web.services: https is already at line 37"),
    ("services = [\"https\"]", "services = [\"https\", \"any\"]", "37:22: rule.web.services: any already covers the other services of this rule"),
    ("[[test]]", "[[rule]]\nid = \"web\"\nfrom = [\"group:hr\"]\nto = [\"device:one\"]\nservices = [\"any\"]\n[[test]]", "39:6: rule.web.id: id \"web\" is already at line 34"),
    ("[[test]]", "[[test]]\nname = \"web\"\nfrom = \"10.1.1.1\"\ndeny = []\n[[test]]", "43:8: test.web.name: name \"web\" is already at line 39"),
    ("from = \"device:one\"", "from = \"user:anna\"", "40:8: test.web.from: \"user\" cannot be referred to here"),
    ("from = \"device:one\"", "from = \"device:on\"", "40:8: test.web.from: there is no device \"on\""),
    ("from = \"device:one\"", "from = \"10.1.1\"", "40:8: test.web.from: the kind is missing"),
    ("allow = [\"10.20.1.5 tcp/443\"]", "", "39:8: test.web.allow: the test asks nothing"),
    ("allow = [\"10.20.1.5 tcp/443\"]", "allow = [\"10.20.1.5:443\"]", "41:10: test.web.allow: want an address and a service, for example 10.20.1.5 tcp/443"),
    ("allow = [\"10.20.1.5 tcp/443\"]", "deny = [\"10.20.1.5 tcp\"]", "41:9: test.web.deny: a flow has one port; accepted is for example tcp/443"),
    ("from = \"device:one\"\nallow = [\"10.20.1.5 tcp/443\"]", "from = \"device:two\"\ndeny = [\"fd44::1 tcp/443\"]", "41:9: test.web.deny: the sender has no IPv6 address, so no such packet exists"),
];

/// What an operator writes who does not know the word for it yet.
#[test]
fn what_has_no_word_of_its_own_is_said_where_to_name_it() {
    for (good, bad, want) in [
        ("to = [\"segment:apps\"]", "to = [\"10.20.1.0/24\"]", "give the addresses a name"),
        ("from = [\"group:hr\"]", "from = [\"fd44::7\"]", "give the addresses a name"),
        ("services = [\"https\"]", "services = [\"tcp/443\"]", "give the ports a name"),
        ("\"gw.key\"", "\"roots.key\"", "chown it to the user that the daemon runs as"),
        (
            "[service.https]",
            "[posture.p]\nat_least = { managed = 1 }\n[service.https]",
            "write it in require",
        ),
    ] {
        let report = parse(&GOOD.replacen(good, bad, 1)).expect_err(bad).to_string();
        assert!(report.contains(&format!("help:     {want}")), "{report}");
    }
}

#[test]
fn every_mistake_is_found_at_its_place_and_alone() {
    let mut wrong = Vec::new();
    for (good, bad, want) in WRONG {
        assert!(GOOD.contains(good), "{good:?} is not in the good file");
        let text = GOOD.replacen(good, bad, 1);
        let report = match parse(&text) {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        };
        let firsts: Vec<_> =
            report.lines().filter_map(|line| line.strip_prefix("bulkhead.toml:")).collect();
        if firsts != [*want] {
            wrong.push(format!("{bad:?}: want {want:?}, got {firsts:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// AllowedIPs: two devices with one prefix could not be told apart, so that is refused, with the
/// place of both. A longer prefix inside another device's is the kernel's rule, and accepted.
#[test]
fn overlapping_allowed_ips_are_refused_with_both_places() {
    let with = |one: &str, two: &str| {
        let text = GOOD.replacen("[\"10.44.0.1/32\"", &format!("[\"{one}\""), 1).replacen(
            "[\"10.44.0.2/32\"]",
            &format!("[\"{two}\"]"),
            1,
        );
        assert_ne!(text, GOOD);
        parse(&text).map(|_| ()).map_err(|errors| errors.to_string())
    };
    for same in ["10.45.0.0/16", "fd45::/64", "10.45.0.1/32"] {
        let report = with(same, same).unwrap_err();
        let both =
            format!("24:14: device.two.addresses: {same} of device one is already at line 20");
        assert!(report.contains(&both), "{report}");
    }
    assert_eq!(
        with("10.45.0.0/16", "10.45.7.0/24"),
        Ok(()),
        "the longer one wins for its addresses"
    );
    assert_eq!(with("10.45.7.0/24", "10.45.0.0/16"), Ok(()), "in either order");
}

/// The same mistakes in one file are all reported, in the order of the file.
#[test]
fn all_mistakes_are_found_in_one_run() {
    let mut text = GOOD.to_owned();
    let mut kinds = Vec::new();
    for (good, bad, kind) in [
        ("workers = 1", "workers = true", Mistake::WrongType),
        ("port = \"a\"", "port = \"c\"", Mistake::UnknownName),
        ("gw.key", "gone.key", Mistake::KeyFile),
        ("user = \"anna\"", "uzer = \"anna\"", Mistake::UnknownKey),
        ("10.44.0.2/32", "10.44.0.1/32", Mistake::Duplicate),
        ("10.20.2.0/24", "10.20.2.1/24", Mistake::BadValue),
        ("ports = [\"tcp/443\"]", "", Mistake::MissingKey),
        ("from = \"device:one\"", "from = \"device:three\"", Mistake::UnknownName),
    ] {
        assert!(text.contains(good), "{good}");
        text = text.replacen(good, bad, 1);
        kinds.push(kind);
    }
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.list().iter().map(|error| error.kind).collect::<Vec<_>>(), kinds, "{errors}");
}

/// Broken syntax does not hide other mistakes, and does not make new ones of its own.
#[test]
fn broken_lines_are_all_reported_and_nothing_that_follows_from_them() {
    let text = GOOD
        .replacen("device = \"eth0\"", "device = eth0", 1)
        .replacen("ports = [\"tcp/443\"]", "ports = [\"tcp/443\"", 1)
        .replacen("workers = 1", "workers = true", 1);
    let errors = parse(&text).unwrap_err();
    let lines: Vec<_> = errors.list().iter().map(|error| (error.line, error.kind)).collect();
    // The list of ports swallows all lines behind it.
    let want = [(4, Mistake::WrongType), (6, Mistake::Syntax), (33, Mistake::Syntax)];
    assert_eq!(lines, want, "{errors}");
    assert!(errors.to_string().contains("not TOML: no value: texts stand in quotes"), "{errors}");
}

/// What a broken header would have defined is missing, and nobody who refers to it is to blame.
#[test]
fn a_broken_header_is_one_mistake() {
    for header in ["[device.one]", "[user.anna]", "[port.a]", "[service.https]"] {
        let text = GOOD.replacen(header, header.trim_end_matches(']'), 1);
        let errors = parse(&text).unwrap_err();
        let kinds: Vec<_> = errors.list().iter().map(|error| error.kind).collect();
        assert_eq!(kinds, [Mistake::Syntax], "{header}:\n{errors}");
    }
}

#[test]
fn a_wrong_key_is_not_quoted() {
    let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25L";
    let text = GOOD.replace("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", private);
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.list().len(), 1);
    assert!(!errors.to_string().contains("dwdtC"), "{errors}");
    assert!(!serde_json::to_string(&errors).unwrap().contains("dwdtC"));
}

#[test]
fn a_file_of_the_wrong_kind_is_one_bounded_report() {
    for text in [
        "{\"json\": true}\n".repeat(10_000),
        "{\"json\": true}".repeat(10_000),
        format!("x = [{}]", "{ a = 1 }, ".repeat(10_000)),
        GOOD.to_owned() + &"[[rule]]\nfrom = [\"group:h\"]\n".repeat(10_000),
    ] {
        let errors = parse(&text).unwrap_err();
        let count = errors.list().len();
        assert!((1..=bulkhead_config::limits::ERRORS_MAX).contains(&count), "{count}");
        assert!(errors.to_string().len() < 1_000 * bulkhead_config::limits::ERRORS_MAX);
    }
}

mod any_text {
    use super::{GOOD, parse};
    use proptest::prelude::*;

    proptest! {
        /// Cut, repeated and changed text never panics, and is read or refused with a place.
        #[test]
        fn is_read_or_refused(
            cut in 0..GOOD.len(),
            from in 0..GOOD.len(),
            patch in "[\\[\\]\"=.a-z0-9:/# \n]{0,12}",
        ) {
            let (head, rest) = GOOD.split_at(cut);
            let text = format!("{head}{patch}{}", rest.get(from.min(rest.len())..).unwrap_or(""));
            if let Err(errors) = parse(&text) {
                prop_assert!(!errors.list().is_empty());
                for error in errors.list() {
                    prop_assert!(error.line >= 1 && error.column >= 1, "{error}");
                    prop_assert!(!error.problem.is_empty());
                }
            }
        }
    }
}

/// The path of a circle, once for each, and nothing about groups that only lead into it.
#[test]
fn a_group_that_contains_itself_is_reported_with_the_path() {
    let text = GOOD.to_owned()
        + "[group.a]\nmembers = [\"group:b\", \"user:anna\"]\n\
           [group.b]\nmembers = [\"group:c\"]\n\
           [group.c]\nmembers = [\"user:anna\", \"group:a\"]\n\
           [group.above]\nmembers = [\"group:a\"]\n\
           [group.twice]\nmembers = [\"group:hr\", \"group:above\"]\n";
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.list().len(), 1, "{errors}");
    let error = &errors.list()[0];
    assert_eq!(error.found.as_deref(), Some("group:a > group:b > group:c > group:a"));
    assert_eq!(
        (error.key.as_str(), error.source_line.as_deref()),
        ("group.c.members", Some("members = [\"user:anna\", \"group:a\"]"))
    );
    assert_eq!(error.indent, 24);
}

/// 32 groups inside each other are as many as there may be; a million do not overflow the stack.
#[test]
fn groups_are_nested_to_a_bounded_depth() {
    let nested = |depth: u32| {
        let groups = (1..depth).map(|n| {
            let (name, inner) = (format!("n{n:07}"), format!("n{:07}", n + 1));
            format!("[group.{name}]\nmembers = [\"group:{inner}\"]\n")
        });
        parse(&format!("{GOOD}{}[group.n{depth:07}]\nmembers = []\n", groups.collect::<String>()))
    };
    assert!(nested(32).is_ok());
    let errors = nested(33).unwrap_err();
    assert_eq!(errors.list().len(), 1, "{errors}");
    assert_eq!(errors.list()[0].problem, "groups are nested too deep");
    assert_eq!(nested(100_000).unwrap_err().list().len(), 1);
}

#[test]
fn whoever_has_the_default_route_leaves_nothing_to_the_internet() {
    let text = GOOD.replace("[service.https]", "[internet]\nvia = \"device:two\"\n[service.https]");
    let config = parse(&text).unwrap();
    assert_eq!(config.internet.as_ref().map(|internet| internet.via.as_str()), Some("two"));
    let text = text.replace("10.44.0.2/32", "0.0.0.0/0");
    let errors = parse(&text).unwrap_err();
    let problem = "device two has the default route, so no address is left for it";
    assert_eq!(errors.list()[0].problem, problem);
    // Around an address counts as leading there, and so does the internet.
    let host = |address: &str| {
        let host = format!("[host.h]\naddresses = [\"{address}\"]\n[service.https]");
        parse(&GOOD.replace("[service.https]", &host)).is_ok()
    };
    assert!(host("10.20.1.7/32") && host("10.0.0.0/8") && !host("8.8.8.8/32"));
}

/// Seven mistakes of seven sorts, each at its place with its caret.
#[test]
fn a_file_with_seven_different_mistakes_reports_seven_each_with_its_caret() {
    let text = GOOD
        .replace("name = \"gw\"", "nam = \"gw\"")
        .replace("members = [\"user:anna\"]", "members = [\"user:ana\", \"group:hr\"]")
        .replace("10.20.2.0/24", "10.20.2.0/33")
        .replace(
            "ports = [\"tcp/443\"]",
            "ports = [\"tcp/443-80\"]\n[posture.p]\nat_most = { risk = true }",
        )
        .replace(
            "services = [\"https\"]",
            "services = [\"https\"]\nwhen = 'context.managed && context.rsk < 50'",
        );
    let want = r#"bulkhead.toml:3:1: gateway.nam: unknown key
  3 | nam = "gw"
    | ^^^
      accepted: name, workers, cpus, frames_per_worker, ring_entries, sessions_max, peers_max, flows_per_worker
      help:     did you mean name?
bulkhead.toml:16:12: group.hr.members: there is no user "ana"
  16 | members = ["user:ana", "group:hr"]
     |            ^^^^^^^^^^
       accepted: anna
       help:     did you mean anna?
bulkhead.toml:16:24: group.hr.members: the group contains itself
  16 | members = ["user:ana", "group:hr"]
     |                        ^^^^^^^^^^
       found:    group:hr > group:hr
       accepted: groups without a circle
bulkhead.toml:30:12: segment.db.subnets: not a prefix length
  30 | subnets = ["10.20.2.0/33"]
     |            ^^^^^^^^^^^^^^
       found:    10.20.2.0/33
       accepted: an address with a prefix length, for example 10.44.0.7/32, fd44::7/128 or 10.50.0.0/24
       help:     "33" is not a number from 0 to 32
bulkhead.toml:32:10: service.https.ports: the range ends before it begins
  32 | ports = ["tcp/443-80"]
     |          ^^^^^^^^^^^^
       found:    tcp/443-80
       accepted: tcp, tcp/443, udp/1000-2000, icmp, icmp/echo, icmp/3.4, icmpv6/135 or protocol/50
bulkhead.toml:34:20: posture.p.at_most.risk: wrong type
  34 | at_most = { risk = true }
     |                    ^^^^
       found:    true or false
       accepted: a whole number
bulkhead.toml:40:28: rule.web.when: there is no context.rsk
  40 | when = 'context.managed && context.rsk < 50'
     |                            ^^^^^^^^^^^
       accepted: certificate_valid, disk_encrypted, endpoint_protection, managed, not_jailbroken, patch_age_days, risk, screen_lock, tier, weekday, minute
       help:     did you mean context.risk?
"#;
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.to_string(), want);
    assert_eq!(errors.list().len(), 7);
}

/// The log would be read as history or facts at the next start.
#[test]
fn the_flow_log_is_not_among_the_daemons_own_files() {
    let with = |file: &str| parse(&format!("{GOOD}[flow_log]\nfile = \"{file}\"\n"));
    let line = GOOD.lines().count() + 2;
    let want = format!(
        r#"bulkhead.toml:{line}:8: flow_log.file: bulkheadd keeps its own state there
  {line} | file = "history/43.json"
     |        ^^^^^^^^^^^^^^^^^
       found:    history/43.json
       accepted: an absolute path, or a name without / other than facts, history, published.json, published.new, timestamps, timestamps.new
       help:     write flows.jsonl, or a path like /var/log/bulkhead/flows.jsonl
"#
    );
    assert_eq!(with("history/43.json").unwrap_err().to_string(), want);
    for file in [
        "",
        ".",
        "..",
        "a/",
        "timestamps",
        "published.json",
        "facts/00",
        "./timestamps",
        "../a",
        "a/b",
    ] {
        let errors = with(file).unwrap_err();
        assert_eq!(errors.list()[0].key, "flow_log.file", "{file}");
    }
    for file in ["f", "timestamps.1", "/var/log/bulkhead/flows.jsonl"] {
        assert_eq!(with(file).unwrap().flow_log.file, file);
    }
}
