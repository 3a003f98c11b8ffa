use super::*;
use std::io::BufReader;
use std::sync::Arc;

use bulkhead_link::{Counted, Peer, PeerPast, SessionIndex, SessionStatus};
use bulkhead_wg::{PrivateKey, PublicKey};

use crate::intent::{Device, Intent, Shows};

fn wishes(mut text: &[u8]) -> Vec<Wish> {
    std::iter::from_fn(|| read_wish(&mut text).unwrap()).collect()
}

#[test]
fn wishes_are_told_apart_by_their_first_bytes() {
    use Wish::{Get, Nonsense, Set};
    for (text, want) in [
        (&b""[..], vec![]),
        (b"get=1\n\n", vec![Get]),
        (b"get=1\n\nget=1\n\n", vec![Get, Get]),
        (b"set=1\nprivate_key=00\n\n", vec![Set]),
        (b"set=1\n\nget=1\n\n", vec![Set, Get]),
        // Cut off: a question that is not whole is none.
        (b"get=1\n", vec![Nonsense]),
        (b"set=1\n", vec![Nonsense]),
        (b"get=2\n\n", vec![Nonsense]),
        (b"get=1\nall=1\n\n", vec![Nonsense]),
        (b"\nget=1\n\n", vec![Nonsense]),
        (b"GET / HTTP/1.1\r\n\r\n", vec![Nonsense]),
        (b"\xff\xfe\n\n", vec![Nonsense]),
        (b"\n\n", vec![Nonsense]),
    ] {
        assert_eq!(wishes(text), want, "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn requests_are_read_alike_however_they_arrive_and_to_a_bound() {
    let set = [b"set=1\n".as_slice(), &b"public_key=00\n".repeat(1_000), b"\n"].concat();
    for capacity in [1, 2, 3, 7, 4_096] {
        let text = [&set[..], b"get=1\n\n"].concat();
        let mut reader = BufReader::with_capacity(capacity, &text[..]);
        assert_eq!(read_wish(&mut reader).unwrap(), Some(Wish::Set));
        assert_eq!(read_wish(&mut reader).unwrap(), Some(Wish::Get));
        assert_eq!(read_wish(&mut reader).unwrap(), None);
    }
    let endless = vec![b'x'; REQUEST_MAX + 5];
    let mut rest = &endless[..];
    assert_eq!(read_wish(&mut rest).unwrap(), Some(Wish::TooLong));
    assert_eq!(rest.len(), 5, "not a byte more than the bound");
}

#[test]
fn a_change_is_refused_as_wg_expects_it() {
    // Positive numbers are "Protocol error" to wg, and so is any number in answer to a question.
    assert_eq!(refusal(Wish::Set), Some("errno=-30\n\n"));
    assert_eq!(refusal(Wish::TooLong), Some("errno=-30\n\n"));
    assert_eq!(refusal(Wish::Nonsense), Some("errno=-22\n\n"));
    assert_eq!(refusal(Wish::Get), None);
}

/// A listener with two devices, of which the first has a session and one that ended.
fn figures() -> Figures {
    let device = |name: &str, key: u8, psk: u8| Device {
        name: name.to_owned(),
        user: None,
        public_key: PublicKey([key; 32]),
        preshared_key: PresharedKey::from_bytes([psk; 32]),
        addresses: vec![format!("10.44.0.{key}/32"), format!("fd44::{key}/128")],
        listener: None,
        endpoint: None,
        endpoint_name: None,
        keepalive: (psk > 0).then_some(Duration::from_secs(25)),
    };
    let devices = vec![device("anna", 1, 0xab), device("bert", 2, 0)];
    let session = |age, bytes, endpoint: Option<&str>| SessionStatus {
        peer: 7,
        index: SessionIndex::new(1, 0, 3),
        listener: Intent::empty().listeners[0].private.public_key().0,
        age: Duration::from_millis(age),
        initiator: false,
        confirmed: true,
        endpoint: endpoint.map(|remote| bulkhead_link::Endpoint {
            remote: remote.parse().unwrap(),
            local: "192.0.2.1:51820".parse().unwrap(),
            port: 0,
            vlan: None,
            remote_mac: [2; 6],
            local_mac: [4; 6],
        }),
        received: Counted { packets: 1, bytes },
        sent: Counted { packets: 2, bytes: 2 * bytes },
        silent_for: None,
        accepted: 9,
        expected: 10,
    };
    let counted = Counted { packets: 1, bytes: 1_000 };
    let handshake_age = Duration::from_secs(200);
    let past = [PeerPast { peer: 7, handshake_age, received: counted, sent: counted }];
    let peer = Peer { index: 7, public_key: [1; 32], keepalive: None };
    let announced = [(PublicKey([1; 32]), peer)].into();
    let sessions =
        [session(90_000, 10, Some("[2001:db8::7]:2")), session(1_500, 1, Some("[2001:db8::7]:1"))];
    let intent = Intent { devices, ..Intent::empty() };
    Figures::new(Arc::new(intent), &announced, &sessions, &past)
}

fn told(private_key: bool, preshared_keys: bool) -> String {
    let mut listener = Intent::empty().listeners.remove(0);
    listener.private = PrivateKey::from_bytes([0x5c; 32]);
    listener.shows = Shows { private_key, preshared_keys };
    let mut text = vec![];
    write_listener(&mut text, &listener, &figures(), Duration::from_millis(1_000_000_250)).unwrap();
    String::from_utf8(text).unwrap()
}

/// Handshakes are told in seconds since the epoch. boringtun tells seconds since the handshake, which
/// `wg show` takes for the year 1970.
#[test]
fn a_listing_is_what_the_protocol_says_and_hides_every_secret() {
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let want = format!(
        "listen_port=51820\n\
         public_key={one}\nendpoint=[2001:db8::7]:1\npersistent_keepalive_interval=25\n\
         allowed_ip=10.44.0.1/32\nallowed_ip=fd44::1/128\n\
         last_handshake_time_sec=999998\nlast_handshake_time_nsec=750000000\n\
         rx_bytes=1011\ntx_bytes=1022\nprotocol_version=1\n\
         public_key={two}\npersistent_keepalive_interval=0\n\
         allowed_ip=10.44.0.2/32\nallowed_ip=fd44::2/128\n\
         last_handshake_time_sec=0\nlast_handshake_time_nsec=0\n\
         rx_bytes=0\ntx_bytes=0\nprotocol_version=1\n\
         errno=0\n\n"
    );
    assert_eq!(told(false, false), want);
}

#[test]
fn secrets_are_told_only_if_the_operator_allows_each() {
    let key = format!("private_key={}\n", "5c".repeat(32));
    let psk = format!("public_key={}\npreshared_key={}\n", "01".repeat(32), "ab".repeat(32));
    assert!(told(true, false).starts_with(&key) && !told(true, false).contains("preshared_key"));
    assert!(told(false, true).contains(&psk) && !told(false, true).contains("private_key"));
    let both = told(true, true);
    assert!(both.starts_with(&key) && both.contains(&psk));
    assert_eq!(both.matches("preshared_key").count(), 1, "bert has none");
}

#[test]
fn the_local_api_says_the_same_with_the_loss() {
    let answer = figures().answer();
    let [anna, bert] = answer.peers.as_slice() else { panic!("{answer:?}") };
    assert_eq!((anna.handshake_age_ms, anna.session_age_ms), (Some(1_500), Some(1_500)));
    assert_eq!((anna.received_bytes, anna.received_packets), (1_011, 3));
    assert_eq!((anna.sent_bytes, anna.sent_packets), (1_022, 5));
    assert_eq!((anna.worker, anna.endpoint.as_deref()), (Some(1), Some("[2001:db8::7]:1")));
    let loss = anna.loss.unwrap();
    assert_eq!((loss.accepted, loss.expected), (18, 20));
    assert_eq!((anna.listener.as_deref(), &bert.listener), (Some("w"), &None));
    assert_eq!((bert.handshake_age_ms, bert.loss, bert.worker), (None, None, None));
}
