//! The event loop of `bulkheadd`. Everything that waits is here, and in the three things that it
//! starts: the handshake thread, the mirror of the kernel's neighbours, and one task per connection
//! of the CLI or of `wg`. All decisions are in [`crate::state`].
//!
//! ```text
//!   signals, link.sock, control.sock, wg, handshakes, neighbours, time ──▶ State ──▶ Action ──▶ carry_out
//! ```

mod addresses;
mod change;
mod datapath;
mod error;
mod facts;
mod inputs;
mod keep;
mod start;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::api::Answer;
use crate::changes::{Changes, Moment};
use crate::clock::{Clock, boot_clock, wall_clock};
use crate::control_socket::Asked;
use crate::detach;
use crate::flow_log::{Batch, FlowLog};
use crate::handshake_thread::HandshakeThread;
use crate::history::History;
use crate::intent::Intent;
use crate::link_end::{LinkEnd, Post, registered};
use crate::mirror::{self, Command, Heard, OwnAddresses};
use crate::outer::OuterSockets;
use crate::run_dir::{CONTROL_SOCKET, LINK_SOCKET, RunDir};
use crate::state::{Action, Plan, Record, RequestId, State};
use crate::supervisor::Supervisor;
use crate::timestamps::{Timestamps, replace};
use crate::userspace_socket::{self, FiguresAsked, UserspaceSockets};
use crate::wall_timer::WallTimer;
use addresses::Asking;
use change::FileLook;
pub use error::DaemonError;
use facts::FactKeeper;
use inputs::{Attempt, CONNECTIONS_MAX, Compiled, Event, Inputs, Loaded, LookedUp, Ordered};
use keep::Written;
use start::{Kept, RECORD, begin};

/// How long the datapath waits for credit at most while handshakes are computed: a tenth of the time
/// that the queue at which it is under load takes.
const CREDIT_PAUSE: Duration = Duration::from_millis(5);

/// Messages of the datapath that are taken before anything else gets its turn.
const BATCH: usize = 256;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Sockets and lock.
    pub run_dir: PathBuf,
    /// What outlives a restart.
    pub state_dir: PathBuf,
    /// Where `wg` looks for sockets; `None`: it does not find us.
    pub wireguard_dir: Option<PathBuf>,
    /// The datapath to start when none is there; `None`: somebody else does.
    pub datapath: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT. The datapath goes on without us.
///
/// # Errors
///
/// [`DaemonError`]; before `READY=1` was said nothing was changed.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options));
    // A name that is being looked up, or a client of a userspace socket that does not read, must not
    // hold up the end.
    runtime.shutdown_background();
    result
}

/// What was in force before.
fn changes(options: &Options) -> Result<Changes, DaemonError> {
    let (history, senseless) = History::open(&options.state_dir)?;
    if !senseless.is_empty() {
        warn!(files = ?senseless, "in the history and make no sense; left out");
    }
    Ok(Changes::new(history, &options.run_dir))
}

