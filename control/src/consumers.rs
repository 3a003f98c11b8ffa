//! Threads that authenticate initiations: half of what a handshake costs, and all of what a stranger
//! who knows our public key can make us spend.
//!
//! ```text
//!                ┌─ consumer ─┐
//!   initiation ──┼─ consumer ─┼──▶ owner of all handshakes: is it new? then answer
//!                └─ consumer ─┘
//!                      ▲ Edition: responders, replaced as a whole when keys or peers change
//! ```
//!
//! INVARIANT: they decide nothing and change nothing. Whether a timestamp is new is the owner's
//! question, one initiation at a time; so two of one peer that overtake each other here are like two
//! that overtook each other on the way.
//!
//! The queue is bounded: what does not fit is dropped and counted, and its sender tries again.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use bulkhead_link::Endpoint;
use bulkhead_wg::{HandshakeError, Initiation, PublicKey, Responder};

/// Threads at most: beyond that the owner, which answers, is what is waited for.
const THREADS_MAX: usize = 4;

/// Initiations that may wait: at some 40 µs each, less than a tenth of a second of work for one
/// thread. Whoever waits longer has sent the next one before.
pub const WAITING_MAX: usize = 2_048;

/// What reads initiations to each of our public keys.
pub type Responders = BTreeMap<PublicKey, Arc<Responder>>;

/// The responders of one state of keys and peers.
#[derive(Default)]
pub struct Edition {
    /// How many states there were before it.
    pub number: u64,
    /// What reads by it.
    pub responders: Responders,
}

/// An initiation that is to be authenticated.
#[derive(Debug)]
pub struct Received {
    /// The edition that it must not be read before: a peer of that one is a stranger to the last.
    pub edition: u64,
    /// The worker that received it.
    pub worker: u8,
    /// Our public key that its MAC1 was made with.
    pub listener: PublicKey,
    /// Where it came from.
    pub from: Endpoint,
    /// UDP payload.
    pub message: Vec<u8>,
}

/// The same, read.
pub struct Consumed {
    /// The worker that received it.
    pub worker: u8,
    /// Our public key that its MAC1 was made with.
    pub listener: PublicKey,
    /// Where it came from.
    pub from: Endpoint,
    /// What it is.
    pub result: Result<Initiation, HandshakeError>,
}

/// What came of an initiation.
#[derive(Debug)]
pub enum Outcome {
    /// It was read.
    Read(Box<Consumed>),
    /// Its edition is not there yet: it is the owner's to read, who comes to the edition first.
    Early(Received),
}

impl fmt::Debug for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edition({})", self.number)
    }
}

impl fmt::Debug for Consumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consumed(..)")
    }
}

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub struct Consumers {
    queue: SyncSender<Received>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Consumers {
    /// Starts one thread for each processor, at most four. `done` takes what they have read, and must
    /// not block.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn start(
        edition: &Arc<RwLock<Edition>>,
        done: impl Fn(Outcome) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, inbox) = sync_channel(WAITING_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for number in 0..threads {
            let (inbox, edition, done) = (Arc::clone(&inbox), Arc::clone(edition), done.clone());
            thread::Builder::new()
                .name(format!("initiation-{number}"))
                .spawn(move || run(&inbox, &edition, done))?;
        }
        Ok(Self { queue })
    }

    /// Queues an initiation.
    ///
    /// # Errors
    ///
    /// [`QueueFull`]; also if no thread is left, which is as bad.
    pub fn take(&self, received: Received) -> Result<(), QueueFull> {
        self.queue.try_send(received).map_err(|refused| match refused {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => QueueFull,
        })
    }
}

