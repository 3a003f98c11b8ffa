//! `bulkhead device` and `bulkhead key`: the built binary changes a file that a person wrote.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const CONFIG: &str = r#"# Ours. Do not tidy up.
schema = 1

[port.outside]
device = "lo"      # for now
[port.inside]
device = "lo-none"
kind = "segment"

# The hub.
[wireguard.wg0]
port = "outside"
# Made in 2024.
private_key_file = "wg0.key"   # keep
mtu = 1412
[wireguard.wg0.client]
endpoint = "vpn.example.com:51820"
dns = ["10.20.1.53"]
keepalive = "25s"
pool = ["10.44.0.0/29", "fd44::/64"]

[user.anna]
[tag.managed]

# Anna's, since May.
[device.laptop]
user = "anna"
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = [ "10.44.0.1/32",   "fd44::1/128" ]  # by hand

# Where the applications are.
[segment.apps]
port = "inside"
subnets = ["10.20.1.0/24"]

[[rule]]
id = "web"
from = ["user:anna"]
to = ["segment:apps"]
services = ["any"]
"#;

struct Case(TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        fs::write(case.path("wg0.key"), "YKXWIpzkTiUBBDxCRZ4F/BsgSp9u0CnbHWe5nrOkm04=\n").unwrap();
        fs::set_permissions(case.path("wg0.key"), Permissions::from_mode(0o600)).unwrap();
        fs::write(case.path("bulkhead.toml"), CONFIG).unwrap();
        fs::set_permissions(case.path("bulkhead.toml"), Permissions::from_mode(0o640)).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("bulkhead.toml")).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["--config", "bulkhead.toml"])
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn good(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}\n{out}");
        out
    }

    fn bad(&self, arguments: &[&str], want: i32, says: &str) {
        let before = (self.text(), self.files());
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, out.as_str()), (want, ""), "{arguments:?}\n{err}");
        assert!(err.contains(says), "{arguments:?}: {says:?} not in\n{err}");
        assert_eq!((self.text(), self.files()), before, "nothing was changed");
    }

    fn files(&self) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }
}

const PHONE: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

#[test]
fn device_add_keeps_comments_and_order_and_takes_the_next_free_address() {
    let case = Case::new();
    let add =
        ["device", "add", "phone", "--user", "anna", "--tag", "managed", "--public-key", PHONE];
    let out = case.good(&add);
    assert!(
        out.contains("10.44.0.2/32 and fd44::2/128") && out.contains("bulkhead apply"),
        "{out}"
    );
    let entry = format!(
        "\n[device.phone]\nuser = \"anna\"\npublic_key = \"{PHONE}\"\n\
         addresses = [\"10.44.0.2/32\", \"fd44::2/128\"]\ntags = [\"tag:managed\"]\n"
    );
    let behind = "\n# Where the applications are.";
    assert_eq!(case.text(), CONFIG.replace(behind, &format!("{entry}{behind}")));
    assert_eq!(case.mode("bulkhead.toml"), 0o640);
    assert_eq!(case.good(&["check"]).lines().count(), 1);
    // And away again without a trace.
    case.good(&["device", "remove", "phone"]);
    assert_eq!(case.text(), CONFIG);
}

