//! A worker's thread: pinned, and asleep only when every queue is empty.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_engine::Worker;
use bulkhead_xsk::Socket;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use tracing::warn;

use crate::clock::Clock;

/// Empty turns before the thread sleeps. A turn without work takes some 300 ns with four queues,
/// so this is about 20 µs: longer than the gap between the packets of one burst, and shorter than
/// a scheduler's slice.
const IDLE_TURNS: u32 = 64;

/// How long it sleeps at most: held packets expire and counters are published at this pace.
const SLEEP: Duration = Duration::from_millis(10);

/// A running worker. It ends with the process.
pub(crate) struct WorkerThread {
    wake: Arc<OwnedFd>,
}

impl WorkerThread {
    /// Starts `worker` on `cpu`, or anywhere.
    ///
    /// # Errors
    ///
    /// Whatever the system says about threads and file descriptors.
    pub(crate) fn start(
        name: String,
        mut worker: Worker<Socket>,
        cpu: Option<u16>,
        clock: Clock,
    ) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let sleeper = Sleeper::new(&worker, Arc::clone(&wake))?;
        std::thread::Builder::new().name(name).spawn(move || {
            pin(cpu);
            let mut idle = 0;
            loop {
                if worker.turn(clock.now_ms()) {
                    idle = 0;
                } else if idle < IDLE_TURNS {
                    idle += 1;
                    std::hint::spin_loop();
                } else {
                    sleeper.sleep();
                }
            }
        })?;
        Ok(Self { wake })
    }

    /// Ends its sleep: a command waits.
    pub(crate) fn wake(&self) {
        // A full counter means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn pin(cpu: Option<u16>) {
    let Some(cpu) = cpu else { return };
    if !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(cpu) }) {
        warn!(cpu, "could not pin the worker to its cpu; it runs anywhere");
    }
}

/// Waits for packets or a wake-up, without allocating.
struct Sleeper {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

impl Sleeper {
    fn new(worker: &Worker<Socket>, wake: Arc<OwnedFd>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        for attached in worker.sockets() {
            epoll::add(&poll, &attached.socket, data, epoll::EventFlags::IN)?;
        }
        epoll::add(&poll, &wake, data, epoll::EventFlags::IN)?;
        Ok(Self { epoll: poll, wake })
    }

    fn sleep(&self) {
        let timeout = Timespec::try_from(SLEEP).ok();
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 8];
        // An interrupted or failed wait is a short sleep.
        let _ = epoll::wait(&self.epoll, &mut events, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}
