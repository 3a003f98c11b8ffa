//! Every limit of a worker, and how they relate.

/// Packets per batch: what a driver hands over per NAPI poll, and few enough that their headers
/// stay in the first-level cache from stage to stage.
pub const BATCH_MAX: usize = 64;

/// ICMP errors that one worker sends in a second at most.
pub const ERRORS_PER_SECOND: u32 = 100;

/// Resets and ICMP errors about revoked flows that one worker sends in a second at most. Each takes
/// about a microsecond, so this is a hundredth of its time. A flow is answered for as long as a TCP
/// connection lives after RST, so 100,000 flows of one worker hear of it within that time. Apart from
/// [`ERRORS_PER_SECOND`], so that path MTU discovery of others works meanwhile.
pub const REVOCATIONS_PER_SECOND: u32 = 10_000;

/// Packets that one worker holds for want of a session or a neighbour. At 128 a burst of new
/// connections survives a handshake; more would let one dead peer take the packet memory.
pub const HELD_MAX: usize = 128;

/// Of those, for one and the same peer or neighbour: one dead destination cannot starve the rest.
pub const HELD_PER_REASON_MAX: usize = 32;

/// How long a packet waits for a neighbour, milliseconds: three tries of the kernel's ARP.
pub const NEIGHBOUR_WAIT_MS: u64 = 3_000;

/// Neighbours that a worker remembers.
pub const NEIGHBOURS_MAX: usize = 8_192;

/// Packets on their way from one worker to another. A worker that is a whole ring behind is
/// overloaded, and dropping early is kinder than queueing.
pub const HANDOFF_RING: usize = 512;

/// Handshake messages that may be under way to the control process, of all workers together:
/// `MAX_QUEUED_INCOMING_HANDSHAKES` of Linux (`drivers/net/wireguard/messages.h`). At some 100 µs
/// each they are half a second of work: whoever waits longer has sent the next one before.
pub const HANDSHAKES_MAX: u64 = 4_096;

/// Under load from so many on, an eighth as in Linux: early enough that those with a cookie find
/// the rest of the queue.
pub const HANDSHAKES_UNDER_LOAD: u64 = HANDSHAKES_MAX / 8;

/// Handshake messages on their way to the link thread, per worker. The link thread looks every 2 ms;
/// what arrives until it does must fit, or load would never be seen as such.
pub const HANDSHAKE_RING: usize = 1_024;

/// Cookie replies that one worker sends in a second at most, and at once. Each takes about 1 µs to
/// make, and then what sending a packet takes; all of them are some 30 Mbit/s on the wire. Lower:
/// under a flood a real peer's chance of a cookie falls; of 80,000 messages a second four in ten get
/// one. Higher: the flood takes more from the tunnels. At 80,000 they lost up to a fifth where
/// generator and gateway share two cores (`perf/profiles/flood.toml`).
pub const COOKIE_REPLIES_PER_SECOND: u64 = 32_000;
/// See [`COOKIE_REPLIES_PER_SECOND`]: 5 ms of them.
pub const COOKIE_REPLIES_BURST: u64 = 160;

/// Cookie replies of others that one worker hands on in a second at most. Nothing but their content
/// proves them, and anyone can send them; a gateway that has asked a hundred loaded peers at once
/// for a session gets a hundred.
pub const COOKIES_PER_SECOND: u64 = 100;
/// See [`COOKIES_PER_SECOND`].
pub const COOKIES_BURST: u64 = 50;

/// Records of the flow log on their way to the link thread, per worker: half a megabyte. The link thread
/// looks every 2 ms, in which a worker opens some thousand flows at most; the rest is for a control
/// process that is away for a moment. With fewer records are lost, with more a worker's cache is.
pub const FLOW_LOG_RING: usize = 4_096;

/// Records of denied packets that one worker writes in a second at most. Anybody can make denials at the
/// rate of the line; a person reads some hundred of them, and a scan of a subnet's hosts fits.
pub const DENIALS_LOGGED_PER_SECOND: u32 = 1_000;

/// Commands on their way to a worker, and reports on their way back. The link thread keeps what
/// does not fit and tries again, so a small ring costs latency, never a command.
pub const COMMAND_RING: usize = 1_024;

/// Frames that are never given to a fill ring: a worker must always be able to send a keepalive.
pub const FRAME_RESERVE: usize = 2 * BATCH_MAX;

/// Bytes in front of an inner packet that sealing needs: Ethernet with a tag, IPv6, UDP and the
/// header of a data message.
pub const SEAL_HEADROOM: usize = 18 + 40 + 8 + 16;

/// Bytes behind an inner packet that sealing needs: padding and the tag.
pub const SEAL_TAILROOM: usize = 15 + 16;

const _: () = assert!(DENIALS_LOGGED_PER_SECOND as usize <= FLOW_LOG_RING / 2);
const _: () = assert!(HELD_PER_REASON_MAX <= HELD_MAX);
const _: () = assert!(HANDSHAKE_RING as u64 >= HANDSHAKES_UNDER_LOAD + BATCH_MAX as u64);
const _: () = assert!(COOKIES_BURST < HANDSHAKES_UNDER_LOAD, "they alone make no load");
const _: () = assert!(HANDOFF_RING >= BATCH_MAX, "a whole batch may belong to another worker");
const _: () = assert!(
    SEAL_HEADROOM <= bulkhead_xsk::HEADROOM + 14,
    "a plain packet is sealed in the frame that it came in"
);

/// How often a reader of a shared cell tries again while it is being written. A write is some ten
/// stores; a writer that lost its core in the middle is all that can exhaust this. Lower: packets
/// are held for nothing. Higher: a worker spins longer for a writer that sleeps.
pub(crate) const READ_TRIES: u32 = 1_000;