async fn serve(options: &Options) -> Result<(), DaemonError> {
    let clock = Clock::start();
    let datapath = match &options.datapath {
        Some(path) => Some(
            fs::canonicalize(path)
                .map_err(|source| DaemonError::Datapath { path: path.clone(), source })?,
        ),
        None => None,
    };
    // The datapath does not share our working directory.
    let run_dir = RunDir::claim(&std::path::absolute(&options.run_dir)?)?;
    let Kept { timestamps, record, fact_files, knowledge, lost } = Kept::read(&options.state_dir)?;
    let mut changes = changes(options)?;
    let moment = Moment { now: clock.now(), boot: boot_clock(), wall: wall_clock() };
    let intent = begin((&options.config, &options.state_dir), &mut changes, moment).await?;
    let newest = changes.history().newest();

    let (report, reports) = mpsc::unbounded_channel();
    let handshakes = HandshakeThread::start(clock, timestamps.all().clone(), move |said| {
        // The receiver is gone only when the process goes.
        let _ = report.send(said);
    })?;
    let (commands, inbox) = mpsc::unbounded_channel();
    let (hear, heard) = mpsc::unbounded_channel();
    let (own, owns) = mpsc::channel(1);
    // At most one under way for each peer.
    let (looked_up, look_ups) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        if let Err(problem) = mirror::run(inbox, hear).await {
            error!(%problem, "neighbours are not mirrored any more");
        }
    });
    let (asked, requests) = mpsc::channel(CONNECTIONS_MAX);
    let (loaded, loads) = mpsc::channel(1);
    let (compiled, compilations) = mpsc::channel(1);
    let (ordered, plans) = mpsc::channel(1);
    let (facts_written, fact_writes) = mpsc::channel(1);
    let (written, writes) = mpsc::channel(1);
    let (curious, curiosities) = mpsc::channel(userspace_socket::CONNECTIONS_MAX);
    let userspace =
        options.wireguard_dir.clone().map(|folder| UserspaceSockets::new(folder, clock, curious));

    let link_listener = registered(run_dir.listen(LINK_SOCKET, SocketType::SEQPACKET)?)?;
    let control = run_dir.listen(CONTROL_SOCKET, SocketType::STREAM)?;
    let control = UnixListener::from_std(control.into())?;

    let mut daemon = Daemon {
        clock,
        config: options.config.clone(),
        state_dir: options.state_dir.clone(),
        link_socket: run_dir.file(LINK_SOCKET),
        supervisor: datapath.is_some().then(|| Supervisor::new(clock.now())),
        state: State::new(intent, datapath.is_some(), record).remembering(knowledge, lost),
        datapath,
        child: None,
        link: None,
        pidfd: None,
        refused_links: 0,
        outer: OuterSockets::default(),
        handshakes,
        credited: 0,
        timestamps,
        facts: FactKeeper::new(fact_files, facts_written),
        flow_log: FlowLog::start(options.state_dir.clone())?,
        commands,
        loaded,
        loading: false,
        changes,
        prepared: None,
        written,
        dry_runs: Arc::default(),
        file: FileLook::default(),
        compiled,
        ordered,
        own,
        looked_up,
        asking: Asking::No,
        waiting: BTreeMap::new(),
        curious: BTreeMap::new(),
        userspace,
        shown: None,
        request: 0,
    };
    daemon.state.generation_at_least(newest);
    daemon.look_at_calendar();
    daemon.bind_outer()?;
    daemon.show();
    let mut inputs = Inputs {
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
        calendar: WallTimer::new()?,
        child: signal(SignalKind::child())?,
        link_listener,
        control,
        asked,
        reports,
        heard,
        own: owns,
        look_ups,
        requests,
        curiosities,
        loads,
        compilations,
        plans,
        fact_writes,
        writes,
    };
    info!(config = %options.config.display(), run_dir = %options.run_dir.display(), "ready");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        let event = inputs.next(&daemon).await?;
        if matches!(event, Event::Stop) {
            break;
        }
        daemon.look_at_calendar();
        daemon.take(event)?;
        daemon.settle()?;
    }
    info!("going down; the datapath goes on");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    daemon.keep_last_changes(&mut inputs.writes).await;
    daemon.keep_last_facts(&mut inputs.fact_writes).await;
    if let Err(problem) = daemon.timestamps.write(clock.now()) {
        warn!(%problem, "handshake timestamps not kept");
    }
    daemon.flow_log.finish();
    drop(run_dir);
    Ok(())
}

