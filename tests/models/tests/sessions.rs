//! Workers swap sessions while others confirm, seal and roam: in any order, no packet is sealed
//! with a key that its worker has dropped, and no half-written endpoint is used.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;
use std::sync::Arc;

use bulkhead_link::SessionIndex;
use bulkhead_models::sequence::Sequenced;
use bulkhead_models::session::{Activity, PeerCell, Session, Sessions};
use bulkhead_table::PeerIndex;
use bulkhead_wg::{ReceiveKey, SendCounter, SendKey};
use loom::sync::Mutex;
use loom::thread;

fn session(slot: u32, salt: u8, sequence: u32) -> Arc<Session> {
    Arc::new(Session {
        index: SessionIndex::new(0, salt, slot),
        remote_index: sequence,
        peer: PeerIndex(0),
        initiator: false,
        tunnel_mtu: 1420,
        dscp: bulkhead_link::Dscp::Clear,
        sequence,
        created_ms: 1,
        reject_at_ms: 180_001,
        receive: ReceiveKey::new(&[1; 32]),
        send: SendKey::new(&[2; 32]),
        counter: SendCounter::default(),
        activity: Activity::default(),
    })
}

/// What the link thread asks of a worker. The real queue is a ring; its order is what matters.
enum Command {
    Install(Arc<Session>),
    Remove(SessionIndex),
}

type Queue = Arc<Mutex<VecDeque<Command>>>;

/// One worker: its own array of sessions, and which of them it has dropped.
struct Worker {
    sessions: Sessions,
    queue: Queue,
    dropped: Vec<u32>,
}

impl Worker {
    fn new(known: &Arc<Session>, queue: &Queue) -> Self {
        let mut sessions = Sessions::new(2);
        sessions.install(Arc::clone(known), None);
        Self { sessions, queue: Arc::clone(queue), dropped: vec![] }
    }

    /// Between two batches: what the link thread wants is done.
    fn obey(&mut self) {
        let commands = std::mem::take(&mut *self.queue.lock().unwrap());
        for command in commands {
            let before = match command {
                Command::Install(session) => self.sessions.install(session, None),
                Command::Remove(index) => self.sessions.remove(index),
            };
            self.dropped.extend(before.session.map(|session| session.sequence));
        }
    }

    /// The session that a batch to the peer would be sealed with.
    fn seal(&self, cell: &PeerCell) -> Option<u32> {
        let sealed = self.sessions.sending(cell).map(|session| session.sequence);
        assert!(sealed.is_none_or(|used| !self.dropped.contains(&used)), "sealed with {sealed:?}");
        sealed
    }
}

/// A successor takes over while the peer's first packet of the old session is only now confirmed
/// by another worker. Nobody goes back to the older keys, and in the end the newest are used.
#[test]
fn a_successor_takes_over_whoever_confirms_last() {
    loom::model(|| {
        let (old, new) = (session(0, 0, 1), session(1, 0, 2));
        let cell = Arc::new(PeerCell::default());
        let queue: Queue = Arc::default();
        let confirmer = {
            let (cell, old) = (Arc::clone(&cell), Arc::clone(&old));
            thread::spawn(move || cell.allow_sending(&old))
        };
        let worker = {
            let (cell, mut worker) = (Arc::clone(&cell), Worker::new(&old, &queue));
            thread::spawn(move || {
                let mut used = vec![];
                for _ in 0..2 {
                    worker.obey();
                    used.extend(worker.seal(&cell));
                }
                assert!(used.is_sorted(), "back to older keys: {used:?}");
                worker
            })
        };
        // The link thread: commands first, then the permission (`Ledger::install`).
        queue.lock().unwrap().push_back(Command::Install(Arc::clone(&new)));
        cell.allow_sending(&new);
        queue.lock().unwrap().push_back(Command::Remove(old.index));
        confirmer.join().unwrap();
        let mut worker = worker.join().unwrap();
        worker.obey();
        assert_eq!(worker.seal(&cell), Some(2), "the newest is used in the end");
    });
}

/// A peer is removed and its place and slot are given to another, while a worker that does not
/// know yet confirms the removed session and so permits it again. A worker that has dropped the
/// session does not use it, and in the end the new peer's is used.
#[test]
fn no_packet_is_sealed_with_a_dropped_key() {
    loom::model(|| {
        let (gone, next) = (session(0, 0, 1), session(0, 1, 2));
        let cell = Arc::new(PeerCell::default());
        cell.allow_sending(&gone);
        let queue: Queue = Arc::default();
        let confirmer = {
            let (cell, gone) = (Arc::clone(&cell), Arc::clone(&gone));
            thread::spawn(move || cell.allow_sending(&gone))
        };
        let worker = {
            let (cell, mut worker) = (Arc::clone(&cell), Worker::new(&gone, &queue));
            thread::spawn(move || {
                for _ in 0..2 {
                    worker.obey();
                    let used = worker.seal(&cell);
                    assert!(worker.dropped.is_empty() || used != Some(1));
                }
                worker
            })
        };
        // `Ledger::remove_peer`, then `Ledger::install` for the next owner of index and slot.
        cell.forbid_sending();
        queue.lock().unwrap().push_back(Command::Remove(gone.index));
        queue.lock().unwrap().push_back(Command::Install(Arc::clone(&next)));
        cell.allow_sending(&next);
        confirmer.join().unwrap();
        let mut worker = worker.join().unwrap();
        worker.obey();
        assert_eq!(worker.dropped, [1]);
        assert_eq!(worker.seal(&cell), Some(2));
    });
}

/// After a peer is gone its cell may be permitted again by a worker that is behind, but no worker
/// that has obeyed seals anything.
#[test]
fn a_removed_peer_is_sent_nothing() {
    loom::model(|| {
        let gone = session(0, 0, 1);
        let cell = Arc::new(PeerCell::default());
        let queue: Queue = Arc::default();
        let behind = {
            let (cell, gone) = (Arc::clone(&cell), Arc::clone(&gone));
            thread::spawn(move || cell.allow_sending(&gone))
        };
        let mut worker = Worker::new(&gone, &queue);
        let link = {
            let (cell, queue, index) = (Arc::clone(&cell), Arc::clone(&queue), gone.index);
            thread::spawn(move || {
                cell.forbid_sending();
                queue.lock().unwrap().push_back(Command::Remove(index));
            })
        };
        worker.obey();
        let _ = worker.seal(&cell);
        link.join().unwrap();
        behind.join().unwrap();
        worker.obey();
        assert_eq!(worker.seal(&cell), None);
    });
}

/// Two workers hear a peer at two places while a third reads where it is: always one whole place.
#[test]
fn an_endpoint_is_read_as_it_was_written() {
    loom::model(|| {
        let cell = loom::sync::Arc::new(Sequenced::<2>::default());
        let writers = [1, 2].map(|value| {
            let cell = loom::sync::Arc::clone(&cell);
            thread::spawn(move || cell.write(&[value; 2]))
        });
        let whole = |value: [u64; 2]| assert!(value == [1; 2] || value == [2; 2], "{value:?}");
        cell.read().into_iter().for_each(whole);
        let written = writers.map(|writer| writer.join().unwrap());
        assert!(written.contains(&true), "one of two writers wins");
        whole(cell.read().expect("nobody writes any more"));
    });
}
