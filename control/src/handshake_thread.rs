//! The thread that owns all handshakes, and those that read initiations for it, so that a flood of
//! them delays nothing else.
//!
//! ```text
//!   daemon ── Order ──▶ [ at most WAITING_MAX ] ────────────────▶ owner ── Report ──▶ daemon
//!      └── initiation ──▶ [ at most WAITING_MAX ] ──▶ consumers ──▶┘
//! ```
//!
//! Datagrams and wishes of the datapath are dropped and counted when too many wait. What must not
//! be lost (peers, adoptions, retired sessions) always gets in; there is at most one of those for
//! each thing that the datapath or the operator did.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;
use std::{collections::BTreeMap, io};

use bulkhead_link::{Endpoint, SessionIndex, SessionStatus};
use bulkhead_wg::{Freshness, PublicKey};

use crate::clock::{Clock, wall_clock};
use crate::consumers::{self, Consumed, Consumers, Edition, Received};
use crate::handshake::{HandshakeCounters, Handshakes, ListenerSetup, Outcome, Outside, PeerSetup};

/// Handshake messages that may wait. At some 100 µs each, half a second of work: whoever waits
/// longer has sent the next one before.
const WAITING_MAX: usize = 4_096;

/// First byte of an initiation (whitepaper §5.4.2).
const INITIATION: u8 = 1;

/// How long the thread sleeps at most when no timer runs.
const IDLE: Duration = Duration::from_secs(60);

/// Something for the thread to do.
#[derive(Debug)]
pub enum Order {
    /// See [`Handshakes::set_peers`].
    Peers {
        /// All listeners.
        listeners: Vec<ListenerSetup>,
        /// All peers.
        peers: Vec<PeerSetup>,
    },
    /// See [`Handshakes::adopt`].
    Adopt {
        /// Comes back in every report from now on.
        epoch: u64,
        /// Slots of the datapath.
        sessions_max: u32,
        /// Workers of the datapath.
        workers: u8,
        /// What it has.
        sessions: Vec<SessionStatus>,
    },
    /// See [`Handshakes::datagram`].
    Datagram {
        /// The worker that received it.
        worker: u8,
        /// Our public key that MAC1 was made with; none for a cookie reply.
        listener: Option<PublicKey>,
        /// Where it came from.
        from: Endpoint,
        /// UDP payload.
        message: Vec<u8>,
    },
    /// See [`Handshakes::consumed`].
    Consumed(Box<Consumed>),
    /// See [`Handshakes::session_wanted`].
    Wanted {
        /// Index of the peer.
        peer: u32,
    },
    /// See [`Handshakes::endpoint_found`].
    Endpoint {
        /// Identity of the peer.
        peer: PublicKey,
        /// Where it is said to be.
        endpoint: SocketAddr,
    },
    /// See [`Handshakes::session_confirmed`].
    Confirmed {
        /// Index of the session.
        index: SessionIndex,
    },
    /// See [`Handshakes::session_retired`].
    Retired {
        /// Index of the session.
        index: SessionIndex,
    },
}

/// Something that the thread wants done.
#[derive(Debug)]
pub struct Report {
    /// Of the last [`Order::Adopt`] before it: a session of an earlier epoch is for a datapath that
    /// is gone.
    pub epoch: u64,
    /// What.
    pub outcome: Outcome,
}

/// The owner's side. The thread ends when this is dropped.
pub struct HandshakeThread {
    consumers: Consumers,
    /// Orders of peers so far: the edition that the owner will have made when it has had them.
    editions: AtomicU64,
    orders: mpsc::Sender<Order>,
    waiting: Arc<AtomicUsize>,
    /// Datagrams that were ordered, and those of them that are finished, whatever came of them.
    datagrams: AtomicU64,
    finished: Arc<AtomicU64>,
    queue_full: AtomicU64,
    counters: Arc<Mutex<HandshakeCounters>>,
}

/// The thread ended, which it never does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake thread is gone")]
pub struct ThreadGone;

impl fmt::Debug for HandshakeThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeThread(..)")
    }
}

