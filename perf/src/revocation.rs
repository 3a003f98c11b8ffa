//! How long a device that lost its posture is still heard, with many flows alive under traffic.
//!
//! ```text
//!   laptop ── UDP over all flows in turn, half of the capacity ──▶ gateway ──▶ host    arrivals timed
//!   local API ── disk_encrypted = false ──▶ acknowledged ─┐
//!                                     last arrival ───────┴─▶ one figure
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bulkhead_tests::office::{LAPTOP, LEGACY};
use bulkhead_tests::{
    Deadline, Failure, Look, Office, Outer, WirePeer, inner, monotonic_ns, until,
};
use serde_json::{Value, json};

use crate::profile::{Profile, RevocationSetup};

/// The goal for p99.9.
const TARGET: Duration = Duration::from_millis(5);

/// So long without an arrival, and what was under way has arrived.
const SILENCE: Duration = Duration::from_millis(60);

/// How often the sender looks at its pace. Between two bursts nothing arrives, so this is how finely a
/// lateness is seen.
const SLICE: Duration = Duration::from_micros(100);

/// Slices that it makes up for when it was away.
const SLICES_OWED: u32 = 50;

/// How often the laptop looks after its session: often enough for the timers of the protocol, and too
/// seldom to be seen in the figures.
const PROTOCOL: Duration = Duration::from_secs(5);

/// The first source port; below are those of well-known services.
const SOURCE_PORTS: std::ops::Range<u16> = 1_024..61_024;

/// The host's ports.
const PORTS: [u16; 4] = [7_000, 7_001, 7_002, 7_003];

fn policy(flows: u32) -> String {
    let more = flows.saturating_mul(2);
    format!(
        r#"
[flows]
new_per_second = 1000000
live_per_source = {more}
[flows.timeouts]
udp = "3600s"
udp_stream = "3600s"
[posture.sound]
require = {{ disk_encrypted = true }}
[service.measurement]
ports = ["udp/7000-7003"]
[[rule]]
id = "measurement"
from = ["device:anna-laptop"]
to = ["segment:offices"]
services = ["measurement"]
posture = ["sound"]
"#
    )
}

/// Runs the profile and prints its figures.
///
/// # Errors
///
/// If the world does not come up, or a change does not show.
#[expect(clippy::print_stdout, reason = "the report is the product")]
pub fn run(profile: &Profile, setup: RevocationSetup) -> Result<(), Failure> {
    for load in &profile.load {
        let mut office = Office::build()?;
        let config = office.config(&policy(setup.flows));
        let per_worker = format!("[gateway]\nflows_per_worker = {}\n", setup.flows.max(1_024) * 2);
        office.gateway.write_config(&config.replace("[gateway]\n", &per_worker))?;
        office.gateway.start_and_wait(Deadline::seconds(30))?;
        tell(&office, true)?;

        let arrivals = Arrivals::start(&office)?;
        let sender = Sender::start(&office, setup.flows, load.payload.unwrap_or(64))?;
        sender.open_all(u64::from(setup.flows))?;
        let (from, start) = (arrivals.count(), monotonic_ns());
        sender.pace(u64::MAX);
        thread::sleep(Duration::from_secs(profile.seconds.into()));
        let capacity = per_second(arrivals.count() - from, monotonic_ns() - start);
        sender.pace(capacity / 2);
        let (from, start) = (arrivals.count(), monotonic_ns());
        thread::sleep(Duration::from_secs(1));
        let half = per_second(arrivals.count() - from, monotonic_ns() - start);
        let live = live_flows(&office)?;
        println!(
            "perf revocation {}: {live} live flows; capacity {capacity} packets/s, load {half}",
            load.name
        );
        let (mut late, mut after_command) = (vec![], vec![]);
        for _ in 0..setup.changes {
            let (from_answer, from_command) = change(&office, &arrivals)?;
            late.push(from_answer);
            after_command.push(from_command);
        }
        let live = live_flows(&office)?;
        sender.stop()?;
        office.gateway.counters()?.check_conserved()?;
        println!("perf revocation {}: {live} live flows at the end", load.name);
        report(&load.name, &mut late);
        // That this is more than nothing shows that arrivals are seen up to the cut.
        let [p50, p99, _, most] = quantiles(&mut after_command);
        println!(
            "perf revocation {}: command to last arrival: p50 {p50:?}, p99 {p99:?}, most {most:?}",
            load.name
        );
    }
    Ok(())
}

