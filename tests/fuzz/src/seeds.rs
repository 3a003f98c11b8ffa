//! Where a search begins: genuine messages of every kind, cut, lengthened and damaged.

use std::collections::BTreeMap;

use bulkhead_engine::rig;
use bulkhead_link::{End, FlowEvent, FlowRecord, FromDatapath, SessionIndex};
use bulkhead_table::Service;
use bulkhead_wg::Responder;

use crate::handshake::{genuine_cookie_reply, genuine_initiation, genuine_response, keys};

/// A seeded source of damage: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(u64);

impl Random {
    /// A source that begins at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % limit.max(1) as u64).expect("below a usize")
    }
}

/// The bytes with some of them changed, cut off, repeated or added.
#[must_use]
pub fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let value = u8::try_from(random.below(256)).expect("a byte");
        match random.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << (value % 8),
            2 if !bytes.is_empty() => bytes[at] = value,
            3 => bytes.truncate(at),
            4 => bytes.insert(at, value),
            _ => bytes.extend_from_within(at.min(bytes.len())..),
        }
    }
    bytes
}

/// Every committed seed: target, name, bytes.
#[must_use]
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let initiation = genuine_initiation();
    let response = genuine_response(&initiation);
    let cookie = genuine_cookie_reply(&initiation);
    let genuine: [(&str, &[u8]); 3] =
        [("initiation", &initiation), ("response", &response), ("cookie_reply", &cookie)];
    let mut all = vec![];
    for (target, message) in genuine {
        let mut add = |name: &str, bytes: Vec<u8>| all.push((target, name.to_owned(), bytes));
        add("genuine", message.to_vec());
        add("empty", vec![]);
        add("header", message[..4].to_vec());
        add("a-byte-short", message[..message.len() - 1].to_vec());
        add("a-byte-long", [message, &[0]].concat());
        for (name, at) in [("type", 0), ("reserved", 3), ("sender", 4), ("key", 20), ("seal", 50)] {
            let mut bytes = message.to_vec();
            bytes[at] ^= 1;
            add(&format!("flipped-{name}"), bytes);
        }
        let mut zero_key = message.to_vec();
        zero_key[8..44].fill(0);
        add("zero-key", zero_key);
        for (other, bytes) in genuine {
            if other != target {
                add(&format!("a-{other}"), bytes.to_vec());
            }
        }
    }
    all.extend(data().into_iter().map(|(name, bytes)| ("data", name, bytes)));
    all.extend(session());
    all.extend(crate::policy::seeds().into_iter().map(|(name, bytes)| ("policy", name, bytes)));
    all.extend(tables());
    all.extend(configurations());
    all.extend(link());
    all
}

/// Data messages for the session of the world, for none, and all handshake messages.
fn data() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let index = SessionIndex::new(0, 0, 0).0.to_le_bytes();
    let message = |index: [u8; 4], counter: u64, len: usize| {
        let counter = counter.to_le_bytes();
        [&[4, 0, 0, 0][..], &index, &counter, &vec![0x5a; len]].concat()
    };
    for len in [0, 1, 15, 16, 17, 32, 48, 1200] {
        seeds.insert(format!("forged-{len}"), message(index, 0, len));
    }
    for counter in [1, 8191, u64::MAX - 8192, u64::MAX] {
        seeds.insert(format!("forged-counter-{counter:x}"), message(index, counter, 32));
    }
    seeds.insert("no-session".into(), message([7, 0, 0, 0], 0, 32));
    seeds.insert("another-worker".into(), message([0, 0, 0, 0xfc], 0, 32));
    seeds.insert("another-salt".into(), message([0, 0, 0x10, 0], 0, 32));
    seeds.insert("reserved".into(), [&[4, 1, 0, 0][..], &[0; 44]].concat());
    seeds.insert("type-0".into(), vec![0; 48]);
    seeds.insert("type-5".into(), [&[5][..], &[0; 47]].concat());
    seeds.insert("initiation".into(), genuine_initiation().to_vec());
    seeds.insert("empty".into(), vec![]);
    seeds
}

