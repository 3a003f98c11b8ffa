//! Handshake messages: who may reach the control process, and who must first prove where he is.
//!
//! ```text
//!   MAC1 ─▶ under load? ─ no ──▶ bucket of the source ─ has one ─────────────▶ handed on
//!    │           │                    │ empty
//!    │ wrong     └─ yes ──▶ MAC2 ◀────┘
//!    ▼                       │ right ─▶ bucket of proven sources ─ has one ──▶ handed on
//!  dropped                   │                  └ empty ─▶ dropped
//!                            └ wrong ─▶ cookie reply in the frame that came, or dropped if dark
//! ```
//!
//! The order is that of Linux (`drivers/net/wireguard/receive.c`, `wg_receive_handshake_packet`;
//! `cookie.c`, `wg_cookie_validate_packet`): under load the bucket is asked for proven sources only.
//! So whoever writes a peer's address into his own messages takes nothing from that peer: it gets a
//! cookie reply, and its next message has a bucket that only itself can empty. docs/adr/0008 says
//! why the same holds for one source without load.
//!
//! INVARIANT: nothing is answered but a message with a right MAC1, and that with fewer bytes than
//! it had; no session, peer or flow is touched.

use std::net::SocketAddr;
use std::sync::Arc;

use bulkhead_link::{End, SessionIndex};
use bulkhead_wg::{CookieSecrets, Nonces};
use bulkhead_wire::{Mac, udp, wg};
use rtrb::Producer;

use crate::allowance::Allowance;
use crate::buckets::{Buckets, Purpose, SETS};
use crate::flow::Seed;
use crate::handoff::{HANDSHAKE_MAX, Handshake};
use crate::limits::{
    COOKIE_REPLIES_BURST, COOKIE_REPLIES_PER_SECOND, COOKIES_BURST, COOKIES_PER_SECOND,
};
use crate::listeners::Listeners;
use crate::load::{Load, Look};
use crate::packet::{Course, Transit};
use crate::place::Place;
use crate::setup::Setup;

/// Where the receiver's index stands in a response (whitepaper §5.4.3) and in a cookie reply.
const RESPONSE_RECEIVER: usize = 8;
const COOKIE_RECEIVER: usize = 4;

const _: () = assert!(wg::COOKIE_REPLY_LEN < wg::RESPONSE_LEN);

/// What all workers defend with together.
pub struct Defences {
    /// Of all sources.
    pub buckets: Buckets,
    /// Handshake messages under way to the control process.
    pub load: Load,
    secrets: Arc<CookieSecrets>,
    nonce_key: [u8; 32],
}

impl Defences {
    /// Two times 32 fresh random bytes, for cookies and for the nonces of cookie replies, and the
    /// secret of the table of buckets.
    #[must_use]
    pub fn new(cookie_secret: [u8; 32], nonce_key: [u8; 32], seed: Seed) -> Self {
        Self {
            buckets: Buckets::new(SETS, seed),
            load: Load::default(),
            secrets: Arc::new(CookieSecrets::new(cookie_secret)),
            nonce_key,
        }
    }

    /// The secrets that every worker starts with.
    #[must_use]
    pub fn secrets(&self) -> Arc<CookieSecrets> {
        Arc::clone(&self.secrets)
    }
}

/// One worker's share of the defence.
pub struct Guard {
    defences: Arc<Defences>,
    secrets: Arc<CookieSecrets>,
    nonces: Nonces,
    /// Cookie replies that it sends.
    replies: Allowance,
    /// Cookie replies of others that it hands on.
    cookies: Allowance,
}

/// What becomes of a message that is not dropped.
enum Verdict {
    /// To the control process, with the key of ours that MAC1 was made with.
    HandOn(Option<[u8; 32]>),
    /// Back to where it came from.
    Answer([u8; wg::COOKIE_REPLY_LEN]),
}

impl Guard {
    /// The guard of the worker with this number.
    #[must_use]
    pub fn new(defences: Arc<Defences>, worker: usize) -> Self {
        Self {
            secrets: defences.secrets(),
            nonces: Nonces::new(defences.nonce_key, worker as u64),
            replies: Allowance::new(COOKIE_REPLIES_PER_SECOND, COOKIE_REPLIES_BURST),
            cookies: Allowance::new(COOKIES_PER_SECOND, COOKIES_BURST),
            defences,
        }
    }

    /// Makes cookies with other secrets from now on.
    pub fn renew(&mut self, secrets: Arc<CookieSecrets>) {
        self.secrets = secrets;
    }

