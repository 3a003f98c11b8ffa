use super::*;

const HUB: &str = "\
# Our hub
[Interface]
Address = 10.44.0.1/24, fd44::1/64
PrivateKey = YKXWIpzkTiUBBDxCRZ4F/BsgSp9u0CnbHWe5nrOkm04=
ListenPort = 51821
MTU = 1412
DNS = 10.20.1.53, corp.example
PostUp = iptables -A FORWARD -i %i -j ACCEPT
Table = off
SaveConfig = true
FwMark = 0xca6c
Colour = red

# Anna's laptop
[Peer]
PublicKey = uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=  # new
PresharedKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
AllowedIPs = 10.44.0.7/32, 10.44.0.9
PersistentKeepalive = 25

[Peer]
# Anna's laptop
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
Endpoint = site.example.com:51820
AllowedIPs = 10.44.0.9/32, 10.50.0.1/24
PersistentKeepalive = off

[Peer]
PublicKey = aCIhxGZbgPoZqSJWlqTjaVcQ9Vi1TP3MgwyFIVsIbBc=
Endpoint = site example
AllowedIPs = 0.0.0.0/0
";

/// Golden: what an operator reads after an import.
#[test]
fn every_line_that_cannot_be_carried_over_is_said_with_its_number() {
    let notes: Vec<_> = wg_quick(HUB, "wg0", "eth0")
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.line, note.text))
        .collect();
    let address = "the gateway has no address inside the tunnel";
    let want = [
        &format!(
            "3: Address 10.44.0.1/24: {address}; 10.44.0.0/24 became the pool for new devices, \
             and 10.44.0.1 is free for one"
        ),
        &format!(
            "3: Address fd44::1/64: {address}; fd44::/64 became the pool for new devices, and \
             fd44::1 is free for one"
        ),
        "7: DNS corp.example: a search domain, which devices' files do not get; add it on the devices",
        "8: PostUp was not carried over: Bulkhead runs no commands. Forwarding needs none; write \
         firewall rules as [[rule]], and do NAT elsewhere",
        "9: Table was not carried over: Bulkhead routes by itself, not by the kernel's tables",
        "10: SaveConfig was not carried over: the configuration file is only changed by people and by \
         bulkhead device and key",
        "11: FwMark was not carried over: outer packets do not pass the kernel's routing",
        "12: colour is not a key of [Interface]; left out",
        "15: AllowedIPs 10.44.0.9/32: a later peer has it too, and wg gives it to the last; left out \
         here",
        "25: AllowedIPs 10.50.0.1/24: became 10.50.0.0/24",
        "28: a [Peer] without AllowedIPs of its own could send nothing; left out",
        "30: Endpoint site example: not HOST:PORT; left out",
        "31: AllowedIPs 0.0.0.0/0 was not carried over: no single device may be everybody; write the \
         networks behind it",
    ];
    assert_eq!(notes, want);
}

#[test]
fn a_hub_becomes_a_listener_and_its_devices_and_no_key_is_in_the_configuration() {
    let out = wg_quick(HUB, "wg0", "eth0");
    let want = "[port.outside]\ndevice = \"eth0\"\n\n\
        [wireguard.wg0]\nport = \"outside\"\nlisten_port = 51821\nprivate_key_file = \"wg0.key\"\n\
        mtu = 1412\n\n[wireguard.wg0.client]\ndns = [\"10.20.1.53\"]\n\
        pool = [\"10.44.0.0/24\", \"fd44::/64\"]\n\n\
        [device.Anna-s-laptop]\npublic_key = \"uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=\"\n\
        preshared_key_file = \"Anna-s-laptop.psk\"\naddresses = [\"10.44.0.7/32\"]\n\
        keepalive = \"25s\"\n\n\
        [device.Anna-s-laptop-2]\npublic_key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"\n\
        addresses = [\"10.44.0.9/32\", \"10.50.0.0/24\"]\nendpoint = \"site.example.com:51820\"\n";
    assert!(out.toml.ends_with(want), "{}", out.toml);
    assert_eq!(out.devices, 2);
    let keys: Vec<_> =
        out.keys.iter().map(|(name, key)| (name.as_str(), key.get(..4).unwrap())).collect();
    assert_eq!(keys, [("wg0.key", "YKXW"), ("Anna-s-laptop.psk", "dwdt")]);
    assert!(out.keys.iter().all(|(_, key)| !out.toml.contains(key.as_str())));
}

proptest::proptest! {
    /// What people have in their files is read or noted, and no secret is quoted.
    #[test]
    fn any_text_is_read_and_every_line_of_it_leaves_something(
        lines in proptest::collection::vec(
            proptest::sample::select(HUB.lines().chain(["PrivateKey", "= =", "[", "x=y"]).collect::<Vec<_>>()),
            0..40,
        ),
    ) {
        let out = wg_quick(&lines.join("\n"), "wg0", "eth0");
        for note in &out.notes {
            proptest::prop_assert!(!note.text.contains("YKXW") && !note.text.contains("dwdt"));
        }
        let config: toml_edit::DocumentMut = out.toml.parse().unwrap();
        let devices = config.get("device").and_then(|all| all.as_table()).map_or(0, |all| all.len());
        proptest::prop_assert_eq!(devices, out.devices);
    }
}
