//! The loop of one core, and its housekeeping.
//!
//! ```text
//!   turn(now) ─┬─ commands      tables, sessions, neighbours: between batches and nowhere else
//!              ├─ held packets  that can go now, or have waited too long
//!              ├─ handed in     packets of my sessions that arrived elsewhere
//!              ├─ sockets       up to a batch each
//!              └─ transmit, reclaim, fill, flush, publish the counters
//! ```
//!
//! INVARIANT, between two turns: `received + handed in == ends + held + handed out`, and every
//! frame at home here is in the pool, at a port, held, or on another worker.

use std::sync::Arc;

use bulkhead_link::{End, SessionIndex};
use bulkhead_table::{PeerIndex, RuleIndex};
use bulkhead_xsk::{Frame, Packet};

use crate::cache::FlowCache;
use crate::counters::{Counters, Tally};
use crate::edition::Edition;
use crate::flow::Seed;
use crate::fragments::Trains;
use crate::handoff::{Command, Report, WorkerRings};
use crate::hold::{Hold, Missing};
use crate::limits::{BATCH_MAX, ERRORS_PER_SECOND, NEIGHBOUR_WAIT_MS};
use crate::listeners::Listeners;
use crate::neighbour::Neighbours;
use crate::packet::{Course, Hop, Transit};
use crate::port::Port;
use crate::registry::{Over, Registry};
use crate::session::{PeerCell, Sessions};
use crate::setup::Setup;
use crate::stage::guard::{Defences, Guard};
use crate::stage::{complain, emit, guard, judge, open, revoke, route, seal, steer};

/// How often held packets are looked at when nothing has happened, milliseconds.
const TICK_MS: u64 = 10;

/// One socket of a worker.
pub struct Attached<P> {
    /// The index of its network port.
    pub port: u8,
    /// The queue.
    pub socket: P,
    /// Received packets on their way out.
    forwarded: Vec<Packet>,
    /// Of each of those the rule that lets it pass, and the length of its inner IP packet.
    credits: Vec<(RuleIndex, u16)>,
    /// Handshake messages that became the answers to themselves.
    answers: Vec<Packet>,
    /// Packets that the gateway made.
    own: Vec<Packet>,
}

impl<P> Attached<P> {
    /// A queue of the network port with index `port`.
    #[must_use]
    pub fn new(port: u8, socket: P) -> Self {
        let [forwarded, answers, own] =
            [4 * BATCH_MAX, BATCH_MAX, BATCH_MAX].map(Vec::with_capacity);
        let credits = Vec::with_capacity(4 * BATCH_MAX);
        Self { port, socket, forwarded, credits, answers, own }
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// By peer index.
    pub peers: Arc<[PeerCell]>,
    /// Opened flows.
    pub registry: Arc<Registry>,
    /// The secret of the flow hashes.
    pub seed: Seed,
    /// Against floods of handshakes.
    pub defences: Arc<Defences>,
}

/// One core's share of the gateway.
pub struct Worker<P> {
    setup: Setup,
    sockets: Vec<Attached<P>>,
    shared: Shared,
    rings: WorkerRings,
    edition: Option<Arc<Edition>>,
    listeners: Arc<Listeners>,
    guard: Guard,
    sessions: Sessions,
    flows: FlowCache,
    trains: Trains,
    neighbours: Neighbours,
    hold: Hold,
    pool: Vec<Frame>,
    returned: Vec<Frame>,
    batch: Vec<Transit>,
    kept: Vec<Transit>,
    complaints: Vec<Transit>,
    allowance: complain::Allowance,
    revocations: complain::Allowance,
    tally: Tally,
    counters: Arc<Counters>,
    /// The time of this turn.
    now_s: u32,
    look_at_held: bool,
    ticked_ms: u64,
    swept_ms: u64,
}

impl<P: Port> Worker<P> {
    /// A worker with everything that it will ever allocate.
    #[must_use]
    pub fn new(
        setup: Setup,
        sockets: Vec<Attached<P>>,
        shared: Shared,
        rings: WorkerRings,
        frames: Vec<Frame>,
        counters: Arc<Counters>,
    ) -> Self {
        let all = setup.frames * setup.workers.max(1);
        let mut pool = Vec::with_capacity(all);
        let mut tally = Tally::default();
        tally.frames = setup.frames as u64;
        pool.extend(frames);
        Self {
            sessions: Sessions::new(setup.sessions),
            flows: FlowCache::new(setup.flows, shared.seed, *shared.registry.timeouts()),
            trains: Trains::new(shared.seed),
            neighbours: Neighbours::default(),
            hold: Hold::default(),
            pool,
            returned: Vec::with_capacity(all),
            batch: Vec::with_capacity(BATCH_MAX),
            kept: Vec::with_capacity(BATCH_MAX),
            complaints: Vec::with_capacity(BATCH_MAX),
            allowance: complain::Allowance::default(),
            revocations: complain::Allowance::default(),
            edition: None,
            listeners: Arc::default(),
            guard: Guard::new(Arc::clone(&shared.defences), setup.worker),
            now_s: 0,
            look_at_held: false,
            ticked_ms: 0,
            swept_ms: 0,
            setup,
            sockets,
            shared,
            rings,
            tally,
            counters,
        }
    }