/// Steps: which counter, damage, pause.
fn session() -> Vec<(&'static str, String, Vec<u8>)> {
    let forward: Vec<u8> = [0, 0, 0].repeat(20);
    let replayed: Vec<u8> = [[0, 0, 0, 0], [1, 0, 0, 0]].concat().repeat(8);
    let forged: Vec<u8> = [[0, 0xc5, 9, 0], [0, 0xff, 1, 0]].concat().repeat(8);
    let edges: Vec<u8> = (0..4)
        .flat_map(|edge| [[3, 100, 7, 0, 0].to_vec(), [2, edge, 0, 0].to_vec()].concat())
        .collect();
    let limit: Vec<u8> = [8194u64, 8193, 8192, 8191, 0]
        .into_iter()
        .flat_map(|below| [&[4][..], &(u64::MAX - below).to_le_bytes(), &[0, 0]].concat())
        .collect();
    let expired: Vec<u8> = [0, 0, 0xff].repeat(50);
    [
        ("forward", forward),
        ("replayed", replayed),
        ("forged", forged),
        ("edges", edges),
        ("limit", limit),
        ("expired", expired),
    ]
    .map(|(name, bytes)| ("session", name.to_owned(), bytes))
    .to_vec()
}

fn tables() -> Vec<(&'static str, String, Vec<u8>)> {
    let rules = [(1, 2, Service::udp(53), Service::udp(53))];
    let whole = rig::draft(1, 1, &rules).emit().expect("a good draft");
    // A table is half a megabyte of empty roots; what refuses it stands in front.
    let cut = |len: usize| whole[..len.min(whole.len())].to_vec();
    [0, 1, 64, 128, 129, 192, 256, 4096]
        .map(|len| ("table", format!("cut-{len}"), cut(len)))
        .to_vec()
}

fn configurations() -> Vec<(&'static str, String, Vec<u8>)> {
    let manual = include_bytes!("../../../config/default.toml");
    let texts: [(&str, &[u8]); 7] = [
        ("manual", manual),
        ("empty", b""),
        ("no-schema", b"[gateway]\nname = \"a\"\n"),
        ("bad-toml", b"schema = = 1\n[[[\n"),
        ("wrong-types", b"schema = \"one\"\nrule = 7\ndevice = []\nport = 1.5\n"),
        ("unknown-keys", b"schema = 1\n[gatewya]\n[device.a]\npublik_key = \"\"\n"),
        ("bad-prefix", b"schema = 1\n[segment.s]\nsubnets = [\"10.0.0.1/33\", \"::/129\"]\n"),
    ];
    texts.map(|(name, text)| ("config", name.to_owned(), text.to_vec())).to_vec()
}

fn link() -> Vec<(&'static str, String, Vec<u8>)> {
    let index = SessionIndex::new(1, 2, 3);
    let record = FlowRecord {
        event: FlowEvent::Denied(End::DropNoRule),
        at_s: 9,
        from: [10, 44, 0, 7].into(),
        to: [0xfd20, 0, 0, 0, 0, 0, 0, 5].into(),
        protocol: 6,
        from_port: 4_000,
        to_port: 443,
        tag: 0,
        generation: 1,
    };
    let up = [
        FromDatapath::SessionWanted { peer: 7 },
        FromDatapath::SessionRetired { index },
        FromDatapath::Flows { now_ms: 9_500, wall_ms: 1_796_115_609_500, records: vec![record; 2] },
    ];
    let mut seeds: Vec<_> = up
        .iter()
        .enumerate()
        .map(|(n, message)| {
            let bytes = postcard::to_stdvec(message).expect("it has a form");
            ("link", format!("from-datapath-{n}"), bytes)
        })
        .collect();
    // One for each first byte, which says which message follows.
    for kind in 0..24 {
        seeds.push(("link", format!("kind-{kind}"), [&[kind][..], &[1; 64]].concat()));
    }
    seeds
}

/// Checks that the genuine messages pass, so that a target that refuses everything is seen.
pub fn genuine_are_accepted() {
    let initiation = genuine_initiation();
    let [device, gateway] = keys();
    let accepted = Responder::new(&gateway).consume(&initiation).expect("it is genuine");
    assert_eq!(accepted.peer, device.public_key());
    assert_eq!(genuine_response(&initiation)[0], 2);
    assert_eq!(genuine_cookie_reply(&initiation)[0], 3);
}