#[test]
fn device_add_refuses_what_check_refuses_and_leaves_no_file_behind() {
    let case = Case::new();
    let laptop = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=";
    let add = |more: &[&'static str]| [&["device", "add"][..], more].concat();
    case.bad(&add(&["laptop", "--public-key", PHONE]), 3, "[device.laptop] already");
    case.bad(
        &add(&["x", "--public-key", laptop]),
        3,
        "the key of device laptop is already at line",
    );
    case.bad(&add(&["x", "--public-key", "short"]), 3, "not a WireGuard key");
    case.bad(
        &add(&["x", "--public-key", PHONE, "--address", "10.44.0.1/32"]),
        3,
        "10.44.0.1/32 of device laptop is already at line",
    );
    case.bad(&add(&["x", "--generate", "--psk", "--user", "ana"]), 3, "did you mean anna?");
    case.bad(
        &add(&["x", "--generate", "--private-key-file", "x.key", "--tag", "nope"]),
        3,
        "there is no tag \"nope\"",
    );
    case.bad(&add(&["x", "--generate", "--private-key-file", "wg0.key"]), 1, "File exists");
    case.bad(&add(&["x"]), 2, "--public-key");
    case.bad(&["device", "remove", "lap"], 1, "there is no device \"lap\"");
    // What is wrong already is said, and not made worse.
    fs::write(case.path("bulkhead.toml"), CONFIG.replace("mtu = 1412", "mtu = 12")).unwrap();
    case.bad(&add(&["x", "--public-key", PHONE]), 3, "out of range");
}

#[test]
fn a_device_that_is_named_elsewhere_is_not_removed() {
    let case = Case::new();
    let named = CONFIG.replace("from = [\"user:anna\"]", "from = [\"device:laptop\"]");
    fs::write(case.path("bulkhead.toml"), &named).unwrap();
    case.bad(&["device", "remove", "laptop"], 3, "there is no device \"laptop\"");
}

#[test]
fn a_pool_runs_out_with_its_name() {
    let case = Case::new();
    // Six hosts, of which one is taken.
    for number in 2..=6 {
        let out = case.good(&["device", "add", &format!("d{number}"), "--generate"]);
        assert!(out.contains(&format!("10.44.0.{number}/32")), "{out}");
    }
    let (code, _, err) = case.run(&["device", "add", "d7", "--generate"]);
    assert_eq!(code, 3);
    assert!(
        err.contains("wireguard.wg0.client.pool: every address of 10.44.0.0/29 belongs"),
        "{err}"
    );
}

/// Goal: a new device takes no address away from a site, a segment, a host or a name server, where the
/// longest prefix would win. Method: networks of every kind in the way, one behind the other.
#[test]
fn a_pool_gives_away_nothing_that_another_part_of_the_file_has() {
    let case = Case::new();
    let site = "10.44.0.2/31\", \"10.44.0.4/31";
    let busy = CONFIG
        .replace(
            "pool = [\"10.44.0.0/29\", \"fd44::/64\"]",
            "pool = [\"10.44.0.0/26\", \"fd44::/64\"]",
        )
        .replace("dns = [\"10.20.1.53\"]", "dns = [\"10.44.0.16\"]")
        .replace("\"fd44::1/128\" ]", "\"fd44::/65\", \"fd44::8000:0:0:0/128\" ]")
        .replace("[\"10.20.1.0/24\"]", "[\"10.20.1.0/24\", \"10.44.0.8/30\"]");
    let more = format!(
        "[device.site]\npublic_key = \"XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=\"\n\
         addresses = [\"{site}\", \"10.44.0.17/32\", \"0.0.0.0/0\"]\n\
         [host.printer]\naddresses = [\"10.44.0.12/30\"]\n\
         [host.devices]\naddresses = [\"10.44.0.0/26\", \"10.0.0.0/8\"]\n"
    );
    fs::write(case.path("bulkhead.toml"), busy + &more).unwrap();
    for want in ["10.44.0.6/32 and fd44::8000:0:0:1/128", "10.44.0.7/32", "10.44.0.18/32"] {
        let name = format!("d{}", case.text().len());
        let out = case.good(&["device", "add", &name, "--generate"]);
        assert!(out.contains(&format!("with {want}")), "{want}: {out}");
    }
    let around = case.text().replace("\"10.44.0.8/30\"", "\"10.44.0.0/24\"");
    fs::write(case.path("bulkhead.toml"), around).unwrap();
    let says = "every address of 10.44.0.0/26 belongs to a device, a segment or a host";
    case.bad(&["device", "add", "more", "--generate"], 3, says);
}

#[test]
fn a_generated_key_is_shown_once_and_is_not_in_the_configuration() {
    let case = Case::new();
    let out = case.good(&["device", "add", "phone", "--generate"]);
    let key = out.lines().last().unwrap();
    let private: bulkhead_wg::PrivateKey = key.parse().unwrap();
    assert!(!case.text().contains(key) && case.text().contains(&private.public_key().to_string()));
    assert_eq!(case.files(), ["bulkhead.toml", "wg0.key"]);
    let out = case.good(&[
        "device",
        "add",
        "tablet",
        "--generate",
        "--private-key-file",
        "tablet.key",
        "--psk",
    ]);
    let key = fs::read_to_string(case.path("tablet.key")).unwrap();
    assert!(!out.contains(key.trim()) && !case.text().contains(key.trim()));
    assert_eq!((case.mode("tablet.key"), case.mode("tablet.psk")), (0o600, 0o600));
    assert!(case.text().contains("preshared_key_file = \"tablet.psk\""));
}

#[test]
fn device_export_is_a_whole_wg_quick_file() {
    let case = Case::new();
    let add = ["device", "add", "phone", "--generate", "--psk", "--private-key-file", "phone.key"];
    case.good(&add);
    let read = |name| fs::read_to_string(case.path(name)).unwrap();
    let public = "V8k0mgH8YTBwqgmTU1wOT1rChAzAO9SqW8eeDq+wOyM=";
    let want = format!(
        "# Device phone of gateway gateway\n[Interface]\nPrivateKey = {}Address = 10.44.0.2/32, \
         fd44::2/128\nDNS = 10.20.1.53\nMTU = 1412\n\n[Peer]\nPublicKey = {public}\n\
         PresharedKey = {}Endpoint = vpn.example.com:51820\n\
         AllowedIPs = 10.20.1.0/24, 10.44.0.0/29, fd44::/64\nPersistentKeepalive = 25\n",
        read("phone.key"),
        read("phone.psk"),
    );
    let export = ["device", "export", "phone", "--private-key-file", "phone.key"];
    let own = case.good(&["key", "show"]);
    let want = want.replace(public, own.split_whitespace().last().unwrap());
    assert_eq!(case.good(&export), want);
    case.bad(
        &["device", "export", "laptop", "--private-key-file", "phone.key"],
        1,
        "the private key is not that of device laptop",
    );
    let without = case.good(&["device", "export", "phone"]);
    assert!(without.contains("# PrivateKey = ") && !without.contains(read("phone.key").trim()));
    fs::write(case.path("bulkhead.toml"), case.text().replace("endpoint = ", "#endpoint = "))
        .unwrap();
    case.bad(&export, 3, "wireguard.wg0.client.endpoint is missing");
}

/// Goal: a phone reads the code. Method: another library decodes the modules as they are drawn.
#[test]
fn device_qr_is_read_by_another_decoder() {
    let case = Case::new();
    case.good(&["device", "add", "phone", "--generate", "--psk", "--private-key-file", "p.key"]);
    let arguments = ["phone", "--private-key-file", "p.key"];
    let shown = case.good(&[&["device", "qr"], &arguments[..]].concat());
    // Drawn is light: two rows of modules in each line.
    let mut rows: Vec<Vec<bool>> = vec![];
    for line in shown.lines().filter(|line| !line.is_empty()) {
        let halves = |upper: bool| {
            line.chars()
                .map(|c| c == '█' || c == if upper { '▀' } else { '▄' })
                .collect::<Vec<bool>>()
        };
        rows.push(halves(true));
        rows.push(halves(false));
    }
    const SCALE: usize = 4;
    let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
    let light = |x: usize, y: usize| {
        rows.get(y / SCALE).and_then(|row| row.get(x / SCALE)).copied().unwrap_or(true)
    };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        if light(x, y) { 255 } else { 0 }
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "{shown}");
    let (_, content) = grids[0].decode().unwrap();
    assert_eq!(content, case.good(&[&["device", "export"], &arguments[..]].concat()));
}