    /// One round over everything that may be waiting. `now_ms` is the datapath's clock in
    /// milliseconds, read once for the whole turn. Returns whether there was anything to do.
    pub fn turn(&mut self, now_ms: u64) -> bool {
        self.now_s = seconds(now_ms);
        let mut busy = self.commands(now_ms);
        self.sweep(now_ms);
        self.held(now_ms);
        busy |= self.handed_in(now_ms);
        for at in 0..self.sockets.len() {
            busy |= self.receive(at, now_ms);
        }
        busy |= self.transmit();
        self.tally.held = self.hold.len() as u64;
        self.tally.flows = self.flows.len();
        self.tally.log = self.rings.log.counts();
        self.counters.publish(&self.tally);
        busy
    }

    /// Its sockets, for whoever waits on them.
    #[must_use]
    pub fn sockets(&self) -> &[Attached<P>] {
        &self.sockets
    }

    /// Its sockets, for the far end of a port in memory.
    pub fn sockets_mut(&mut self) -> &mut [Attached<P>] {
        &mut self.sockets
    }

    /// Frames in the pool and in packets that are held: with those at the ports, all of them.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.pool.len() + self.hold.len()
    }

    fn commands(&mut self, now_ms: u64) -> bool {
        let mut busy = false;
        // A command reports two things at most; what cannot be reported waits with its command.
        while self.rings.reports.slots() > 1 {
            let Ok(command) = self.rings.commands.pop() else { break };
            (busy, self.look_at_held) = (true, true);
            match command {
                Command::Table(edition) => {
                    let generation = edition.table().generation();
                    let before = self.edition.replace(edition);
                    self.report(Report::Confirmed(generation, before));
                }
                Command::Fence(fence) => self.report(Report::Passed(fence)),
                Command::Listeners(listeners) => {
                    let before = core::mem::replace(&mut self.listeners, listeners);
                    self.report(Report::Relistened(before));
                }
                Command::Cookies(secrets) => self.guard.renew(secrets),
                Command::Install(session, window) => {
                    let (peer, index) = (session.peer, session.index);
                    let (opens, initiator) = (window.is_some(), session.initiator);
                    let before = self.sessions.install(session, window);
                    if before.session.is_some() {
                        self.report(Report::Forgotten(before));
                    }
                    if opens {
                        self.report(Report::Installed(index));
                    }
                    if opens && initiator {
                        // The responder may not send before it has heard from us.
                        self.keepalive(peer, now_ms);
                    }
                }
                Command::Remove(index) => {
                    let before = self.sessions.remove(index);
                    self.report(Report::Forgotten(before));
                }
                Command::Neighbour(port, address, mac) => self.neighbours.set(port, address, mac),
                Command::Keepalive(peer) => self.keepalive(peer, now_ms),
            }
        }
        busy
    }

    /// Reports; without room the report is given up, and with it what it carries.
    fn report(&mut self, report: Report) {
        drop(self.rings.reports.push(report));
    }

    fn keepalive(&mut self, peer: PeerIndex, now_ms: u64) {
        let Some(frame) = self.pool.pop() else { return };
        let start = u16::try_from(crate::limits::SEAL_HEADROOM).unwrap_or(0);
        self.batch.push(Transit::originated(frame, start, 0, Hop::Peer(peer)));
        self.seal_and_send(false, now_ms);
    }

