use super::*;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use bulkhead_table::Service;
use bulkhead_wg::{
    Cookie, Pending, PresharedKey, PrivateKey, PublicKey, Responder, Tai64n, initiate,
};
use bulkhead_wire::{Address, Ethernet, IpPacket};

use crate::handoff::Command;
use crate::limits::{HANDSHAKE_RING, HANDSHAKES_MAX, HANDSHAKES_UNDER_LOAD};
use crate::rig::{
    LISTEN, OUTSIDE, Rig, datagram, draft, outer_place, own_address, peer_address, udp,
};

const PSK: [u8; 32] = [0x77; 32];

fn gateway_key() -> PrivateKey {
    PrivateKey::from_bytes([9; 32])
}

/// A gateway that listens with a key whose private half we have.
fn gateway(workers: usize, dark: bool) -> Rig {
    let mut rig = Rig::new(workers, 2);
    rig.listen_as(&[(LISTEN, gateway_key().public_key().0)], dark);
    rig
}

/// Puts the gateway under load, as a control process that owes so many messages does.
fn load(rig: &Rig) {
    rig.defences.load.handed(HANDSHAKES_UNDER_LOAD);
}

/// An initiator of this project.
struct Device {
    private: PrivateKey,
    made: u8,
    cookie: Option<Cookie>,
}

impl Device {
    fn new(n: u8) -> Self {
        Self { private: PrivateKey::from_bytes([n; 32]), made: 0, cookie: None }
    }

    fn initiation(&mut self) -> ([u8; 148], Pending) {
        self.made += 1;
        let to: PublicKey = gateway_key().public_key();
        let (psk, stamp) = (PresharedKey::from_bytes(PSK), Tai64n::default());
        let entropy = [self.made; 32];
        let (mut message, pending) =
            initiate(&self.private, &to, &psk, 0x55, stamp, &entropy).unwrap();
        if let Some(cookie) = &self.cookie {
            cookie.stamp(&mut message);
        }
        (message, pending)
    }

    /// Sends an initiation and takes the cookie that is owed for it.
    fn fetch_cookie(&mut self, rig: &mut Rig, worker: usize, place: &Place) {
        let (message, mut pending) = self.initiation();
        send(rig, worker, place, &message);
        self.cookie = Some(pending.cookie(&only_reply(rig, place)).unwrap());
    }
}

fn send(rig: &mut Rig, worker: usize, place: &Place, payload: &[u8]) {
    assert!(rig.deliver(worker, OUTSIDE, &datagram(place, payload, 0)));
    rig.run();
}

/// The UDP payload of the only frame that was sent, once all of its headers are right.
fn only_reply(rig: &mut Rig, place: &Place) -> Vec<u8> {
    let sent = rig.sent(OUTSIDE);
    assert_eq!(sent.len(), 1, "one frame leaves");
    payload_to(&sent[0], place)
}

fn payload_to(frame: &[u8], place: &Place) -> Vec<u8> {
    let ethernet = Ethernet::parse(frame).unwrap();
    assert_eq!((ethernet.destination.0, ethernet.source.0), (place.remote_mac, place.local_mac));
    assert_eq!(ethernet.vlan, (place.vlan != 0).then_some(place.vlan));
    let ip = &frame[ethernet.len..];
    // Checks the header's checksum as well.
    let packet = IpPacket::parse(ip).unwrap();
    assert_eq!((packet.source, packet.destination), (place.local, place.remote));
    assert_eq!(usize::from(packet.len), ip.len(), "no bytes behind it");
    let udp = &ip[usize::from(packet.transport_at)..];
    let ports = [place.local_port.to_be_bytes(), place.remote_port.to_be_bytes()].concat();
    assert_eq!(udp[..4], ports);
    assert_eq!(udp[4..6], [0, u8::try_from(udp.len()).unwrap()]);
    let checksum = &udp[6..8];
    if place.remote.is_ipv4() {
        assert_eq!(checksum, [0, 0], "none (RFC 768)");
    } else {
        assert_ne!(checksum, [0, 0]);
        assert_eq!(ones_sum(&ip[8..40], udp), 0xffff, "RFC 8200 §8.1");
    }
    udp[8..].to_vec()
}