/// Everything that the actions of the state need.
struct Daemon {
    clock: Clock,
    config: PathBuf,
    state_dir: PathBuf,
    link_socket: PathBuf,
    datapath: Option<PathBuf>,
    supervisor: Option<Supervisor>,
    state: State,
    child: Option<Child>,
    link: Option<LinkEnd>,
    /// The process at the other end of the link, immune to the reuse of its id.
    pidfd: Option<OwnedFd>,
    refused_links: u64,
    outer: OuterSockets,
    handshakes: HandshakeThread,
    /// Of the handshakes that are finished, how many the datapath was told of.
    credited: u64,
    timestamps: Timestamps,
    facts: FactKeeper,
    flow_log: FlowLog,
    commands: mpsc::UnboundedSender<Command>,
    loaded: mpsc::Sender<Loaded>,
    compiled: mpsc::Sender<Compiled>,
    /// Whether a configuration is being read or compiled.
    loading: bool,
    changes: Changes,
    /// An apply whose text is being written down.
    prepared: Option<(Attempt, Plan)>,
    /// At most one write is under way.
    written: mpsc::Sender<Written>,
    /// Held by the one whose turn it is.
    dry_runs: Arc<tokio::sync::Mutex<()>>,
    file: FileLook,
    /// At most one under way.
    ordered: mpsc::Sender<Ordered>,
    own: mpsc::Sender<Option<OwnAddresses>>,
    looked_up: mpsc::UnboundedSender<LookedUp>,
    asking: Asking,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    curious: BTreeMap<RequestId, FiguresAsked>,
    userspace: Option<UserspaceSockets>,
    /// The intent that the userspace sockets were opened for.
    shown: Option<Arc<Intent>>,
    request: RequestId,
}

impl Daemon {
    fn deadline(&self) -> Option<bulkhead_wg::Time> {
        let supervisor = self.supervisor.as_ref().and_then(Supervisor::deadline);
        let owed = self.handshakes.is_busy() || self.handshakes.finished() != self.credited;
        let credit = owed.then(|| self.clock.now().plus(CREDIT_PAUSE));
        let (facts, changes) = (self.facts.deadline(), self.changes_deadline());
        let all =
            [self.state.deadline(), self.timestamps.deadline(), supervisor, credit, facts, changes];
        all.into_iter().flatten().min()
    }

    fn take(&mut self, event: Event) -> Result<(), DaemonError> {
        match event {
            Event::Stop | Event::Timeout => {}
            Event::Child => self.reap(),
            Event::Datapath(socket) => self.connected(socket),
            Event::LinkReady => self.receive(),
            Event::Report(report) => self.state.from_handshakes(report),
            Event::Heard(Heard::Neighbour(change)) => {
                self.state.neighbour(change.port, change.address, change.mac);
            }
            Event::Heard(Heard::Addresses) => self.ask_addresses(),
            Event::Own(own) => self.own_addresses(own),
            Event::LookedUp(found) => {
                let now = self.clock.now();
                self.state.looked_up(found.peer, &found.name, &found.addresses, now);
            }
            Event::Asked(asked) => self.asked(asked),
            Event::Curious(answer) => {
                self.request += 1;
                self.curious.insert(self.request, answer);
                self.state.figures(self.request, self.clock.now());
            }
            Event::Loaded(loaded) => self.loaded(loaded),
            Event::Compiled(compiled) => self.compiled(compiled),
            Event::Ordered(Ordered { epoch, plan }) => {
                self.state.compiled(epoch, plan, self.clock.now());
            }
            Event::FactsWritten(written) => self.facts_written(written),
            Event::ChangeWritten(written) => self.change_written(written),
        }
        Ok(())
    }

    /// Everything that follows from what was taken, and from the time.
    fn settle(&mut self) -> Result<(), DaemonError> {
        // A table is not late before it has left, however long it took to make.
        self.carry_out_all()?;
        let now = self.clock.now();
        self.state.timeout(now);
        self.carry_out_all()?;
        self.give_credit();
        self.flush()?;
        // What is taken away waits neither for the disk nor for the compiler.
        self.keep_facts(now);
        // What is being loaded has a table for them, or is over soon.
        if !self.loading {
            self.state.follow();
        }
        self.carry_out_all()?;
        self.flush()?;
        self.follow_changes();
        self.keep_changes();
        self.start_datapath();
        self.show();
        if self.timestamps.deadline().is_some_and(|deadline| deadline <= now)
            && let Err(problem) = self.timestamps.write(now)
        {
            warn!(%problem, "handshake timestamps not kept; tried again");
        }
        Ok(())
    }