    /// A little of the registry each millisecond, another part than the other workers.
    fn sweep(&mut self, now_ms: u64) {
        if now_ms != self.swept_ms {
            self.swept_ms = now_ms;
            let turn = now_ms + (64 * self.setup.worker / self.setup.workers.max(1)) as u64;
            let generation =
                self.edition.as_ref().map_or(0, |edition| edition.table().generation());
            let (log, now_s) = (&mut self.rings.log, seconds(now_ms));
            let over = |gone: Over| log.write(gone.record(now_s, generation));
            self.shared.registry.sweep(turn, now_s, over);
        }
    }

    fn held(&mut self, now_ms: u64) {
        let tick = now_ms >= self.ticked_ms + TICK_MS;
        if self.hold.is_empty() || !(tick || core::mem::take(&mut self.look_at_held)) {
            return;
        }
        self.ticked_ms = now_ms;
        self.hold.expire(now_ms, &mut self.batch);
        self.finish();
        let (sessions, peers, neighbours) = (&self.sessions, &self.shared.peers, &self.neighbours);
        let ready = |missing| match missing {
            Missing::Session(PeerIndex(peer)) => peers
                .get(peer as usize)
                .is_some_and(|cell: &PeerCell| sessions.sending(cell).is_some()),
            Missing::Neighbour(port, address) => neighbours.get(port, address).is_some(),
        };
        self.hold.release(ready, &mut self.batch);
        self.enter_at_judge(now_ms);
    }

    fn handed_in(&mut self, now_ms: u64) -> bool {
        let mut busy = false;
        for at in 0..self.rings.from.len() {
            if let Some(Some(ring)) = self.rings.home_from.get_mut(at) {
                while let Ok(frame) = ring.pop() {
                    self.pool.push(frame);
                }
            }
            let Some(Some(ring)) = self.rings.from.get_mut(at) else { continue };
            while self.batch.len() < BATCH_MAX
                && let Ok(transit) = ring.pop()
            {
                self.batch.push(transit);
            }
            if !self.batch.is_empty() {
                busy = true;
                self.tally.handed_in += self.batch.len() as u64;
                self.enter_at_open(now_ms);
            }
        }
        busy
    }

    fn receive(&mut self, at: usize, now_ms: u64) -> bool {
        let Some(attached) = self.sockets.get_mut(at) else { return false };
        let (port, batch, mut bytes) = (attached.port, &mut self.batch, 0);
        let count = attached.socket.receive(BATCH_MAX, |packet| {
            bytes += u64::from(packet.len);
            batch.push(Transit::received(packet, port));
        });
        if count == 0 {
            return false;
        }
        self.tally.received.packets += count as u64;
        self.tally.received.bytes += bytes;
        let steered = steer::steer(&mut self.batch, &self.setup, &self.listeners);
        if steered.handshakes {
            self.guard(at, now_ms);
        }
        if steered.foreign {
            self.hand_out();
        }
        self.enter_at_open(now_ms);
        true
    }

    /// Judges handshake messages, and sends what the guard has turned around back through the socket that it
    /// came from.
    fn guard(&mut self, at: usize, now_ms: u64) {
        let answers = guard::guard(
            &mut self.batch,
            &mut self.guard,
            &self.setup,
            &self.listeners,
            &mut self.rings.handshakes,
            now_ms,
        );
        if !answers {
            return;
        }
        let Some(attached) = self.sockets.get_mut(at) else { return };
        for transit in self.batch.drain(..) {
            if matches!(transit.course, Course::Answer) {
                let Transit { frame, start, len, .. } = transit;
                attached.answers.push(Packet { frame, start, len });
            } else {
                self.kept.push(transit);
            }
        }
        core::mem::swap(&mut self.batch, &mut self.kept);
        self.send(at);
    }