/// The sum over pseudo header and datagram, the slow way: 0xffff if the checksum is right.
fn ones_sum(addresses: &[u8], udp: &[u8]) -> u32 {
    let words = addresses.chunks(2).chain(udp.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let sum = sum + 17 + u32::try_from(udp.len()).unwrap();
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

fn elsewhere(n: u32) -> Place {
    let mut place = outer_place(0, false);
    place.remote = Address::from(std::net::Ipv4Addr::from(0x0b00_0000 + n));
    place
}

/// The whole table: load, cookie, what is left in the bucket, and a dark listener.
#[test]
fn what_becomes_of_a_message_whose_mac1_is_right() {
    use End::{CookieReply, DropDark, DropHandshakeRate, Handshake};
    // under load, with a cookie, bucket spent │ end, and on a dark listener
    let table = [
        (false, false, false, Handshake, Handshake),
        (false, false, true, CookieReply, DropHandshakeRate),
        (false, true, false, Handshake, Handshake),
        (false, true, true, DropHandshakeRate, DropHandshakeRate),
        (true, false, false, CookieReply, DropDark),
        (true, false, true, CookieReply, DropDark),
        (true, true, false, Handshake, Handshake),
        (true, true, true, DropHandshakeRate, DropHandshakeRate),
    ];
    for (under_load, cookie, spent, lit_end, dark_end) in table {
        for dark in [false, true] {
            let mut rig = gateway(1, false);
            let place = outer_place(0, false);
            let mut device = Device::new(2);
            load(&rig);
            device.fetch_cookie(&mut rig, 0, &place);
            if !cookie {
                device.cookie = None;
            }
            rig.listen_as(&[(LISTEN, gateway_key().public_key().0)], dark);
            if !under_load {
                rig.defences.load.finished(HANDSHAKES_UNDER_LOAD);
                rig.pass(1_000);
            }
            for purpose in [Purpose::Unproven, Purpose::Proven].iter().filter(|_| spent) {
                while rig.defences.buckets.take(*purpose, place.remote, rig.now_ms) {}
            }
            let want = if dark { dark_end } else { lit_end };
            let before = rig.ended(want);
            send(&mut rig, 0, &place, &device.initiation().0);
            let row = (under_load, cookie, spent, dark);
            assert_eq!(rig.ended(want) - before, 1, "{row:?}: {:?}", rig.status().ends());
            assert_eq!(rig.sent(OUTSIDE).len(), usize::from(want == CookieReply), "{row:?}");
        }
    }
}

/// Goal: the conversation of the whitepaper's §5.4.7 with the initiator of this project, over both
/// families and a VLAN, until both sides have the same keys.
#[test]
fn under_load_a_peer_gets_a_cookie_and_connects_with_it() {
    for (v6, vlan) in [(false, 0), (true, 0), (false, 7)] {
        let mut rig = gateway(2, false);
        let mut place = outer_place(0, v6);
        place.vlan = vlan;
        load(&rig);
        let mut device = Device::new(2);
        let (message, mut pending) = device.initiation();
        let frame = tagged(datagram(&place, &message, 0), vlan);
        assert!(rig.deliver(0, OUTSIDE, &frame));
        rig.run();
        assert!(rig.handshakes.is_empty());
        let reply = only_reply(&mut rig, &place);
        assert_eq!(reply.len(), 64);
        device.cookie = Some(pending.cookie(&reply).unwrap());

        // The other worker honours it.
        let (message, mut pending) = device.initiation();
        assert!(rig.deliver(1, OUTSIDE, &tagged(datagram(&place, &message, 0), vlan)));
        rig.run();
        assert!(rig.sent(OUTSIDE).is_empty());
        let (response, keys) = answered(&rig, &device);
        let theirs = pending.consume(&response).unwrap();
        assert_eq!((theirs.send, theirs.receive), (keys.receive, keys.send));
        assert_eq!((rig.ended(End::CookieReply), rig.ended(End::Handshake)), (1, 1));
    }
}

/// What control answers to the last message that reached it.
fn answered(rig: &Rig, device: &Device) -> ([u8; 92], bulkhead_wg::TransportKeys) {
    let handshake = rig.handshakes.last().unwrap();
    let initiation = Responder::new(&gateway_key()).consume(handshake.bytes()).unwrap();
    assert_eq!(initiation.peer, device.private.public_key());
    initiation.respond(&PresharedKey::from_bytes(PSK), 7, &[0x31; 32]).unwrap()
}

fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    if vlan != 0 {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
    }
    frame
}

/// The same with boringtun as the peer: an implementation that shares no protocol code with ours.
#[test]
fn under_load_boringtun_gets_a_cookie_and_connects_with_it() {
    let mut rig = gateway(1, false);
    let place = outer_place(0, true);
    let device = Device::new(2);
    let mut tunn = Tunn::new(
        x25519::StaticSecret::from(*device.private.expose()),
        x25519::PublicKey::from(gateway_key().public_key().0),
        Some(PSK),
        None,
        0x0b_0c0d,
        None,
    );
    load(&rig);
    let mut room = [0; 2_048];
    let mut tell = |tunn: &mut Tunn, message: &[u8]| -> Vec<u8> {
        match tunn.decapsulate(Some([192, 0, 2, 1].into()), message, &mut room) {
            TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
            TunnResult::Done => vec![],
            other @ (TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..)) => panic!("{other:?}"),
        }
    };
    let initiation = |tunn: &mut Tunn| {
        let mut room = [0; 2_048];
        match tunn.format_handshake_initiation(&mut room, true) {
            TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
            other @ (TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..)) => panic!("{other:?}"),
        }
    };
    let first = initiation(&mut tunn);
    send(&mut rig, 0, &place, &first);
    let reply = only_reply(&mut rig, &place);
    assert!(tell(&mut tunn, &reply).is_empty());
    let second = initiation(&mut tunn);
    send(&mut rig, 0, &place, &second);
    assert_eq!((rig.ended(End::CookieReply), rig.ended(End::Handshake)), (1, 1));
    let (response, _) = answered(&rig, &device);
    // Its first data packet confirms the session.
    assert_eq!(tell(&mut tunn, &response)[0], 4);
}

