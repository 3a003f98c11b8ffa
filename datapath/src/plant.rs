//! The running datapath: ports, workers, their rings, and the ledger. Everything that exists once
//! a configuration is in force.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_engine::flow::Seed;
use bulkhead_engine::{
    Command, Counters, Defences, Edition, LinkRings, Listeners, PeerCell, Registry, Report, Setup,
    Shared, Worker, rings,
};
use bulkhead_link::{Configuration, Endpoint, FromDatapath, Status, ToDatapath};
use bulkhead_table::{EndpointId, LabelId, Table};
use bulkhead_wg::CookieSecrets;
use bulkhead_wg::limits::COOKIE_SECRET_TIME;
use bulkhead_wire::Address;
use bulkhead_xsk::{SealedMap, huge};
use tracing::{info, warn};

use crate::clock::{Clock, wall_ms};
use crate::hits::{GONE_MAX, HitBook};
use crate::ledger::{Ledger, Order};
use crate::ports::{PortError, Ports};
use crate::records;
use crate::worker_thread::WorkerThread;

/// How often the timers are asked.
const TICK_MS: u64 = 100;

/// The whole plant.
pub(crate) struct Plant {
    configuration: Configuration,
    clock: Clock,
    ports: Ports,
    ledger: Ledger,
    links: Vec<LinkRings>,
    /// Commands that did not fit a worker's ring yet, in order.
    waiting: Vec<VecDeque<Command>>,
    threads: Vec<WorkerThread>,
    counters: Vec<Arc<Counters>>,
    defences: Arc<Defences>,
    /// What the workers make cookies with, and before: kept so that no worker frees them.
    secrets: [Arc<CookieSecrets>; 2],
    renewed_ms: u64,
    /// Handshake messages that control was given and has not finished.
    with_control: u64,
    /// By worker, the generation that it judges by.
    confirmed: Vec<u64>,
    announced: u64,
    /// The newest edition, which the workers have or will have.
    edition: Option<Arc<Edition>>,
    hits: HitBook,
    /// Fences on their way: number, what control calls it, workers that have not come to it.
    fences: VecDeque<(u64, u64, usize)>,
    fences_made: u64,
    ticked_ms: u64,
}

impl Plant {
    /// Binds the ports and starts the workers.
    ///
    /// # Errors
    ///
    /// The first port that cannot serve; nothing runs then.
    pub(crate) fn start(configuration: Configuration, clock: Clock) -> Result<Self, PortError> {
        let mut ports = Ports::open(&configuration)?;
        let workers = usize::from(configuration.workers.max(1));
        let frames = configuration.frames_per_worker as usize;
        let cells: Arc<[PeerCell]> =
            (0..configuration.peers_max).map(|_| PeerCell::default()).collect();
        let seed = draw_seed()?;
        let flows = configuration.flows_per_worker as usize;
        let registry = Arc::new(Registry::new(
            flows.saturating_mul(workers),
            configuration.peers_max as usize,
            seed,
            &configuration.flows,
        ));
        let defences = Arc::new(Defences::new(random()?, random()?, draw_seed()?));
        let shared =
            Shared { peers: Arc::clone(&cells), registry, seed, defences: Arc::clone(&defences) };
        let (worker_rings, links) = rings(workers, frames);

        let mut plant = Self {
            ledger: Ledger::new(&configuration, cells),
            waiting: (0..workers).map(|_| VecDeque::new()).collect(),
            threads: vec![],
            counters: vec![],
            secrets: [defences.secrets(), defences.secrets()],
            renewed_ms: clock.now_ms(),
            defences,
            with_control: 0,
            confirmed: vec![0; workers],
            announced: 0,
            edition: None,
            hits: HitBook::new(GONE_MAX),
            fences: VecDeque::new(),
            fences_made: 0,
            ticked_ms: 0,
            links,
            clock,
            configuration,
            ports: Ports::default(),
        };
        let shares = std::mem::take(&mut ports.shares);
        for (worker, ((sockets, frames), rings)) in shares.into_iter().zip(worker_rings).enumerate()
        {
            let setup = plant.setup_of(worker, &ports);
            let counters = Arc::new(Counters::default());
            plant.counters.push(Arc::clone(&counters));
            let worker_loop = Worker::new(setup, sockets, shared.clone(), rings, frames, counters);
            let cpu = plant.configuration.cpus.get(worker).copied();
            let name = format!("worker-{worker}");
            let thread = WorkerThread::start(name, worker_loop, cpu, clock)
                .map_err(|source| PortError::Thread { worker, source })?;
            plant.threads.push(thread);
        }
        plant.ports = ports;
        plant.listen();
        info!(workers, ports = plant.configuration.ports.len(), "configured; no table yet");
        Ok(plant)
    }