fn run(inbox: &Mutex<Receiver<Received>>, edition: &RwLock<Edition>, done: impl Fn(Outcome)) {
    loop {
        // One waits in the channel, the others for the lock. A poisoned one still holds the channel.
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(received) = next else { return };
        let responder = {
            let edition = edition.read().unwrap_or_else(PoisonError::into_inner);
            if edition.number < received.edition {
                drop(edition);
                done(Outcome::Early(received));
                continue;
            }
            edition.responders.get(&received.listener).cloned()
        };
        // A key that was taken out of use while the message was under way has no responder.
        let responder = responder.ok_or(HandshakeError::BadMac1);
        let result = responder.and_then(|responder| responder.consume(&received.message));
        let Received { worker, listener, from, .. } = received;
        done(Outcome::Read(Box::new(Consumed { worker, listener, from, result })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_wg::{PresharedKey, PrivateKey, Tai64n, initiate};
    use std::sync::mpsc;
    use std::time::Duration;

    fn received(to: &PublicKey, peer: u8) -> Received {
        let private = PrivateKey::from_bytes([peer; 32]);
        let psk = PresharedKey::default();
        let stamp = Tai64n::from_unix(Duration::from_secs(1));
        let (message, _) =
            initiate(&private, to, &psk, u32::from(peer), stamp, &[peer; 32]).unwrap();
        Received {
            edition: 0,
            worker: 0,
            listener: *to,
            from: Endpoint {
                remote: "192.0.2.9:9".parse().unwrap(),
                local: "192.0.2.1:51820".parse().unwrap(),
                port: 0,
                vlan: None,
                remote_mac: [2; 6],
                local_mac: [4; 6],
            },
            message: message.to_vec(),
        }
    }

    fn only(responders: Responders) -> Arc<RwLock<Edition>> {
        Arc::new(RwLock::new(Edition { number: 0, responders }))
    }

    #[test]
    fn an_initiation_is_not_read_by_an_edition_before_its_own() {
        let key = PrivateKey::from_bytes([1; 32]);
        let edition = only([(key.public_key(), Arc::new(Responder::new(&key)))].into());
        let (send, outcomes) = mpsc::channel();
        let consumers = Consumers::start(&edition, move |outcome| {
            send.send(matches!(outcome, Outcome::Read(_))).unwrap();
        })
        .unwrap();
        let was_read = |number| {
            consumers.take(Received { edition: number, ..received(&key.public_key(), 5) }).unwrap();
            outcomes.recv_timeout(Duration::from_secs(60)).unwrap()
        };
        assert_eq!((was_read(0), was_read(1)), (true, false));
        edition.write().unwrap().number = 1;
        assert_eq!((was_read(0), was_read(1), was_read(2)), (true, true, false));
    }

    #[test]
    fn every_initiation_is_read_once_by_the_key_that_it_names() {
        let keys = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
        let responders: Responders =
            keys.iter().map(|key| (key.public_key(), Arc::new(Responder::new(key)))).collect();
        let (send, results) = mpsc::channel();
        let consumers = Consumers::start(&only(responders), move |outcome| {
            let Outcome::Read(consumed) = outcome else { panic!("{outcome:?}") };
            send.send(*consumed).unwrap();
        })
        .unwrap();
        let gone = PrivateKey::from_bytes([3; 32]).public_key();
        for peer in 10..40 {
            consumers.take(received(&keys[usize::from(peer % 2)].public_key(), peer)).unwrap();
        }
        consumers.take(received(&gone, 40)).unwrap();
        let (mut read, mut refused) = (vec![], 0);
        for _ in 0..31 {
            let consumed = results.recv_timeout(Duration::from_secs(60)).unwrap();
            match consumed.result {
                Ok(initiation) => {
                    let at = usize::try_from(initiation.sender % 2).unwrap();
                    assert_eq!(consumed.listener, keys[at].public_key());
                    read.push(initiation.sender);
                }
                Err(error) => {
                    assert_eq!(error, HandshakeError::BadMac1);
                    refused += 1;
                }
            }
        }
        read.sort_unstable();
        assert_eq!((read, refused), ((10..40).collect(), 1));
    }

    #[test]
    fn a_flood_finds_a_bounded_queue() {
        let key = PrivateKey::from_bytes([1; 32]);
        let responders = [(key.public_key(), Arc::new(Responder::new(&key)))].into();
        // The threads stand still until the test is over.
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let wait = Arc::clone(&gate);
        let consumers = Consumers::start(&only(responders), move |_| {
            drop(wait.lock());
        })
        .unwrap();
        let flood = 2 * WAITING_MAX;
        let taken =
            (0..flood).filter(|_| consumers.take(received(&key.public_key(), 5)).is_ok()).count();
        assert!((WAITING_MAX..=WAITING_MAX + THREADS_MAX).contains(&taken), "{taken} of {flood}");
        drop(closed);
    }
}