    fn judge(
        &mut self,
        message: &[u8],
        place: &Place,
        around: (&Setup, &Listeners),
        under_load: bool,
        now_ms: u64,
    ) -> Result<Verdict, End> {
        let (setup, listeners) = around;
        let asked = |at| {
            let index = message.get(at..).and_then(|rest| rest.first_chunk().copied());
            index.is_some_and(|index| setup.gives_out(SessionIndex(u32::from_le_bytes(index))))
        };
        let take = |purpose| self.defences.buckets.take(purpose, place.remote, now_ms);
        let kind = wg::kind(message).ok_or(End::DropNotWireguard)?;
        if kind == wg::Kind::CookieReply {
            // It carries no MAC1; what proves it is its encryption, in the control process.
            if !asked(COOKIE_RECEIVER) {
                return Err(End::DropUnasked);
            }
            let granted = take(Purpose::CookieReply) && self.cookies.take(now_ms);
            return if granted { Ok(Verdict::HandOn(None)) } else { Err(End::DropHandshakeRate) };
        }
        let listening = listeners.proven(place.local_port, message).ok_or(End::DropMac1)?;
        if kind == wg::Kind::Response && !asked(RESPONSE_RECEIVER) {
            return Err(End::DropUnasked);
        }
        let hand_on = Verdict::HandOn(Some(*listening.public_key()));
        if !under_load && take(Purpose::Unproven) {
            return Ok(hand_on);
        }
        let source = SocketAddr::new(place.remote.to_ip(), place.remote_port);
        if self.secrets.verify(message, source) {
            return if take(Purpose::Proven) { Ok(hand_on) } else { Err(End::DropHandshakeRate) };
        }
        if listening.dark() {
            return Err(if under_load { End::DropDark } else { End::DropHandshakeRate });
        }
        if !answerable(place, setup) {
            return Err(End::DropOuterMalformed);
        }
        if !self.replies.take(now_ms) {
            return Err(End::DropCookieRate);
        }
        let (key, nonce) = (listening.cookie_key(), self.nonces.draw());
        let reply = self.secrets.reply(key, message, source, nonce);
        reply.map(Verdict::Answer).ok_or(End::DropNotWireguard)
    }
}

/// Judges every handshake message of the batch: each has an end afterwards, or is
/// [`Course::Answer`] and a frame to be sent. Returns whether there is such a frame.
pub fn guard(
    batch: &mut [Transit],
    guard: &mut Guard,
    setup: &Setup,
    listeners: &Listeners,
    handshakes: &mut Producer<Handshake>,
    now_ms: u64,
) -> bool {
    let mut look: Option<Look> = None;
    let (mut handed, mut answers) = (0, false);
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        if !matches!(transit.course, Course::Handshake) {
            continue;
        }
        let Some(place) = Place::of_frame(transit.outer(), transit.port) else {
            // `steer` has read it as a datagram.
            transit.end = Some(End::DropOuterMalformed);
            continue;
        };
        let look = *look.get_or_insert_with(|| guard.defences.load.look(now_ms));
        let judged =
            guard.judge(transit.bytes(), &place, (setup, listeners), look.under_load, now_ms);
        match judged {
            Err(end) => transit.end = Some(end),
            Ok(Verdict::HandOn(_)) if handed >= look.room => {
                transit.end = Some(End::DropHandshakeQueueFull);
            }
            Ok(Verdict::HandOn(listener)) => {
                let end = hand_on(transit.bytes(), place, listener, handshakes);
                handed += u64::from(end == End::Handshake);
                transit.end = Some(end);
            }
            Ok(Verdict::Answer(reply)) => match turn_around(transit, &place, &reply) {
                Some(()) => answers = true,
                None => transit.end = Some(End::DropOuterMalformed),
            },
        }
    }
    if handed > 0 {
        guard.defences.load.handed(handed);
    }
    answers
}

fn hand_on(
    bytes: &[u8],
    place: Place,
    listener: Option<[u8; 32]>,
    handshakes: &mut Producer<Handshake>,
) -> End {
    let mut message = [0; HANDSHAKE_MAX];
    let Some(room) = message.get_mut(..bytes.len()) else { return End::DropNotWireguard };
    room.copy_from_slice(bytes);
    // `room` exists, so the length is at most HANDSHAKE_MAX, which fits.
    let len = u8::try_from(bytes.len()).unwrap_or(0);
    match handshakes.push(Handshake { place, listener, message, len }) {
        Ok(()) => End::Handshake,
        Err(_) => End::DropHandshakeQueueFull,
    }
}

/// Whether an answer would go to one other host, and to nobody else. That the source address is a
/// host's was seen when the header was parsed.
fn answerable(place: &Place, setup: &Setup) -> bool {
    place.remote_port != 0 && !setup.is_own(place.remote) && Mac(place.remote_mac).is_unicast()
}

/// Writes the reply over the message, and headers back to its sender over those that it came with.
/// Afterwards the bytes are the frame to send.
fn turn_around(transit: &mut Transit, place: &Place, reply: &[u8]) -> Option<()> {
    let (ethernet, outer) = (place.ethernet(), place.datagram(0));
    let message = usize::from(transit.start);
    let start = message.checked_sub(ethernet.len + outer.header_len())?;
    let frame = transit.frame.bytes_mut().get_mut(start..message + reply.len())?;
    let len = u16::try_from(frame.len()).ok()?;
    let (header, packet) = frame.split_at_mut_checked(ethernet.len)?;
    ethernet.write(header);
    outer.write(packet, reply.len());
    packet.get_mut(outer.header_len()..)?.copy_from_slice(reply);
    if !place.remote.is_ipv4() {
        udp::checksum_v6(packet);
    }
    transit.start = u16::try_from(start).ok()?;
    transit.len = len;
    transit.leaves = Some(place.port);
    transit.course = Course::Answer;
    Some(())
}

#[cfg(test)]
mod tests;
