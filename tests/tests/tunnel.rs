//! The foreign clients by themselves: what they do here they also do to the gateway, so a scenario
//! that fails with the gateway between them is the gateway's affair.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::time::Duration;

use bulkhead_tests::probe::{field, http::Content, number};
use bulkhead_tests::{
    Deadline, End, Engine, KeyPair, Look, PeerSettings, RawPort, Tunnel, TunnelSettings, WirePeer,
    World, inner, preshared_key, until,
};

#[test]
fn wireguard_go_and_boringtun_talk_to_each_other() {
    let world = World::new().unwrap();
    let laptop = world.namespace("laptop").unwrap();
    let server = world.namespace("server").unwrap();
    let left = End { namespace: &laptop, device: "eth0", addresses: &["192.0.2.1/24"] };
    let right = End { namespace: &server, device: "eth0", addresses: &["192.0.2.2/24"] };
    world.link(left, right, 2).unwrap();

    let (laptop_key, server_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let psk = preshared_key().unwrap();
    // Both devices have one name: their sockets must not collide.
    let go = Tunnel::start(
        &laptop,
        Engine::WireguardGo,
        &TunnelSettings {
            device: "wg0",
            key: &laptop_key,
            listen_port: Some(40_001),
            addresses: &["10.44.0.1/32", "fd44::1/128"],
            mtu: 1420,
            peers: &[PeerSettings {
                public_key: &server_key.public,
                preshared_key: Some(&psk),
                endpoint: Some("192.0.2.2:51820".parse().unwrap()),
                allowed_ips: &["10.44.0.2/32", "fd44::2/128"],
                keepalive: None,
            }],
        },
    )
    .unwrap();
    let boring = Tunnel::start(
        &server,
        Engine::Boringtun,
        &TunnelSettings {
            device: "wg0",
            key: &server_key,
            listen_port: Some(51_820),
            addresses: &["10.44.0.2/32", "fd44::2/128"],
            mtu: 1420,
            peers: &[PeerSettings {
                public_key: &laptop_key.public,
                preshared_key: Some(&psk),
                endpoint: None,
                allowed_ips: &["10.44.0.1/32", "fd44::1/128"],
                keepalive: None,
            }],
        },
    )
    .unwrap();

    laptop.exec(&["ping", "-c", "2", "-i", "0.05", "-W", "5", "10.44.0.2"]).unwrap();
    laptop.exec(&["ping", "-c", "2", "-i", "0.05", "-W", "5", "fd44::2"]).unwrap();
    go.wait_for_peer(&server_key.public, Deadline::seconds(10)).unwrap();
    let seen = boring.wait_for_peer(&laptop_key.public, Deadline::seconds(10)).unwrap();
    assert_eq!(seen.endpoint, Some("192.0.2.1:40001".parse().unwrap()));

    let content = Content { seed: 5, len: 2_000_000 };
    let _http =
        server.probe_server("http", "http-serve 10.44.0.2:80 --seed 5 --bytes 2000000").unwrap();
    let told = laptop.probe_once("http-get 10.44.0.2:80").unwrap().stdout;
    assert_eq!(number(&told, "bytes"), Some(content.len), "{told}");
    assert_eq!(field(&told, "sha256"), Some(content.sha256().unwrap().as_str()));

    // Roaming: another port, and the next authentic packet moves the endpoint.
    go.set_listen_port(40_002).unwrap();
    laptop.exec(&["ping", "-c", "1", "-W", "5", "10.44.0.2"]).unwrap();
    until(Deadline::seconds(10), "the server to see the new port", || {
        let endpoint = boring.peers()?[0].endpoint;
        Ok(if endpoint == Some("192.0.2.1:40002".parse().unwrap()) {
            Look::Ready(())
        } else {
            Look::NotYet(format!("{endpoint:?}"))
        })
    })
    .unwrap();
}

#[test]
fn a_wire_peer_writes_its_own_inner_packets() {
    let world = World::new().unwrap();
    let laptop = world.namespace("laptop").unwrap();
    let server = world.namespace("server").unwrap();
    let left = End { namespace: &laptop, device: "eth0", addresses: &["2001:db8::1/64"] };
    let right = End { namespace: &server, device: "eth0", addresses: &["2001:db8::2/64"] };
    let link = world.link(left, right, 1).unwrap();
    let [laptop_key, server_key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let settings = TunnelSettings {
        device: "wg0",
        key: &server_key,
        listen_port: Some(51_820),
        addresses: &["10.44.0.2/32"],
        mtu: 1420,
        peers: &[PeerSettings {
            public_key: &laptop_key.public,
            preshared_key: None,
            endpoint: None,
            allowed_ips: &["10.44.0.1/32"],
            keepalive: None,
        }],
    };
    let tunnel = Tunnel::start(&server, Engine::WireguardGo, &settings).unwrap();
    let to = "[2001:db8::2]:51820".parse().unwrap();
    let mut peer = WirePeer::new(&laptop, &laptop_key, &server_key.public, None, to).unwrap();
    assert!(peer.seal(&[]).is_err(), "sealed without a session");
    peer.handshake(Deadline::seconds(10)).unwrap();

    let echo = |from: &str| {
        inner::echo_request(from.parse().unwrap(), "10.44.0.2".parse().unwrap(), 7, 1).unwrap()
    };
    // Not from its allowed address: no answer. Then from it: an echo reply (type 0) with the id.
    peer.send(&echo("10.44.0.9")).unwrap();
    assert_eq!(peer.receive(Deadline::after(Duration::from_millis(300))).unwrap(), None);
    peer.send(&echo("10.44.0.1")).unwrap();
    let reply = peer.receive(Deadline::seconds(10)).unwrap().expect("no reply");
    assert_eq!((&reply[12..16], reply[20], &reply[24..26]), (&[10, 44, 0, 2][..], 0, &[0, 7][..]));

    // A sealed datagram counts once, from wherever it comes first.
    let datagram = peer.seal(&echo("10.44.0.1")).unwrap();
    let before = peer.local_address().unwrap();
    peer.roam().unwrap();
    assert_ne!(peer.local_address().unwrap(), before);
    peer.send_datagram(&datagram).unwrap();
    assert!(peer.receive(Deadline::seconds(10)).unwrap().is_some(), "the peer did not roam");
    let seen = tunnel.peers().unwrap()[0].endpoint.unwrap().port();
    assert_eq!(seen, peer.local_address().unwrap().port());
    peer.send_datagram(&datagram).unwrap();
    assert_eq!(peer.receive(Deadline::after(Duration::from_millis(300))).unwrap(), None);

    // The same cable as bytes: a closed port answers by ICMPv6, and only the other end is heard.
    let mut raw = RawPort::open(&laptop, "eth0").unwrap();
    assert_eq!(raw.address(), link.left);
    let stray = inner::udp(
        "[2001:db8::1]:9".parse().unwrap(),
        "[2001:db8::2]:9".parse().unwrap(),
        b"anybody?",
    )
    .unwrap();
    raw.send(&inner::on_ethernet(link.left, link.right, &stray)).unwrap();
    let frames = raw
        .collect(Deadline::seconds(1), |frame| frame[12..14] == [0x86, 0xdd] && frame[54] == 1)
        .unwrap();
    assert_eq!(frames.len(), 1, "one destination unreachable: {frames:?}");
    assert_eq!(frames[0][6..12], link.right);
    assert!(raw.send(&[0; 4000]).is_err(), "longer than the device allows");
}

#[test]
fn a_client_without_the_key_gets_through_to_nobody() {
    let world = World::new().unwrap();
    let laptop = world.namespace("laptop").unwrap();
    let server = world.namespace("server").unwrap();
    let left = End { namespace: &laptop, device: "eth0", addresses: &["192.0.2.1/24"] };
    let right = End { namespace: &server, device: "eth0", addresses: &["192.0.2.2/24"] };
    world.link(left, right, 1).unwrap();
    let [laptop_key, server_key, other_key] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let start = |namespace, engine, key, peer: &KeyPair, endpoint, address: &str, far: &str| {
        let settings = TunnelSettings {
            device: "wg0",
            key,
            listen_port: Some(51_820),
            addresses: &[address],
            mtu: 1420,
            peers: &[PeerSettings {
                public_key: &peer.public,
                preshared_key: None,
                endpoint,
                allowed_ips: &[far],
                keepalive: None,
            }],
        };
        Tunnel::start(namespace, engine, &settings).unwrap()
    };
    let to = Some("192.0.2.2:51820".parse().unwrap());
    let go = Engine::WireguardGo;
    let (near, far) = ("10.44.0.1/32", "10.44.0.2/32");
    let stranger = start(&laptop, go, &laptop_key, &server_key, to, near, far);
    let knows_another = start(&server, Engine::Boringtun, &server_key, &other_key, None, far, near);
    let ping = ["ping", "-c", "1", "-W", "1", "10.44.0.2"];
    assert_eq!(laptop.output(&ping).unwrap().code, Some(1));
    assert_eq!(stranger.peers().unwrap()[0].latest_handshake, 0);
    assert!(stranger.peers().unwrap()[0].sent_bytes >= 148, "it has not even tried");
    assert_eq!(knows_another.peers().unwrap()[0].received_bytes, 0);
}