#[test]
fn device_list_and_show_say_what_the_file_says() {
    let case = Case::new();
    assert!(case.good(&["device", "list"]).contains("laptop  anna  10.44.0.1/32,fd44::1/128"));
    let shown = case.good(&["device", "show", "laptop"]);
    assert!(shown.contains("defined        bulkhead.toml:26\n"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&case.good(&["device", "show", "laptop", "--json"])).unwrap();
    assert_eq!((&json["user"], &json["preshared_key"]), (&"anna".into(), &false.into()));
    case.bad(&["device", "show", "latop"], 1, "did you mean laptop?");
}

#[test]
fn key_generate_makes_a_private_file_and_never_writes_over_one() {
    let case = Case::new();
    let public = case.good(&["key", "generate", "new.key"]);
    assert_eq!(case.mode("new.key"), 0o600);
    let private: bulkhead_wg::PrivateKey =
        fs::read_to_string(case.path("new.key")).unwrap().trim().parse().unwrap();
    assert_eq!(public.trim(), private.public_key().to_string());
    case.bad(&["key", "generate", "new.key"], 1, "it may be somebody's only key");
    let printed = case.good(&["key", "generate"]);
    printed.trim().parse::<bulkhead_wg::PrivateKey>().unwrap();
    let shown = case.good(&["key", "show"]);
    assert!(shown.contains("wg0          51820") && !shown.contains("YKXWIpzk"), "{shown}");
}

/// Goal: root hears at once whom a new key file must be given to, and only then. Method: the folder,
/// the configuration and a key file in turn belong to somebody else, the folder by its group alone.
#[test]
fn root_is_told_whom_a_new_key_file_must_belong_to() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const SOMEBODY: u32 = 4_000_000_123;
    let told = |case: &Case, arguments: &[&str]| {
        let (code, out, err) = case.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        assert!(!out.contains("chown"), "{out}");
        err
    };
    let want = |user: &str, files: &str| {
        format!("for bulkheadd, which is not root, to read what was made: chown {user} {files}\n")
    };
    let case = Case::new();
    for (number, name) in ["", "bulkhead.toml", "wg0.key"].into_iter().enumerate() {
        let file = format!("new{number}.key");
        assert_eq!(told(&case, &["key", "generate", &file]), "", "all is root's");
        chown(case.path(name), Some(SOMEBODY), None).unwrap();
        let file = format!("other{number}.key");
        let said = told(&case, &["key", "generate", &file]);
        assert_eq!(said, want(&SOMEBODY.to_string(), &file), "{name}");
        chown(case.path(name), Some(0), None).unwrap();
    }
    // With a key file of the daemon's, what is made for it is the daemon's too; without, root's.
    chown(case.path(""), Some(SOMEBODY), None).unwrap();
    let psk = ["device", "add", "phone", "--generate", "--psk", "--private-key-file", "p.key"];
    assert_eq!(told(&case, &psk), want(&SOMEBODY.to_string(), "./phone.psk"));
    chown(case.path("wg0.key"), Some(SOMEBODY), None).unwrap();
    assert_eq!(told(&case, &["device", "add", "tablet", "--generate", "--psk"]), "");
    // As the package leaves it: root's, and of the daemon's group. daemon is 1:1 everywhere.
    let packaged = Case::new();
    chown(packaged.path(""), None, Some(1)).unwrap();
    assert_eq!(told(&packaged, &["key", "generate", "a.key"]), want("daemon", "a.key"));
    let hub = "[Interface]\nPrivateKey = YKXWIpzkTiUBBDxCRZ4F/BsgSp9u0CnbHWe5nrOkm04=\n";
    fs::write(packaged.path("wg7.conf"), hub).unwrap();
    let import = ["import", "wg-quick", "wg7.conf", "--output", "out.toml", "--device", "lo"];
    let said = told(&packaged, &import);
    assert!(said.ends_with(&want("daemon", "out.toml wg7.key")), "{said}");
}