#[test]
fn a_dark_listener_answers_nobody() {
    let mut rig = gateway(1, true);
    load(&rig);
    let mut device = Device::new(2);
    for n in 0..100 {
        let message = device.initiation().0;
        send(&mut rig, 0, &elsewhere(n), &message);
    }
    assert!(rig.sent(OUTSIDE).is_empty() && rig.handshakes.is_empty());
    assert_eq!(rig.ended(End::DropDark), 100);
}

/// Goal: whoever writes a peer's address into his messages does not keep it out, with and without
/// load. Method: a thousand messages in its name for each of its own.
#[test]
fn a_spoofed_flood_does_not_stop_the_real_source() {
    for loaded in [false, true] {
        let mut rig = gateway(1, false);
        let place = outer_place(0, false);
        if loaded {
            load(&rig);
        }
        let (mut device, mut attacker) = (Device::new(2), Device::new(3));
        let spoofed = attacker.initiation().0;
        let flood = |rig: &mut Rig| {
            for _ in 0..20 {
                rig.pass(10);
                for _ in 0..50 {
                    assert!(rig.deliver(0, OUTSIDE, &datagram(&place, &spoofed, 0)));
                }
                rig.run();
                rig.sent(OUTSIDE);
            }
        };
        flood(&mut rig);
        device.fetch_cookie(&mut rig, 0, &place);
        flood(&mut rig);
        let before = rig.handshakes.len();
        send(&mut rig, 0, &place, &device.initiation().0);
        assert_eq!(rig.handshakes.len(), before + 1, "loaded {loaded}");
        let _ = answered(&rig, &device);
        // And what the flood got through is what one source may: 20 a second.
        let most = if loaded { 1 } else { 5 + 9 + 1 };
        assert!(rig.handshakes.len() <= most, "{} of the flood", rig.handshakes.len() - 1);
    }
}

