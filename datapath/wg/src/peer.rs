//! One peer's handshakes, as the control process drives them.
//!
//! ```text
//!   want_session ─┐                        ┌─▶ Send       a message for the peer
//!   initiation   ─┤   ┌───────────────┐    ├─▶ Session    keys for the datapath
//!   response     ─┼──▶│ Peer          │──▶─┤
//!   cookie_reply ─┤   │  schedule     │    ├─▶ Retired    an index that is free again
//!   confirmed    ─┤   │  pending      │    └─▶ GiveUp     the peer does not answer
//!   timeout      ─┘   │  timestamps   │
//!                     └───────────────┘
//! ```
//!
//! The caller feeds an input, drains [`Peer::poll`], and sleeps until [`Peer::deadline`].
//!
//! INVARIANT: an input that returns an error has changed nothing. An accepted initiation is newer
//! than all accepted before it, so none is answered twice.
//!
//! Kept in memory only: after a restart the last initiation of a peer could be replayed once. The
//! response to it is of no use to whoever replays it, and the session never starts.

use std::collections::VecDeque;
use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cookie::Cookie;
use crate::initiator::{Pending, initiate};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::keypair::TransportKeys;
use crate::limits::{COOKIE_LATENCY, COOKIE_SECRET_TIME, Limits};
use crate::noise::HandshakeError;
use crate::responder::Initiation;
use crate::schedule::{Schedule, Step};
use crate::tai64n::Tai64n;
use crate::time::Time;

/// Something that the caller must do.
#[derive(Debug)]
pub enum Action {
    /// Send this message to the peer.
    Send(Message),
    /// Give these keys to the datapath. Comes before the response that belongs to it, so that the
    /// peer's first packet finds them.
    Session(TransportKeys),
    /// No message for this index is awaited any more, and no session has it.
    Retired(u32),
    /// The peer did not answer for 90 s: drop what waits for it.
    GiveUp,
}

/// A handshake message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Initiation([u8; 148]),
    /// Type 2.
    Response([u8; 92]),
}

impl Message {
    /// The bytes of the UDP payload.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Initiation(bytes) => bytes,
            Self::Response(bytes) => bytes,
        }
    }
}

/// What one initiation needs from outside. Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Fresh {
    /// An index that no session and no other handshake has.
    pub local_index: u32,
    /// The wall clock's label: [`Tai64n::from_unix`].
    #[zeroize(skip)]
    pub timestamp: Tai64n,
    /// 32 fresh random bytes.
    pub entropy: [u8; 32],
}

/// The handshake state of one peer.
pub struct Peer {
    public: PublicKey,
    psk: PresharedKey,
    limits: Limits,
    schedule: Schedule,
    pending: Option<Box<Pending>>,
    cookie: Option<(Cookie, Time)>,
    /// Timestamp and arrival of the last initiation accepted.
    accepted: Option<(Tai64n, Time)>,
    /// Timestamp of our last initiation: the next is greater, even if the clock was set back.
    stamped: Option<Tai64n>,
    actions: VecDeque<Action>,
}

impl Peer {
    /// A peer that nothing was heard of yet.
    #[must_use]
    pub fn new(public: PublicKey, psk: PresharedKey, limits: Limits) -> Self {
        Self {
            public,
            psk,
            limits,
            schedule: Schedule::new(limits),
            pending: None,
            cookie: None,
            accepted: None,
            stamped: None,
            actions: VecDeque::new(),
        }
    }

    /// The peer's identity.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Replaces the preshared key, from the next handshake on.
    pub fn set_preshared_key(&mut self, psk: PresharedKey) {
        self.psk = psk;
    }

    /// Other limits: the handshake under way, made by the old ones, is given up. What must not go
    /// back (timestamps, ours and theirs) stays. Returns the index that is free again.
    ///
    /// The same limits change nothing.
    pub fn set_limits(&mut self, limits: Limits) -> Option<u32> {
        if limits == self.limits {
            return None;
        }
        self.limits = limits;
        self.schedule = Schedule::new(limits);
        self.pending.take().map(|pending| pending.local_index())
    }

    /// A session is wanted: there is traffic for the peer and no session, or its session wants a
    /// successor. Harmless while one is already asked for.
    ///
    /// `jitter` is a fresh random delay up to [`Limits::jitter_max`].
    pub fn want_session(&mut self, now: Time, jitter: Duration) {
        self.schedule.want_session(now, jitter);
    }

    /// An initiation of this peer authenticated. Answers it if it is new.
    ///
    /// `local_index` becomes the index of the session. `entropy` must be 32 fresh random bytes.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Replayed`], [`HandshakeError::TooFast`], [`HandshakeError::WrongPeer`];
    /// then `local_index` is still the caller's.
    pub fn initiation(
        &mut self,
        initiation: Initiation,
        local_index: u32,
        entropy: &[u8; 32],
        now: Time,
    ) -> Result<(), HandshakeError> {
        if initiation.peer == self.public
            && self.accepted.is_some_and(|(greatest, _)| initiation.timestamp <= greatest)
        {
            return Err(HandshakeError::Replayed);
        }
        self.fresh_initiation(initiation, local_index, entropy, now)
    }