/// One loss and one return; how long after the acknowledgement something still arrived, and how long after
/// the command.
fn change(office: &Office, arrivals: &Arrivals) -> Result<(Duration, Duration), Failure> {
    let flowing = arrivals.count();
    until(Deadline::seconds(10), "traffic", || {
        let more = arrivals.count() - flowing;
        Ok(if more > 200 { Look::Ready(()) } else { Look::NotYet(more.to_string()) })
    })?;
    let command = monotonic_ns();
    let cut = tell(office, false)?;
    let silence = u64::try_from(SILENCE.as_nanos()).unwrap_or(u64::MAX);
    let last = until(Deadline::seconds(10), "silence", || {
        let last = arrivals.last();
        let quiet = monotonic_ns().saturating_sub(last.max(cut));
        Ok(if quiet > silence { Look::Ready(last) } else { Look::NotYet(quiet.to_string()) })
    })?;
    tell(office, true)?;
    let since = |moment| Duration::from_nanos(last.saturating_sub(moment));
    Ok((since(cut), since(command)))
}

/// The value that half, 99 %, 99.9 % and all of them do not pass. Sorts them.
fn quantiles(all: &mut [Duration]) -> [Duration; 4] {
    all.sort_unstable();
    [500, 990, 999, 1_000].map(|thousandths| {
        let place = (all.len() * thousandths).div_ceil(1_000).max(1) - 1;
        all.get(place).copied().unwrap_or_default()
    })
}

#[expect(clippy::print_stdout, reason = "the report is the product")]
fn report(load: &str, late: &mut [Duration]) {
    let [p50, p99, p999, most] = quantiles(late);
    let mut under = Duration::from_micros(125);
    let mut before = 0;
    while before < late.len() {
        let count = late.iter().filter(|one| **one <= under).count();
        println!("perf revocation {load}: {:>6} within {under:?}", count - before);
        (before, under) = (count, under * 2);
    }
    println!(
        "perf revocation {load}: {} changes, acknowledged to last arrival: p50 {p50:?}, p99 {p99:?}, \
         p99.9 {p999:?}, most {most:?}; target {TARGET:?} at p99.9",
        late.len(),
    );
}

/// Says so on the local API; returns when it was acknowledged.
fn tell(office: &Office, encrypted: bool) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("control.sock: {error}"));
    let request = json!({
        "request": "context-set",
        "changes": [{ "device": "anna-laptop", "set": { "disk_encrypted": encrypted } }],
    });
    let mut stream =
        UnixStream::connect(office.gateway.run_dir().join("control.sock")).map_err(failed)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    let at = monotonic_ns();
    match answer.contains("\"trouble\":[]") {
        true => Ok(at),
        false => Err(Failure::new(answer)),
    }
}

fn live_flows(office: &Office) -> Result<u64, Failure> {
    let status = office.gateway.cli_json(&["status"])?;
    let workers = status.pointer("/datapath/workers").and_then(Value::as_array);
    let flows = workers.into_iter().flatten().filter_map(|worker| worker.get("flows")?.as_u64());
    Ok(flows.sum())
}

fn per_second(count: u64, nanoseconds: u64) -> u64 {
    let each = u128::from(count) * 1_000_000_000 / u128::from(nanoseconds.max(1));
    u64::try_from(each).unwrap_or(u64::MAX)
}

/// What arrives at the host of the segment.
struct Arrivals(Arc<Seen>);

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    last_ns: AtomicU64,
}