#[test]
fn a_cookie_is_honoured_across_one_change_of_secrets() {
    let mut rig = gateway(2, false);
    let place = outer_place(0, false);
    load(&rig);
    let mut device = Device::new(2);
    device.fetch_cookie(&mut rig, 0, &place);
    let mut secrets = rig.defences.secrets();
    for (round, end) in [(1, End::Handshake), (2, End::CookieReply)] {
        secrets = Arc::new(secrets.renewed([round; 32]));
        rig.tell_all(|_| Command::Cookies(Arc::clone(&secrets)));
        let before = rig.ended(end);
        send(&mut rig, 1, &place, &device.initiation().0);
        assert_eq!(rig.ended(end) - before, 1, "round {round}");
    }
}

/// Goal: a control process that is slow, hangs or is dead makes cookies, never a blocked worker.
/// Method: nobody takes messages out of the rings; a tunnel goes on.
#[test]
fn a_dead_control_process_makes_cookies_and_never_a_blocked_worker() {
    let mut rig = gateway(1, false);
    rig.publish(&draft(1, 2, &[(1, 2, Service::udp(5000), Service::udp(5000))]));
    let (mut laptop, mut server) =
        (rig.session(0, 0, false, false), rig.session(1, 0, false, false));
    for hello in [laptop.seal(&[]), server.seal(&[])] {
        rig.deliver(0, OUTSIDE, &hello);
        rig.run();
    }
    let message = Device::new(2).initiation().0;
    let mut replies = 0;
    for n in 0..600 {
        assert!(rig.deliver(0, OUTSIDE, &datagram(&elsewhere(n), &message, 0)));
        let data = udp(peer_address(0, false), peer_address(1, false), (1, 5000), 100);
        assert!(rig.deliver(0, OUTSIDE, &laptop.seal(&data)));
        // Not `run`, which takes the messages.
        rig.workers[0].turn(rig.now_ms);
        rig.workers[0].sockets_mut()[0]
            .socket
            .collect(|frame| replies += usize::from(frame.len() == 14 + 28 + 64));
        rig.workers[0].turn(rig.now_ms);
    }
    let handed = HANDSHAKES_UNDER_LOAD;
    assert_eq!((rig.ended(End::Handshake), rig.ended(End::CookieReply)), (handed, 600 - handed));
    assert_eq!(replies as u64, 600 - handed);
    assert_eq!(rig.ended(End::Forwarded), 600, "the tunnel goes on");

    // Who has a cookie finds room, until there is none at all.
    rig.defences.load.handed(HANDSHAKES_MAX - handed - 1);
    let mut device = Device::new(4);
    let place = outer_place(0, false);
    let (first, mut pending) = device.initiation();
    rig.deliver(0, OUTSIDE, &datagram(&place, &first, 0));
    rig.workers[0].turn(rig.now_ms);
    let mut reply = vec![];
    rig.workers[0].sockets_mut()[0].socket.collect(|frame| reply = payload_to(frame, &place));
    device.cookie = Some(pending.cookie(&reply).unwrap());
    for _ in 0..2 {
        let message = device.initiation().0;
        rig.deliver(0, OUTSIDE, &datagram(&place, &message, 0));
        rig.workers[0].turn(rig.now_ms);
    }
    assert_eq!(rig.ended(End::Handshake), handed + 1);
    assert_eq!(rig.ended(End::DropHandshakeQueueFull), 1);
    const { assert!(HANDSHAKE_RING as u64 > HANDSHAKES_UNDER_LOAD) };
}

