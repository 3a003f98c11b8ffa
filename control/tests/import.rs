//! `bulkhead import wg-quick`: an existing hub's file, carried over and back.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PRIVATE: &str = "YKXWIpzkTiUBBDxCRZ4F/BsgSp9u0CnbHWe5nrOkm04=";
const PSK: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Goal: a device of the hub works on after the import, with nothing changed on it but what the
/// operator changes. Method: what the import wrote is checked, and each device's file is exported from
/// it and held against what the hub knew of the device.
#[test]
fn an_imported_hub_passes_check_and_exports_what_its_devices_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let hub = format!(
        "[Interface]\nAddress = 10.44.0.1/24\nPrivateKey = {PRIVATE}\nListenPort = 51820\n\
         DNS = 10.44.0.53\nMTU = 1400\nPostUp = true\n\
         # anna\n[Peer]\nPublicKey = uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=\n\
         PresharedKey = {PSK}\nAllowedIPs = 10.44.0.7/32\nPersistentKeepalive = 25\n\
         # bert\n[Peer]\nPublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\
         AllowedIPs = 10.44.0.8/32, fd44::8/128\n"
    );
    fs::write(path.join("wg7.conf"), hub).unwrap();
    let import = ["import", "wg-quick", "wg7.conf", "--output", "out.toml", "--device", "lo"];
    let (code, out, err) = run(path, &import);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("2 devices in out.toml, 2 keys in files beside it"), "{out}");
    assert!(err.contains("wg7.conf:2: Address 10.44.0.1/24"), "{err}");
    assert!(err.contains("wg7.conf:7: PostUp was not carried over"), "{err}");
    assert!(!err.contains(PRIVATE) && !err.contains(PSK));
    for (name, key) in [("wg7.key", PRIVATE), ("anna.psk", PSK)] {
        assert_eq!(fs::read_to_string(path.join(name)).unwrap().trim(), key);
        let mode = fs::metadata(path.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let (code, out, err) = run(path, &["check", "out.toml"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("out.toml: 2 devices"), "{out}");

    let text = fs::read_to_string(path.join("out.toml")).unwrap();
    let client = "[wireguard.wg7.client]\n";
    let text = text.replace(client, &format!("{client}endpoint = \"vpn.example.com:51820\"\n"));
    fs::write(path.join("out.toml"), text).unwrap();
    let private: bulkhead_wg::PrivateKey = PRIVATE.parse().unwrap();
    let public = private.public_key();
    for (device, address, psk) in [
        ("anna", "10.44.0.7/32", format!("PresharedKey = {PSK}\n")),
        ("bert", "10.44.0.8/32, fd44::8/128", String::new()),
    ] {
        let (code, out, err) = run(path, &["--config", "out.toml", "device", "export", device]);
        assert_eq!(code, 0, "{err}");
        let want = format!(
            "Address = {address}\nDNS = 10.44.0.53\nMTU = 1400\n\n[Peer]\nPublicKey = {public}\n{psk}\
             Endpoint = vpn.example.com:51820\nAllowedIPs = 10.44.0.0/24\n"
        );
        assert!(out.ends_with(&want), "{out}");
    }
    // And nothing is written over.
    let (code, _, err) = run(path, &import);
    assert_eq!(code, 1);
    assert!(err.contains("wg7.key: File exists"), "{err}");
}

#[test]
fn without_an_output_the_configuration_is_printed_and_no_key_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("wg0.conf"), format!("[Interface]\nPrivateKey = {PRIVATE}\n")).unwrap();
    let (code, out, err) = run(path, &["import", "wg-quick", "wg0.conf"]);
    assert_eq!(code, 0);
    assert!(out.contains("private_key_file = \"wg0.key\"") && !out.contains(PRIVATE), "{out}");
    assert!(err.contains("without --output no key file is written: wg0.key"), "{err}");
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    let (code, _, err) = run(path, &["import", "wg-quick", "absent.conf"]);
    assert_eq!((code, err.contains("absent.conf: No such file")), (1, true), "{err}");
}

#[test]
fn what_check_would_refuse_leaves_no_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("wg0.conf"), "[Interface]\nPrivateKey = nonsense\n").unwrap();
    let (code, _, err) = run(path, &["import", "wg-quick", "wg0.conf", "--output", "out.toml"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("out.toml:") && !err.contains("nonsense"), "{err}");
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
}
