//! A bad path between a client and the gateway: it loses, repeats and reorders datagrams by a seeded
//! plan and keeps account of each.
//!
//! ```text
//!   client ──▶ 127.0.0.1 ═ Relay ═ its own socket ──▶ gateway
//! ```
//!
//! INVARIANT: per direction `arrived + repeated == lost + passed`, once nothing is held back. A
//! datagram that the account does not explain was lost by somebody else.
//!
//! It runs in user space because the kernels of some machines, this project's own among them, are
//! built without netem.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::random::Random;
use crate::wait::now;
use crate::{During, Failure, Namespace};

/// How long a datagram is held back at most: the last one of all has nothing behind it.
const HOLD_TIME: Duration = Duration::from_millis(20);

/// How often a relay looks up from its socket.
const TICK: Duration = Duration::from_millis(5);

/// Bytes of the relay's receive buffers: no datagram is lost before it is counted.
const BUFFER_LEN: usize = 8 << 20;

/// Longest datagram of a world.
const DATAGRAM_LEN: usize = 2048;

/// First byte of a data message.
const DATA: u8 = 4;

/// Length of a data message without content.
const KEEPALIVE_LEN: usize = 32;

/// What befalls a datagram, in percent; the rest passes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Makes two runs equal as far as the datagrams come in the same order.
    pub seed: u64,
    /// Lost.
    pub lose: u64,
    /// Passed twice.
    pub repeat: u64,
    /// Held back.
    pub hold: u64,
    /// Behind how many later ones at most.
    pub behind: u64,
}

/// What befell the datagrams of one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Came in.
    pub arrived: u64,
    /// Went out, repeated ones twice.
    pub passed: u64,
    /// Did not go out.
    pub lost: u64,
    /// Those of the lost that were data messages with content.
    pub content_lost: u64,
    /// Went out twice.
    pub repeated: u64,
    /// Those of the repeated that were data messages, with content or without.
    pub data_repeated: u64,
    /// Went out behind later ones.
    pub overtaken: u64,
}

/// A running relay. Dropping it closes the path.
#[derive(Debug)]
pub struct Relay {
    at: SocketAddr,
    accounts: [Arc<Mutex<Account>>; 2],
    closed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<io::Result<()>, Failure>>>,
}

impl Relay {
    /// Opens a path from this namespace to the gateway at `to`.
    ///
    /// # Errors
    ///
    /// If a socket cannot be made.
    pub fn open(namespace: &Namespace, to: SocketAddr, plan: Plan) -> Result<Self, Failure> {
        let (near, far) = namespace.run(|| sockets(to))?.during(|| "making a relay".into())?;
        let at = near.local_addr().during(|| "asking a relay for its address".into())?;
        let closed = Arc::new(AtomicBool::new(false));
        let client = Arc::new(Mutex::new(None));
        let accounts = [(); 2].map(|()| Arc::new(Mutex::new(Account::default())));
        let [outward, inward] = accounts.clone();
        let (near, far) = (Arc::new(near), Arc::new(far));
        let threads = vec![
            namespace.start({
                let (near, far, client) =
                    (Arc::clone(&near), Arc::clone(&far), Arc::clone(&client));
                let (closed, mut path) = (Arc::clone(&closed), Path::new(plan, outward));
                move || {
                    let receive = |buffer: &mut [u8]| {
                        let (len, from) = near.recv_from(buffer)?;
                        *client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                        Ok(len)
                    };
                    path.run(&closed, receive, |datagram| far.send(datagram))
                }
            }),
            namespace.start({
                let closed = Arc::clone(&closed);
                let mut path = Path::new(Plan { seed: !plan.seed, ..plan }, inward);
                move || {
                    let send = |datagram: &[u8]| {
                        let to = *client.lock().unwrap_or_else(PoisonError::into_inner);
                        to.map_or(Ok(0), |to| near.send_to(datagram, to))
                    };
                    path.run(&closed, |buffer| far.recv(buffer), send)
                }
            }),
        ];
        Ok(Self { at, accounts, closed, threads })
    }

    /// The endpoint that the client is given instead of the gateway's.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// The account of what went to the gateway and of what came from it.
    #[must_use]
    pub fn accounts(&self) -> [Account; 2] {
        self.accounts
            .each_ref()
            .map(|account| *account.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A relay that failed has shown in the account already.
            let _ = thread.join();
        }
    }
}

fn sockets(to: SocketAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    let near = UdpSocket::bind(("127.0.0.1", 0))?;
    let far = match to {
        SocketAddr::V4(_) => UdpSocket::bind(("0.0.0.0", 0))?,
        SocketAddr::V6(_) => UdpSocket::bind(("::", 0))?,
    };
    far.connect(to)?;
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(TICK))?;
        set_socket_recv_buffer_size_force(socket, BUFFER_LEN)?;
    }
    Ok((near, far))
}