    /// Gives the packets of other workers' sessions to their workers.
    fn hand_out(&mut self) {
        let me = self.setup.worker;
        let foreign = |transit: &Transit| {
            let index = transit.session().filter(|_| transit.goes_on());
            index.map(SessionIndex::worker).filter(|owner| *owner != me)
        };
        for mut transit in self.batch.drain(..) {
            match foreign(&transit) {
                None => self.kept.push(transit),
                Some(owner) => match self.rings.to.get_mut(owner) {
                    Some(Some(ring)) => match ring.push(transit) {
                        Ok(()) => self.tally.handed_out += 1,
                        Err(rtrb::PushError::Full(back)) => {
                            transit = back;
                            transit.end = Some(End::DropHandoffFull);
                            self.kept.push(transit);
                        }
                    },
                    // No such worker: nobody has that session.
                    Some(None) | None => {
                        transit.end = Some(End::DropNoSession);
                        self.kept.push(transit);
                    }
                },
            }
        }
        core::mem::swap(&mut self.batch, &mut self.kept);
    }

    fn enter_at_open(&mut self, now_ms: u64) {
        let confirmed = open::open(&mut self.batch, &mut self.sessions, &self.shared.peers, now_ms);
        self.look_at_held |= confirmed;
        self.enter_at_judge(now_ms);
    }

    fn enter_at_judge(&mut self, now_ms: u64) {
        let Some(edition) = &self.edition else {
            // No table, no rule: whatever was admitted so far ends here.
            for transit in self.batch.iter_mut().filter(|transit| transit.goes_on()) {
                transit.end = Some(End::DropNoRule);
            }
            return self.finish();
        };
        let law = edition.law(self.setup.worker);
        let now_s = seconds(now_ms);
        let denied = judge::judge(
            &mut self.batch,
            &law,
            &mut self.flows,
            &mut self.trains,
            &self.shared.registry,
            &mut self.rings.log,
            now_s,
        );
        let routed = route::route(
            &mut self.batch,
            &law.table,
            &self.setup,
            &self.neighbours,
            &self.sessions,
            &self.shared.peers,
        );
        if denied {
            revoke::revoke(
                &self.batch,
                (&law.table, &self.setup, &self.neighbours),
                &mut self.revocations,
                now_s,
                &mut self.pool,
                &mut self.complaints,
            );
        }
        if routed.ended {
            self.complain(now_s);
        }
        if routed.waiting {
            self.keep_waiting(now_ms);
        }
        self.seal_and_send(routed.plain, now_ms);
        if !self.complaints.is_empty() {
            core::mem::swap(&mut self.batch, &mut self.complaints);
            self.seal_and_send(true, now_ms);
        }
    }

    /// ICMP errors about what could not be forwarded.
    fn complain(&mut self, now_s: u32) {
        for about in self.batch.iter().filter(|transit| complain::deserves(transit.end)) {
            if self.complaints.len() == BATCH_MAX || !self.allowance.take(now_s, ERRORS_PER_SECOND)
            {
                break;
            }
            let Some(frame) = self.pool.pop() else { break };
            match complain::complain(about, frame, &self.setup) {
                Ok(error) => self.complaints.push(error),
                Err(frame) => self.pool.push(frame),
            }
        }
    }

    /// Holds the packets that miss a session or a neighbour, and asks for it once.
    fn keep_waiting(&mut self, now_ms: u64) {
        for mut transit in self.batch.drain(..) {
            let missing = transit.missing().filter(|_| transit.goes_on());
            transit.waits = false;
            let Some(missing) = missing else {
                self.kept.push(transit);
                continue;
            };
            let (wait, wanted) = match missing {
                Missing::Session(peer) => {
                    (self.listeners.session_wait_ms(), Report::SessionWanted(peer))
                }
                Missing::Neighbour(port, address) => {
                    (NEIGHBOUR_WAIT_MS, Report::NeighbourWanted(port, address))
                }
            };
            let (dropped, first) = self.hold.keep(transit, missing, now_ms + wait);
            // At most one goes for one that comes, so `kept` has room.
            self.kept.extend(dropped);
            if first {
                drop(self.rings.reports.push(wanted));
            }
        }
        core::mem::swap(&mut self.batch, &mut self.kept);
    }

    /// `plain`: there may be packets to a segment among them.
    fn seal_and_send(&mut self, plain: bool, now_ms: u64) {
        seal::seal(&mut self.batch, &self.sessions, &self.shared.peers, now_ms);
        if plain {
            emit::emit(&mut self.batch, &self.setup);
        }
        self.finish();
    }
}

/// The clock of flows: seconds.
fn seconds(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX)
}

mod leave;
#[cfg(test)]
mod tests;