    fn setup_of(&self, worker: usize, ports: &Ports) -> Setup {
        let configuration = &self.configuration;
        Setup {
            worker,
            workers: usize::from(configuration.workers.max(1)),
            // Frames are dealt evenly, whatever the fill rings have taken by now.
            frames: configuration.frames_per_worker as usize,
            addresses: configuration.addresses.iter().map(|ip| Address::from(*ip)).collect(),
            ports: ports.facts.clone(),
            sessions: configuration.sessions_max as usize,
            flows: configuration.flows_per_worker as usize,
            on_revoke: configuration.flows.on_revoke,
        }
    }

    /// What it was configured with, with the listeners of now.
    #[must_use]
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The generation that every worker judges by; 0: none.
    #[must_use]
    pub(crate) fn generation(&self) -> u64 {
        self.confirmed.iter().copied().min().unwrap_or(0)
    }

    /// What a control process that is new must know.
    pub(crate) fn greeting(&self) -> impl Iterator<Item = FromDatapath> + '_ {
        self.ledger.greeting(self.clock.now_ms())
    }

    /// Does what control says; `tell` takes what it is told.
    pub(crate) fn obey(
        &mut self,
        message: ToDatapath,
        fd: Option<OwnedFd>,
        tell: &mut dyn FnMut(FromDatapath),
    ) {
        match message {
            // Dealt with by the link, which knows whether a plant is there.
            ToDatapath::Hello { .. } | ToDatapath::Configure(_) => {}
            ToDatapath::Table { generation } => {
                if let Err(reason) = self.table(generation, fd) {
                    warn!(generation, reason, "table refused; the one before stays");
                    tell(FromDatapath::TableRefused { generation, reason });
                }
            }
            ToDatapath::Listeners(listeners) => {
                info!(listeners = listeners.len(), "other listeners");
                self.configuration.listeners = listeners;
                self.listen();
            }
            ToDatapath::Relabel { token, generation, labels } => {
                if let Err(reason) = self.relabel(generation, &labels) {
                    warn!(generation, reason, "labels refused");
                    tell(FromDatapath::RelabelRefused { token, reason });
                } else {
                    self.fence(token);
                }
            }
            ToDatapath::Peer(peer) => {
                if let Err(problem) = self.ledger.peer(peer) {
                    warn!("{problem}");
                }
            }
            ToDatapath::RemovePeer { peer } => {
                let orders = self.ledger.remove_peer(peer);
                self.carry_out(orders, tell);
            }
            ToDatapath::Session(session) => {
                match self.ledger.install(&session, self.clock.now_ms()) {
                    Ok(orders) => self.carry_out(orders, tell),
                    Err(problem) => {
                        warn!("session not installed: {problem}");
                        tell(FromDatapath::SessionRetired { index: session.index });
                    }
                }
            }
            ToDatapath::Neighbour { port, address, mac } => {
                for worker in 0..self.links.len() {
                    let address = Address::from(address);
                    self.command(worker, Command::Neighbour(port, address, mac));
                }
            }
            ToDatapath::HandshakesFinished { count } => {
                // Control cannot finish what it was not given.
                let count = u64::from(count).min(self.with_control);
                self.with_control -= count;
                self.defences.load.finished(count);
            }
            ToDatapath::AskHits { token } => {
                let now_s = u32::try_from(self.clock.now_ms() / 1_000).unwrap_or(u32::MAX);
                self.hits.answer(token, now_s).into_iter().for_each(tell);
            }
            ToDatapath::AskStatus { token } => {
                let mut status = Box::new(self.status());
                while let Some((sessions, past)) = status.take_part() {
                    tell(FromDatapath::StatusPart { token, sessions, past });
                }
                tell(FromDatapath::Status { token, status });
            }
        }
    }

    /// A control process that is new: what the one before was given is lost with it, and what waited
    /// since is too old to be worth an answer, because its senders have tried again.
    pub(crate) fn forget_handshakes(&mut self) {
        let mut lost = std::mem::take(&mut self.with_control);
        for rings in &mut self.links {
            while rings.handshakes.pop().is_ok() {
                lost += 1;
            }
        }
        self.defences.load.finished(lost);
    }

    /// Takes what the workers report, at most `room` handshake messages among it, and looks at the
    /// timers when it is time. What there is no room for waits in the rings, and counts as load.
    pub(crate) fn attend(&mut self, mut room: usize, tell: &mut dyn FnMut(FromDatapath)) {
        for worker in 0..self.links.len() {
            self.reports_of(worker, tell);
            room -= self.handshakes_of(worker, room, tell);
            self.flush(worker);
        }
        let generation = self.generation();
        if generation > self.announced {
            self.announced = generation;
            info!(generation, "every worker judges by it");
            tell(FromDatapath::Confirmed { generation });
        }
        let now_ms = self.clock.now_ms();
        if now_ms >= self.ticked_ms + TICK_MS {
            self.ticked_ms = now_ms;
            self.renew_cookies(now_ms);
            let orders = self.ledger.tick(now_ms);
            self.carry_out(orders, tell);
        }
    }

    /// Tells what the workers have logged, in at most `room` messages. What there is no room for waits in
    /// the rings, and is lost when those are full.
    pub(crate) fn tell_records(&mut self, room: usize, tell: &mut dyn FnMut(FromDatapath)) {
        records::tell_records(&mut self.links, room, (self.clock.now_ms(), wall_ms()), tell);
    }

    fn table(&mut self, generation: u64, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.ok_or("the message came without its memfd")?;
        let map = SealedMap::new(fd).map_err(|problem| problem.to_string())?;
        // A memfd stands in small pages, and its mapping would go on to be seen by whoever sent it.
        let bytes = huge::Bytes::copy_of(map.as_ref());
        let table = Table::new(Arc::new(bytes)).map_err(|problem| problem.to_string())?;
        if table.generation() != generation {
            return Err(format!("its header says generation {}", table.generation()));
        }
        let in_force = self.generation();
        if generation <= in_force {
            return Err(format!("generation {in_force} is in force already"));
        }
        let edition = Arc::new(Edition::new(table, self.links.len()));
        self.hits.sent(&edition, self.links.len());
        for worker in 0..self.links.len() {
            self.command(worker, Command::Table(Arc::clone(&edition)));
        }
        self.edition = Some(edition);
        Ok(())
    }

    /// Gives endpoints of the newest edition other labels. What is valid is done; the first mistake is
    /// the answer.
    fn relabel(&mut self, generation: u64, labels: &[(u32, u16)]) -> Result<(), String> {
        let edition = self.edition.as_ref().ok_or("no table has been sent")?;
        let newest = edition.table().generation();
        if newest != generation {
            return Err(format!("generation {newest} is the newest; nothing changed"));
        }
        // Every label, also after a mistake: what can be taken away is.
        let mut mistake = Ok(());
        for (endpoint, label) in labels {
            let done = edition.relabel(EndpointId(*endpoint), LabelId(*label));
            mistake = mistake.and(done.map_err(|problem| problem.to_string()));
        }
        mistake
    }

    /// Answers `token` once every worker has finished the batch that it is in.
    fn fence(&mut self, token: u64) {
        self.fences_made += 1;
        self.fences.push_back((self.fences_made, token, self.links.len()));
        for worker in 0..self.links.len() {
            self.command(worker, Command::Fence(self.fences_made));
        }
    }

    /// Tells every worker where to listen, and with which keys.
    fn listen(&mut self) {
        let listeners = Listeners::new(&self.configuration.listeners);
        for worker in 0..self.links.len() {
            self.command(worker, Command::Listeners(Arc::clone(&listeners)));
        }
    }

    fn reports_of(&mut self, worker: usize, tell: &mut dyn FnMut(FromDatapath)) {
        let Some(rings) = self.links.get_mut(worker) else { return };
        while let Ok(report) = rings.reports.pop() {
            match report {
                Report::Confirmed(generation, before) => {
                    if let Some(confirmed) = self.confirmed.get_mut(worker) {
                        *confirmed = generation;
                    }
                    if let Some(before) = before {
                        self.hits.left(worker, &before);
                    }
                }
                Report::Passed(fence) => {
                    for (_, _, left) in self.fences.iter_mut().filter(|found| found.0 == fence) {
                        *left = left.saturating_sub(1);
                    }
                    while let Some((_, token, 0)) = self.fences.front().copied() {
                        self.fences.pop_front();
                        tell(FromDatapath::Relabelled { token });
                    }
                }
                Report::Relistened(before) => drop(before),
                Report::Forgotten(slot) => drop(slot),
                Report::Installed(index) => tell(FromDatapath::SessionInstalled { index }),
                Report::SessionWanted(peer) => {
                    if let Some(message) = self.ledger.wanted(peer, self.clock.now_ms()) {
                        tell(message);
                    }
                }
                Report::NeighbourWanted(port, address) => {
                    tell(FromDatapath::NeighbourWanted { port, address: address.to_ip() });
                }
            }
        }
    }

    fn renew_cookies(&mut self, now_ms: u64) {
        if u128::from(now_ms.saturating_sub(self.renewed_ms)) < COOKIE_SECRET_TIME.as_millis() {
            return;
        }
        self.renewed_ms = now_ms;
        // Without randomness the secret gets older; it is no worse than it was.
        let Ok(secret) = random() else { return warn!("no randomness for a new cookie secret") };
        let [current, _] = &self.secrets;
        let next = Arc::new(current.renewed(secret));
        self.secrets = [Arc::clone(&next), Arc::clone(current)];
        for worker in 0..self.links.len() {
            self.command(worker, Command::Cookies(Arc::clone(&next)));
        }
    }

    /// Tells control of at most `room` handshake messages; returns of how many.
    fn handshakes_of(
        &mut self,
        worker: usize,
        room: usize,
        tell: &mut dyn FnMut(FromDatapath),
    ) -> usize {
        let Some(rings) = self.links.get_mut(worker) else { return 0 };
        let mut told = 0;
        while told < room
            && let Ok(handshake) = rings.handshakes.pop()
        {
            told += 1;
            tell(FromDatapath::Handshake {
                // At most WORKERS_MAX, which fits.
                worker: u8::try_from(worker).unwrap_or(u8::MAX),
                listener: handshake.listener,
                from: Endpoint::from(&handshake.place),
                message: handshake.bytes().to_vec(),
            });
        }
        self.with_control += told as u64;
        told
    }

    fn carry_out(&mut self, orders: Vec<Order>, tell: &mut dyn FnMut(FromDatapath)) {
        for order in orders {
            match order {
                Order::Worker(worker, command) => self.command(worker, command),
                Order::Tell(message) => tell(message),
            }
        }
    }

    fn command(&mut self, worker: usize, command: Command) {
        if let Some(waiting) = self.waiting.get_mut(worker) {
            waiting.push_back(command);
        }
        self.flush(worker);
    }

    /// Moves waiting commands into a worker's ring, as many as fit, and wakes it.
    fn flush(&mut self, worker: usize) {
        let (Some(rings), Some(waiting)) =
            (self.links.get_mut(worker), self.waiting.get_mut(worker))
        else {
            return;
        };
        let mut moved = false;
        while rings.commands.slots() > 0
            && let Some(command) = waiting.pop_front()
        {
            moved |= rings.commands.push(command).is_ok();
        }
        if moved && let Some(thread) = self.threads.get(worker) {
            thread.wake();
        }
    }

    fn status(&self) -> Status {
        let now_ms = self.clock.now_ms();
        Status {
            generation: self.generation(),
            uptime: self.clock.elapsed(),
            workers: self.counters.iter().map(|counters| counters.read()).collect(),
            ports: self.ports.status(),
            sessions: self.ledger.status(now_ms).collect(),
            past: self.ledger.past(now_ms).collect(),
        }
    }
}

fn random<const LEN: usize>() -> Result<[u8; LEN], PortError> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|source| PortError::Randomness(source.into()))?;
    Ok(bytes)
}

/// The secret of hashes, from the system: an attacker who knew it could fill one bucket.
fn draw_seed() -> Result<Seed, PortError> {
    let bytes: [u8; 16] = random()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    let [first, second] = [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]];
    Ok(Seed(u64::from_ne_bytes(first), u64::from_ne_bytes(second)))
}