/// One direction.
struct Path {
    plan: Plan,
    random: Random,
    held: Vec<Held>,
    account: Arc<Mutex<Account>>,
}

struct Held {
    behind: u64,
    until: Instant,
    datagram: Vec<u8>,
}

impl Path {
    fn new(plan: Plan, account: Arc<Mutex<Account>>) -> Self {
        Self { plan, random: Random(plan.seed), held: Vec::new(), account }
    }

    fn run(
        &mut self,
        closed: &AtomicBool,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut buffer = [0; DATAGRAM_LEN];
        while !closed.load(Ordering::Relaxed) {
            let out = match receive(&mut buffer) {
                Ok(len) => self.take(buffer.get(..len).unwrap_or_default(), now()),
                Err(error) if is_pause(&error) => self.due(now()),
                Err(error) => return Err(error),
            };
            for datagram in out {
                match send(&datagram) {
                    Ok(_) => {}
                    // An ICMP error about an earlier one.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Decides about one datagram; returns what goes out now, in order.
    fn take(&mut self, datagram: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let is_data = datagram.first() == Some(&DATA);
        let fate = self.random.below(100);
        let mut out = Vec::new();
        let account = Arc::clone(&self.account);
        let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
        account.arrived += 1;
        let Plan { lose, repeat, hold, behind, .. } = self.plan;
        if fate < lose {
            account.lost += 1;
            account.content_lost += u64::from(is_data && datagram.len() > KEEPALIVE_LEN);
        } else if fate < lose + repeat {
            account.repeated += 1;
            account.data_repeated += u64::from(is_data);
            out.extend([datagram.to_vec(), datagram.to_vec()]);
        } else if fate < lose + repeat + hold {
            let behind = 1 + self.random.below(behind);
            let datagram = datagram.to_vec();
            self.held.push(Held { behind: behind + 1, until: now + HOLD_TIME, datagram });
        } else {
            out.push(datagram.to_vec());
        }
        for held in &mut self.held {
            held.behind -= 1;
        }
        let ready = |held: &mut Held| held.behind == 0 || held.until <= now;
        let late = self.held.extract_if(.., ready).map(|held| held.datagram);
        let before = out.len();
        out.extend(late);
        account.overtaken += u64::try_from(out.len() - before).unwrap_or(0);
        account.passed += u64::try_from(out.len()).unwrap_or(0);
        out
    }

    /// What has been held back for long enough.
    fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let ready = |held: &mut Held| held.until <= now;
        let out: Vec<_> = self.held.extract_if(.., ready).map(|held| held.datagram).collect();
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.passed += u64::try_from(out.len()).unwrap_or(0);
        out
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_is_accounted_for_and_every_fate_is_met() {
        const COUNT: u16 = 2000;
        let plan = Plan { seed: 7, lose: 5, repeat: 5, hold: 10, behind: 8 };
        let account = Arc::new(Mutex::new(Account::default()));
        let mut path = Path::new(plan, Arc::clone(&account));
        let start = now();
        let mut out = Vec::new();
        for number in 0..COUNT {
            let datagram = [&[DATA, 0, 0, 0][..], &[0; 60], &number.to_be_bytes()].concat();
            out.extend(path.take(&datagram, start));
        }
        assert_eq!(path.due(start), Vec::<Vec<u8>>::new(), "nothing is due yet");
        out.extend(path.due(start + HOLD_TIME));
        let account = *account.lock().unwrap();
        assert!(path.held.is_empty());
        assert_eq!(account.arrived, u64::from(COUNT));
        assert_eq!(account.arrived + account.repeated, account.lost + account.passed);
        assert_eq!(u64::try_from(out.len()).unwrap(), account.passed);
        assert_eq!((account.content_lost, account.data_repeated), (account.lost, account.repeated));
        assert!([account.lost, account.repeated, account.overtaken].iter().all(|n| *n > 50));
        let numbers: Vec<u16> =
            out.iter().map(|datagram| u16::from_be_bytes([datagram[64], datagram[65]])).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_ne!(numbers, sorted, "nothing was reordered");
        sorted.dedup();
        assert_eq!(u64::try_from(sorted.len()).unwrap(), account.arrived - account.lost);
    }

    #[test]
    fn the_same_seed_gives_the_same_path() {
        let plan = Plan { seed: 11, lose: 20, repeat: 20, hold: 20, behind: 4 };
        let run = |plan: Plan| {
            let mut path = Path::new(plan, Arc::default());
            let start = now();
            (0..200_u8).flat_map(|number| path.take(&[number], start)).collect::<Vec<_>>()
        };
        assert_eq!(run(plan), run(plan));
        assert_ne!(run(plan), run(Plan { seed: 12, ..plan }));
    }
}