impl Arrivals {
    /// One socket and thread for each port. They end with the process.
    fn start(office: &Office) -> Result<Self, Failure> {
        let seen = Arc::new(Seen::default());
        for port in PORTS {
            let at = SocketAddr::new(LEGACY.into(), port);
            let socket = office.legacy.run(|| UdpSocket::bind(at))?;
            let socket = socket.map_err(|error| Failure::new(format!("{at}: {error}")))?;
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while socket.recv(&mut buffer).is_ok() {
                    seen.last_ns.fetch_max(monotonic_ns(), Ordering::Relaxed);
                    seen.count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self(seen))
    }

    fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    fn last(&self) -> u64 {
        self.0.last_ns.load(Ordering::Relaxed)
    }
}

/// The laptop.
struct Sender {
    order: Arc<Order>,
    thread: JoinHandle<Result<(), Failure>>,
}

#[derive(Default)]
struct Order {
    stop: AtomicBool,
    /// Packets a second.
    pace: AtomicU64,
    sent: AtomicU64,
}

impl Sender {
    fn start(office: &Office, flows: u32, payload: u16) -> Result<Self, Failure> {
        let mut peer = office.laptop_peer(Outer::V4)?;
        peer.handshake(Deadline::seconds(10))?;
        let payload = vec![0x5a; payload.into()];
        let from = |port| SocketAddr::new(IpAddr::from(LAPTOP), port);
        let to = |port| SocketAddr::new(IpAddr::from(LEGACY), port);
        let pairs = PORTS.into_iter().flat_map(|to| SOURCE_PORTS.map(move |from| (from, to)));
        let wanted = usize::try_from(flows).unwrap_or(usize::MAX);
        let packets =
            pairs.take(wanted).map(|(one, other)| inner::udp(from(one), to(other), &payload));
        let packets = packets.collect::<Result<Vec<_>, _>>()?;
        if packets.len() < wanted {
            return Err(Failure::new(format!("at most {} flows", packets.len())));
        }
        let order = Arc::new(Order::default());
        let told = Arc::clone(&order);
        let thread = thread::spawn(move || send(&mut peer, &packets, &told));
        Ok(Self { order, thread })
    }

    fn pace(&self, per_second: u64) {
        self.order.pace.store(per_second, Ordering::Relaxed);
    }

    /// Sends every flow its first packet, at a pace that nothing drops.
    fn open_all(&self, flows: u64) -> Result<(), Failure> {
        self.pace(10_000);
        until(Deadline::seconds(flows / 5_000 + 10), "all flows to open", || {
            let sent = self.order.sent.load(Ordering::Relaxed);
            Ok(if sent >= flows { Look::Ready(()) } else { Look::NotYet(sent.to_string()) })
        })
    }

    fn stop(self) -> Result<(), Failure> {
        self.order.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failure::new("the sender panicked"))?
    }
}

/// Sends the packets in turn at the pace that is ordered. A pause is made up for as far as
/// [`SLICES_OWED`] slices.
fn send(peer: &mut WirePeer, packets: &[Vec<u8>], order: &Order) -> Result<(), Failure> {
    let mut turn = packets.iter().cycle();
    let mut protocol = Deadline::after(PROTOCOL);
    let mut before = monotonic_ns();
    while !order.stop.load(Ordering::Relaxed) {
        let pace = order.pace.load(Ordering::Relaxed);
        let now = monotonic_ns();
        let owed = Duration::from_nanos(now - before).min(SLICES_OWED * SLICE);
        before = now;
        let due = owed.as_nanos().saturating_mul(pace.into()) / 1_000_000_000;
        let due = usize::try_from(due).unwrap_or(usize::MAX).min(256);
        for packet in turn.by_ref().take(due) {
            peer.send(packet)?;
        }
        order.sent.fetch_add(u64::try_from(due).unwrap_or(0), Ordering::Relaxed);
        if pace < u64::MAX {
            thread::sleep(SLICE);
        }
        // Keepalives and new keys. It waits for 20 ms, in which nothing is sent.
        if protocol.is_over() {
            peer.receive(Deadline::after(Duration::ZERO))?;
            protocol = Deadline::after(PROTOCOL);
        }
    }
    Ok(())
}