    fn carry_out_all(&mut self) -> Result<(), DaemonError> {
        while let Some(action) = self.state.poll() {
            self.carry_out(action)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), DaemonError> {
        match action {
            Action::Send(message) => self.post(Post::Message(message, None)),
            Action::Table { generation, blob } => self.send_table(generation, &blob),
            Action::Compile(job) => self.compile(*job),
            Action::Datagram(datagram) => self.post(Post::Datagram(datagram)),
            Action::Order(order) => self.handshakes.order(order)?,
            Action::Answer(id, answer) => {
                if let Some(answer) = self.answered(id, *answer) {
                    self.answer(id, answer);
                }
            }
            Action::Figures(id, figures) => {
                if let Some(curious) = self.curious.remove(&id) {
                    // As above.
                    let _ = curious.send(figures);
                }
            }
            Action::Disconnect => {
                self.link = None;
                self.pidfd = None;
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.unlinked(self.clock.now());
                }
            }
            Action::StopDatapath => self.end_datapath(Signal::TERM),
            Action::KillDatapath => self.end_datapath(Signal::KILL),
            Action::Outer { addresses } => {
                if let Err(problem) = self.outer.update(&addresses) {
                    error!("{problem}");
                }
            }
            // The mirror is gone only after it has said why.
            Action::Watch(watch) => drop(self.commands.send(Command::Watch(watch))),
            Action::Resolve { port, address } => {
                drop(self.commands.send(Command::Resolve(port, address)));
            }
            Action::LookUp(peer, name) => self.look_up(peer, name),
            Action::Flows { records, now_ms, wall_ms } => {
                let config = Arc::clone(&self.state.intent().config);
                self.flow_log.take(Batch { records, now_ms, wall_ms, config });
            }
            Action::Record(record) => {
                self.keep(&record);
                self.published(record.generation);
                self.flow_log.configured(&self.state.intent().config);
            }
            Action::Accepted(peer, freshness) => self.timestamps.accepted(peer, freshness),
        }
        Ok(())
    }

    /// At the start a port that is taken is a reason not to run; later it is only said.
    fn bind_outer(&mut self) -> Result<(), DaemonError> {
        while let Some(action) = self.state.poll() {
            if let Action::Outer { addresses } = action {
                self.outer.update(&addresses)?;
            }
        }
        Ok(())
    }

    /// Has a userspace socket for each listener, under its present name.
    fn show(&mut self) {
        let Some(userspace) = &mut self.userspace else { return };
        let intent = self.state.intent();
        if self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, intent)) {
            return;
        }
        userspace.update(intent.listeners.iter().map(|listener| listener.name.as_str()));
        self.shown = Some(Arc::clone(intent));
    }

    fn post(&mut self, post: Post) {
        if let Some(link) = &mut self.link {
            link.post(post);
        }
    }

    fn keep(&self, record: &Record) {
        let path = self.state_dir.join(RECORD);
        let written = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&path, &bytes));
        if let Err(problem) = written {
            warn!(%problem, path = %path.display(), "not kept; a restart publishes the table again");
        }
    }

    fn asked(&mut self, asked: Asked) {
        let Asked { request, by, answer } = asked;
        self.request += 1;
        let id = self.request;
        self.waiting.insert(id, answer);
        if let Some(request) = self.change_asked(id, by, request) {
            let counters = self.handshakes.counters();
            self.state.request(id, request, counters, self.clock.now());
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // Whoever asked may have gone.
            let _ = waiting.send(answer);
        }
    }
}