#[test]
fn key_rotate_adds_a_listener_on_the_same_port_and_finish_leaves_one() {
    let case = Case::new();
    let old = case.good(&["key", "show"]).split_whitespace().last().unwrap().to_owned();
    let out = case.good(&["key", "rotate", "wg0"]);
    assert!(out.contains("bulkhead key rotate wg0 --finish") && out.contains(&old), "{out}");
    assert_eq!(case.mode("wg0-next.key"), 0o600);
    case.good(&["check"]);
    let both = case.good(&["key", "show"]);
    let new = both.split_whitespace().last().unwrap().to_owned();
    assert!(both.contains(&old) && new != old && both.contains("wg0-next     51820"), "{both}");
    // Comments of the old one stay with it, and are not repeated.
    assert_eq!(case.text().matches("Made in 2024").count(), 1);
    assert!(case.text().contains("private_key_file = \"wg0.key\"   # keep\n"));
    let export = case.good(&["device", "export", "laptop", "--listener", "wg0-next"]);
    assert!(export.contains(&new) && export.contains("Endpoint = vpn.example.com:51820"));
    case.bad(&["device", "export", "laptop"], 1, "there are several listeners: wg0, wg0-next");
    case.bad(&["key", "rotate", "wg0"], 1, "under way");
    let out = case.good(&["key", "rotate", "wg0", "--finish"]);
    assert!(out.contains(&new) && out.contains("remove ./wg0.key when none"), "{out}");
    let want = CONFIG.replace("\"wg0.key\"", "\"wg0-next.key\"");
    assert_eq!(case.text(), want);
    assert_eq!(case.good(&["key", "show"]).split_whitespace().last(), Some(new.as_str()));
    case.bad(&["key", "rotate", "wg0", "--finish"], 1, "no change of the key of wg0 is under way");
    // The key in use has the name that the next one would have: it stays as it is.
    let in_use = fs::read(case.path("wg0-next.key")).unwrap();
    case.good(&["key", "rotate", "wg0"]);
    assert_eq!(fs::read(case.path("wg0-next.key")).unwrap(), in_use);
    assert!(case.text().contains("private_key_file = \"wg0-next-2.key\""), "{}", case.text());
    case.good(&["key", "rotate", "wg0", "--finish"]);
    case.bad(&["key", "rotate", "wg9"], 1, "there is no listener \"wg9\"; there are: wg0");
}
