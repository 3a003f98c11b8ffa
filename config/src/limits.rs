//! Every limit of the file, and how they relate.
//!
//! Defaults and limits stand here and nowhere else; `default.toml` quotes them, and a test holds
//! the two equal.

use core::ops::RangeInclusive;
use core::time::Duration;

/// Bytes of a configuration file. 100,000 devices need about 20 MB; a larger file is a mistake.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Mistakes that one report holds. A file of the wrong kind makes one per line, and nobody reads
/// more than this.
pub const ERRORS_MAX: usize = 200;

/// Bytes of a key file. A key is 44 characters and a newline; the rest is room for blanks.
pub const KEY_FILE_BYTES_MAX: u64 = 256;

/// Characters of a name.
pub const NAME_CHARS_MAX: usize = 128;

/// Characters of the name of a Linux network device: `IFNAMSIZ` less its NUL.
pub const DEVICE_NAME_MAX: usize = 15;

/// Groups inside groups. An organisation chart has ten levels; more is a slip, and whoever walks the
/// groups may count on the bound.
pub const GROUP_DEPTH_MAX: usize = 32;

/// Bytes of an expression. What a person can read has some hundred.
pub const WHEN_BYTES_MAX: usize = 2_048;

/// Brackets inside brackets in an expression: whoever walks it may count on the bound.
pub const WHEN_DEPTH_MAX: usize = 32;

/// Ports: the table's port index is one byte, and the datapath binds one socket per queue.
pub const PORTS_MAX: usize = 64;

/// Queues of one port. Drivers of 2026 have up to 256.
pub const QUEUES: RangeInclusive<u64> = 1..=256;

/// WireGuard listeners: the XDP program compares UDP ports one by one (datapath/xsk/src/steer.rs).
pub const LISTENERS_MAX: usize = 64;

/// Listeners of one UDP port. A stranger's handshake costs a worker one MAC for each of them: the
/// key of yesterday, of today, of tomorrow, and one to spare.
pub const LISTENERS_PER_UDP_PORT_MAX: usize = 4;

/// Workers; 0 asks for one per queue. The upper limit is what the worker field of a WireGuard
/// receiver index holds (datapath/link/src/index.rs).
pub const WORKERS: RangeInclusive<u64> = 0..=64;

/// Entries of a ring, besides being a power of two. Lower: packets are lost while a worker is
/// busy with one batch. Higher: the rings leave the second-level cache.
pub const RING_ENTRIES: RangeInclusive<u64> = 256..=8_192;

/// Frames of packet memory of one worker: 2 MiB to 2 GiB.
pub const FRAMES_PER_WORKER: RangeInclusive<u64> = 1_024..=1_048_576;

/// Sessions. The upper limit is what the slot field of a receiver index holds.
pub const SESSIONS_MAX: RangeInclusive<u64> = 16..=1_048_576;

/// Sessions that one peer may have at once: the last, the current, and the one being made.
pub const SESSIONS_PER_PEER: u64 = 3;

/// Peers.
pub const PEERS_MAX: RangeInclusive<u64> = 1..=262_144;

/// Flows in the cache of one worker.
pub const FLOWS_PER_WORKER: RangeInclusive<u64> = 1_024..=4_194_304;

/// Flows that one source may open in a second.
pub const NEW_FLOWS_PER_SECOND: RangeInclusive<u64> = 1..=10_000_000;

/// Flows that one source may have open at once.
pub const LIVE_FLOWS_PER_SOURCE: RangeInclusive<u64> = 1..=67_108_864;

/// How long a flow may be silent: up to ten days, twice what Linux grants by default.
pub const FLOW_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(864_000);

/// The flow log's file, mebibytes; with the one before there are twice as many on the disk. A record
/// has some 400 bytes.
pub const FLOW_LOG_SIZE_MIB: RangeInclusive<u64> = 1..=1_048_576;

/// Inner packet size. Below 1,280 there is no IPv6 (RFC 8200 §5); above 1,500 the sealed packet
/// and its headers would not fit the frame of 2,048 bytes that the kernel gives us 1,792 of.
pub const MTU: RangeInclusive<u64> = 1_280..=1_500;

/// Differentiated services code points: six bits (RFC 2474 §3).
pub const DSCP: RangeInclusive<u8> = 0..=63;

/// VLAN identifiers: 0 means "priority only", 4095 is reserved (802.1Q).
pub const VLAN: RangeInclusive<u64> = 1..=4_094;

/// Seconds of a persistent keepalive: what WireGuard's tools accept.
pub const KEEPALIVE_SECONDS: RangeInclusive<u64> = 1..=65_535;

/// The values of keys that are not written. `default.toml` quotes them.
pub mod default {
    /// `gateway.name`
    pub const GATEWAY_NAME: &str = "gateway";
    /// `gateway.workers`
    pub const WORKERS: u64 = 0;
    /// `gateway.frames_per_worker`: with the default rings, three queues per worker and their
    /// packets under way; 16 MiB.
    pub const FRAMES_PER_WORKER: u64 = 8_192;
    /// `gateway.ring_entries`
    pub const RING_ENTRIES: u64 = 2_048;
    /// `gateway.sessions_max`
    pub const SESSIONS_MAX: u64 = 16_384;
    /// `gateway.peers_max`
    pub const PEERS_MAX: u64 = 4_096;
    /// `gateway.flows_per_worker`
    pub const FLOWS_PER_WORKER: u64 = 65_536;
    /// `flows.new_per_second`: a browser opens some hundred at once, a scanner of vulnerabilities
    /// some thousand.
    pub const NEW_FLOWS_PER_SECOND: u64 = 4_096;
    /// `flows.live_per_source`: half of the default `flows_per_worker`.
    pub const LIVE_FLOWS_PER_SOURCE: u64 = 32_768;
    /// `flow_log.file`
    pub const FLOW_LOG_FILE: &str = "flows.jsonl";
    /// `flow_log.size_max_mib`: with the file before some 300,000 records.
    pub const FLOW_LOG_SIZE_MIB: u64 = 64;
    /// `port.NAME.queues`
    pub const QUEUES: u64 = 1;
    /// `wireguard.NAME.listen_port`: the port that WireGuard's documentation uses.
    pub const LISTEN_PORT: u64 = 51_820;
    /// `wireguard.NAME.mtu`: an Ethernet frame of 1,500 less the 80 bytes that IPv6, UDP and
    /// WireGuard add; what wg-quick chooses.
    pub const MTU: u64 = 1_420;
}

const _: () = assert!(default::SESSIONS_MAX >= SESSIONS_PER_PEER * default::PEERS_MAX);
const _: () = assert!(*SESSIONS_MAX.end() >= SESSIONS_PER_PEER * *PEERS_MAX.end());
const _: () = assert!(default::FRAMES_PER_WORKER >= 4 * default::RING_ENTRIES);
// Ethernet with a tag, IPv6, UDP, the data header, padding and tag around the largest packet.
const _: () = assert!(18 + 40 + 8 + 16 + *MTU.end() + 15 + 16 <= 2_048 - 256);