    /// The same for a caller who knows by itself that the timestamp is new: see
    /// [`crate::Freshness`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TooFast`], [`HandshakeError::WrongPeer`]; then `local_index` is still the
    /// caller's.
    pub fn fresh_initiation(
        &mut self,
        initiation: Initiation,
        local_index: u32,
        entropy: &[u8; 32],
        now: Time,
    ) -> Result<(), HandshakeError> {
        if !bool::from(initiation.peer.0.ct_eq(&self.public.0)) {
            return Err(HandshakeError::WrongPeer);
        }
        let timestamp = initiation.timestamp;
        if let Some((_, accepted_at)) = self.accepted
            && now.since(accepted_at) < self.limits.initiation_interval
        {
            return Err(HandshakeError::TooFast);
        }
        let (mut response, keys) = initiation.respond(&self.psk, local_index, entropy)?;
        self.accepted = Some((timestamp, now));
        if let Some(cookie) = self.fresh_cookie(now) {
            cookie.stamp(&mut response);
        }
        self.actions.push_back(Action::Session(keys));
        self.actions.push_back(Action::Send(Message::Response(response)));
        Ok(())
    }

    /// A response arrived for the index of our initiation.
    ///
    /// # Errors
    ///
    /// Any [`HandshakeError`]; the initiation goes on waiting.
    pub fn response(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let pending = self.pending.as_mut().ok_or(HandshakeError::UnknownReceiver)?;
        let keys = pending.consume(message)?;
        self.pending = None;
        self.schedule.response();
        self.actions.push_back(Action::Session(keys));
        Ok(())
    }

    /// A cookie reply arrived for the index of our initiation. The next initiation, after its
    /// usual pause, carries the cookie.
    ///
    /// # Errors
    ///
    /// Any [`HandshakeError`]; nothing changes.
    pub fn cookie_reply(&mut self, message: &[u8], now: Time) -> Result<(), HandshakeError> {
        let pending = self.pending.as_mut().ok_or(HandshakeError::UnknownReceiver)?;
        self.cookie = Some((pending.cookie(message)?, now));
        Ok(())
    }

    /// The datapath received the first packet of a session that the peer initiated: there is a
    /// session, so ours need not be answered any more.
    pub fn confirmed(&mut self) {
        self.schedule.response();
        self.retire_pending();
    }

    /// Time has passed. Calling early, late or twice is harmless. `jitter` as in
    /// [`Self::want_session`].
    pub fn timeout(&mut self, now: Time, jitter: Duration) {
        self.schedule.timeout(now, jitter);
    }

    /// The next thing to do, if any. `private` is our static key; `fresh` is called once for each
    /// initiation that is built, and its index comes back in [`Action::Session`] or
    /// [`Action::Retired`].
    #[must_use]
    pub fn poll(
        &mut self,
        private: &PrivateKey,
        now: Time,
        fresh: impl FnOnce() -> Fresh,
    ) -> Option<Action> {
        if self.actions.is_empty() {
            match self.schedule.poll()? {
                Step::SendInitiation => self.initiate(private, now, fresh()),
                Step::GiveUp => {
                    self.retire_pending();
                    self.actions.push_back(Action::GiveUp);
                }
            }
        }
        self.actions.pop_front()
    }

    /// Drops what is still to be done: the indices in it are void.
    pub fn discard(&mut self) {
        self.actions.clear();
        self.schedule.response();
    }

    /// When to call [`Self::timeout`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.schedule.deadline()
    }

    /// The index of the initiation that waits for its response, if one does.
    #[must_use]
    pub fn pending_index(&self) -> Option<u32> {
        self.pending.as_ref().map(|pending| pending.local_index())
    }

    /// Builds an initiation in place of the one that was not answered: only the last is awaited.
    fn initiate(&mut self, private: &PrivateKey, now: Time, fresh: Fresh) {
        self.retire_pending();
        let timestamp =
            self.stamped.map_or(fresh.timestamp, |last| fresh.timestamp.max(last.successor()));
        let built = initiate(
            private,
            &self.public,
            &self.psk,
            fresh.local_index,
            timestamp,
            &fresh.entropy,
        );
        let Ok((mut message, pending)) = built else {
            // The peer's key has low order: no initiation can ever be built for it.
            self.schedule.abandon();
            self.actions.push_back(Action::Retired(fresh.local_index));
            return;
        };
        if let Some(cookie) = self.fresh_cookie(now) {
            cookie.stamp(&mut message);
        }
        self.stamped = Some(timestamp);
        self.pending = Some(Box::new(pending));
        self.actions.push_back(Action::Send(Message::Initiation(message)));
    }

    fn retire_pending(&mut self) {
        let retired = self.pending.take().map(|pending| Action::Retired(pending.local_index()));
        self.actions.extend(retired);
    }

    fn fresh_cookie(&self, now: Time) -> Option<&Cookie> {
        let (cookie, received_at) = self.cookie.as_ref()?;
        (now.since(*received_at) < COOKIE_SECRET_TIME.saturating_sub(COOKIE_LATENCY))
            .then_some(cookie)
    }
}