/// Responses and cookie replies are asked for, or they are not looked at.
#[test]
fn what_nobody_asked_for_does_not_reach_control() {
    let mut rig = gateway(1, false);
    let place = outer_place(0, false);
    let reply = |index: u32| {
        let mut reply = [0x5a; 64];
        reply[..4].copy_from_slice(&[3, 0, 0, 0]);
        reply[4..8].copy_from_slice(&index.to_le_bytes());
        reply
    };
    // The second worker and the 4,097th slot do not exist.
    for index in [1 << 26, 4_096, u32::MAX] {
        send(&mut rig, 0, &place, &reply(index));
        send(&mut rig, 0, &place, &response_to(index));
    }
    assert_eq!(rig.ended(End::DropUnasked), 6);
    send(&mut rig, 0, &place, &reply(4_095));
    send(&mut rig, 0, &place, &response_to(4_095));
    assert_eq!(rig.handshakes.len(), 2);
    let mut forged = response_to(4_095);
    forged[70] ^= 1;
    send(&mut rig, 0, &place, &forged);
    assert_eq!(rig.ended(End::DropMac1), 1);
}

/// A response with a right MAC1 from somebody who knows our public key.
fn response_to(index: u32) -> [u8; 92] {
    let device = PrivateKey::from_bytes([2; 32]);
    let to = device.public_key();
    let psk = PresharedKey::default();
    let (initiation, _) =
        initiate(&gateway_key(), &to, &psk, index, Tai64n::default(), &[1; 32]).unwrap();
    let initiation = Responder::new(&device).consume(&initiation).unwrap();
    initiation.respond(&psk, 9, &[2; 32]).unwrap().0
}

#[test]
fn cookie_replies_of_others_are_bounded_for_each_source_and_in_all() {
    let mut rig = gateway(1, false);
    let mut reply = [0; 64];
    reply[0] = 3;
    for _ in 0..20 {
        send(&mut rig, 0, &elsewhere(1), &reply);
    }
    assert_eq!(rig.handshakes.len(), 5, "one source");
    for n in 0..1_000 {
        send(&mut rig, 0, &elsewhere(n + 2), &reply);
    }
    assert_eq!(rig.handshakes.len(), usize::try_from(COOKIES_BURST).unwrap(), "all sources");
    assert_eq!(rig.ended(End::DropHandshakeRate), 1_020 - COOKIES_BURST);
}

#[test]
fn cookie_replies_are_smaller_than_what_they_answer_and_bounded() {
    let mut rig = gateway(1, false);
    load(&rig);
    let message = Device::new(2).initiation().0;
    for n in 0..1_000 {
        send(&mut rig, 0, &elsewhere(n), &message);
        let frames = rig.sent(OUTSIDE);
        let received = datagram(&elsewhere(n), &message, 0).len();
        assert!(frames.iter().all(|frame| frame.len() < received) && frames.len() <= 1);
    }
    assert_eq!(rig.ended(End::CookieReply), COOKIE_REPLIES_BURST);
    assert_eq!(rig.ended(End::DropCookieRate), 1_000 - COOKIE_REPLIES_BURST);
}

#[test]
fn an_answer_goes_to_one_host_or_to_nobody() {
    let mut rig = gateway(1, false);
    load(&rig);
    let message = Device::new(2).initiation().0;
    let mut own = outer_place(0, false);
    own.remote = own_address(false);
    let mut group = outer_place(0, false);
    group.remote_mac = [1, 0, 0x5e, 0, 0, 1];
    let mut nowhere = outer_place(0, false);
    nowhere.remote_port = 0;
    for place in [own, group, nowhere] {
        send(&mut rig, 0, &place, &message);
    }
    assert!(rig.sent(OUTSIDE).is_empty());
    assert_eq!(rig.ended(End::DropOuterMalformed), 3);
}
