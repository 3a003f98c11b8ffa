//! The WireGuard listeners as a worker knows them: which UDP ports are ours, and which public keys
//! a stranger may prove to know there.
//!
//! ```text
//!   port 51820 ─┬─ key of today      a gateway key is rotated without a gap: both are listened to
//!               └─ key of tomorrow   until every device has learned the new one
//! ```
//!
//! Changed as a whole, between two batches ([`crate::Command::Listeners`]). Sessions do not depend on
//! them: one that was made with a key that is gone ends when it is old.

use std::sync::Arc;

use bulkhead_link::Listener;
use bulkhead_wg::{CookieKey, Mac1Key, PublicKey};

/// One UDP port with one key of ours.
#[derive(Clone, Debug)]
pub struct Listening {
    port: u16,
    public_key: [u8; 32],
    mac1: Mac1Key,
    cookie: CookieKey,
    dark: bool,
}

impl Listening {
    /// The key.
    #[inline]
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// What its cookie replies are sealed with.
    #[inline]
    #[must_use]
    pub const fn cookie_key(&self) -> &CookieKey {
        &self.cookie
    }

    /// Whether it sends no cookie replies.
    #[inline]
    #[must_use]
    pub const fn dark(&self) -> bool {
        self.dark
    }
}

/// All listeners of the gateway. The default has none: every datagram is a stranger's.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    all: Vec<Listening>,
    /// How long a packet waits for a session, milliseconds.
    session_wait_ms: u64,
}

impl Listeners {
    /// The listeners that control wants.
    #[must_use]
    pub fn new(listeners: &[Listener]) -> Arc<Self> {
        let all = listeners.iter().map(|listener| Listening {
            port: listener.port,
            public_key: listener.public_key,
            mac1: Mac1Key::of(&PublicKey(listener.public_key)),
            cookie: CookieKey::of(&PublicKey(listener.public_key)),
            dark: listener.dark,
        });
        // Whichever listener the session will be made with: as long as the most patient one tries.
        let patience = listeners.iter().map(|listener| listener.terms.timers.rekey_attempt).max();
        let wait = patience.unwrap_or_default().as_millis();
        let session_wait_ms = u64::try_from(wait).unwrap_or(u64::MAX);
        Arc::new(Self { all: all.collect(), session_wait_ms })
    }

    /// Whether a datagram to this UDP port of ours is for WireGuard.
    #[inline]
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.all.iter().any(|listening| listening.port == port)
    }

    /// The listener with the public key of ours, among those of `port`, that the sender of a handshake message has
    /// proved to know by MAC1. `None`: none of them. Takes as many MACs as the port has keys, of
    /// which the configuration allows four.
    #[inline]
    #[must_use]
    pub fn proven(&self, port: u16, message: &[u8]) -> Option<&Listening> {
        self.all
            .iter()
            .filter(|listening| listening.port == port)
            .find(|listening| listening.mac1.verify(message))
    }

    /// How long a packet waits for a session, milliseconds.
    #[inline]
    #[must_use]
    pub const fn session_wait_ms(&self) -> u64 {
        self.session_wait_ms
    }
}