impl HandshakeThread {
    /// Starts the thread; `report` takes what it wants done and must not block.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn start(
        clock: Clock,
        accepted: BTreeMap<PublicKey, Freshness>,
        report: impl FnMut(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counters = Arc::new(Mutex::new(HandshakeCounters::default()));
        let edition = Arc::new(RwLock::new(Edition::default()));
        let finished = Arc::new(AtomicU64::new(0));
        let shared = (
            Arc::clone(&waiting),
            Arc::clone(&finished),
            Arc::clone(&counters),
            Arc::clone(&edition),
        );
        let owner = mpsc::Sender::clone(&orders);
        let consumers = Consumers::start(&edition, move |outcome| {
            // The owner is gone only when the process goes. `waiting` counts an initiation from the
            // queue on until the owner takes it, so this line is bounded too.
            let _ = owner.send(match outcome {
                consumers::Outcome::Read(consumed) => Order::Consumed(consumed),
                consumers::Outcome::Early(Received { worker, listener, from, message, .. }) => {
                    Order::Datagram { worker, listener: Some(listener), from, message }
                }
            });
        })?;
        thread::Builder::new().name("handshake".to_owned()).spawn(move || {
            let (waiting, finished, counters, edition) = shared;
            let handshakes = Handshakes::new(accepted);
            run(clock, &inbox, (&waiting, &finished), &counters, &edition, handshakes, report);
        })?;
        let (datagrams, queue_full) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self {
            consumers,
            editions: AtomicU64::new(0),
            orders,
            waiting,
            datagrams,
            finished,
            queue_full,
            counters,
        })
    }

    /// Gives the thread something to do.
    ///
    /// # Errors
    ///
    /// If the thread is gone.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others go the same way")]
    pub fn order(&self, order: Order) -> Result<(), ThreadGone> {
        // What is ordered after it must not be read before it.
        let peers = u64::from(matches!(order, Order::Peers { .. }));
        let edition = self.editions.fetch_add(peers, Ordering::Relaxed);
        let datagram = matches!(order, Order::Datagram { .. });
        self.datagrams.fetch_add(u64::from(datagram), Ordering::Relaxed);
        let order = match order {
            Order::Datagram { worker, listener: Some(listener), from, message }
                if message.first() == Some(&INITIATION) =>
            {
                // Counted from here until the owner takes it.
                let before = self.waiting.fetch_add(1, Ordering::Relaxed);
                let received = Received { edition, worker, listener, from, message };
                if before >= WAITING_MAX || self.consumers.take(received).is_err() {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.queue_full.fetch_add(1, Ordering::Relaxed);
                    self.finished.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(());
            }
            other => other,
        };
        if order.may_be_dropped() {
            if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
                self.queue_full.fetch_add(1, Ordering::Relaxed);
                self.finished.fetch_add(u64::from(datagram), Ordering::Relaxed);
                return Ok(());
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        self.orders.send(order).map_err(|_| ThreadGone)
    }

    /// Datagrams that are finished, since the start: the credit of the datapath.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Whether a datagram is not finished.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.finished() != self.datagrams.load(Ordering::Relaxed)
    }

    /// The figures so far.
    #[must_use]
    pub fn counters(&self) -> HandshakeCounters {
        // A poisoned lock holds whole figures all the same: they are written as one.
        let counted = *self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        HandshakeCounters { queue_full: self.queue_full.load(Ordering::Relaxed), ..counted }
    }
}

impl Order {
    fn may_be_dropped(&self) -> bool {
        match self {
            Self::Datagram { .. } | Self::Consumed(_) | Self::Wanted { .. } => true,
            Self::Peers { .. }
            | Self::Adopt { .. }
            | Self::Endpoint { .. }
            | Self::Confirmed { .. }
            | Self::Retired { .. } => false,
        }
    }
}

fn run(
    clock: Clock,
    inbox: &mpsc::Receiver<Order>,
    (waiting, finished): (&AtomicUsize, &AtomicU64),
    counters: &Mutex<HandshakeCounters>,
    edition: &RwLock<Edition>,
    mut handshakes: Handshakes,
    mut report: impl FnMut(Report),
) {
    let mut outside = System;
    let mut epoch = 0;
    loop {
        let pause = handshakes.deadline().map_or(IDLE, |deadline| clock.until(deadline).min(IDLE));
        let order = match inbox.recv_timeout(pause) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = clock.now();
        if let Some(order) = order {
            if order.may_be_dropped() {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
            match order {
                Order::Peers { listeners, peers } => {
                    handshakes.set_peers(listeners, peers, now, &mut outside);
                    let mut edition = edition.write().unwrap_or_else(PoisonError::into_inner);
                    edition.responders = handshakes.responders();
                    edition.number += 1;
                }
                Order::Adopt { epoch: new, sessions_max, workers, sessions } => {
                    epoch = new;
                    handshakes.adopt(sessions_max, workers, &sessions, now, &mut outside);
                }
                Order::Datagram { worker, listener, from, message } => {
                    handshakes.datagram(worker, listener, &from, &message, now, &mut outside);
                    finished.fetch_add(1, Ordering::Relaxed);
                }
                Order::Consumed(consumed) => {
                    handshakes.consumed(*consumed, now, &mut outside);
                    finished.fetch_add(1, Ordering::Relaxed);
                }
                Order::Wanted { peer } => handshakes.session_wanted(peer, now, &mut outside),
                Order::Endpoint { peer, endpoint } => {
                    handshakes.endpoint_found(&peer, endpoint, now, &mut outside);
                }
                Order::Confirmed { index } => handshakes.session_confirmed(index),
                Order::Retired { index } => handshakes.session_retired(index, now, &mut outside),
            }
        }
        handshakes.timeout(now, &mut outside);
        *counters.lock().unwrap_or_else(PoisonError::into_inner) = handshakes.counters();
        while let Some(outcome) = handshakes.poll() {
            report(Report { epoch, outcome });
        }
    }
}

/// Randomness and wall clock of the system.
struct System;

impl Outside for System {
    fn entropy(&mut self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(bytes)
    }

    fn jitter(&mut self, max: Duration) -> Duration {
        // Without randomness two peers may collide once more; nothing worse.
        let share = getrandom::u32().unwrap_or(0);
        max.mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    fn wall_clock(&mut self) -> Duration {
        wall_clock()
    }
}
