//! Everything that something can come from.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bulkhead_wg::PublicKey;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tracing::warn;

use super::Daemon;
use super::facts;
use super::keep::Written;
use crate::api::Refusal;
use crate::changes::Proposal;
use crate::control_socket::{self, Asked};
use crate::handshake_thread::Report;
use crate::intent::Intent;
use crate::mirror::{Heard, OwnAddresses};
use crate::names::Name;
use crate::state::{Plan, RequestId};
use crate::userspace_socket::FiguresAsked;
use crate::wall_timer::WallTimer;

/// Connections of the CLI at once. Each costs a task and a buffer of 8 KiB.
pub(super) const CONNECTIONS_MAX: usize = 32;

/// The sources.
pub(super) struct Inputs {
    pub(super) term: Signal,
    pub(super) int: Signal,
    pub(super) calendar: WallTimer,
    pub(super) child: Signal,
    pub(super) link_listener: AsyncFd<OwnedFd>,
    pub(super) control: UnixListener,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) heard: mpsc::UnboundedReceiver<Heard>,
    pub(super) own: mpsc::Receiver<Option<OwnAddresses>>,
    pub(super) look_ups: mpsc::UnboundedReceiver<LookedUp>,
    pub(super) requests: mpsc::Receiver<Asked>,
    pub(super) curiosities: mpsc::Receiver<FiguresAsked>,
    pub(super) loads: mpsc::Receiver<Loaded>,
    pub(super) compilations: mpsc::Receiver<Compiled>,
    pub(super) plans: mpsc::Receiver<Ordered>,
    pub(super) fact_writes: mpsc::Receiver<facts::Written>,
    pub(super) writes: mpsc::Receiver<Written>,
}

/// A configuration that was read.
pub(super) struct Loaded {
    pub(super) request: RequestId,
    pub(super) intent: Result<Intent, Refusal>,
    pub(super) purpose: Purpose,
}

/// What a configuration was read for.
pub(super) enum Purpose {
    /// To be put in force.
    Change(Change),
    /// To be kept for the next start.
    NextStart(Proposal),
}

/// Why something is put in force.
pub(super) enum Change {
    /// An operator wants it.
    Apply { proposal: Proposal, restart_datapath: bool },
    /// It was confirmed last, and what was in its place was not.
    WayBack,
}

/// What puts a change in force was made, or cannot be.
pub(super) struct Compiled {
    pub(super) attempt: Attempt,
    pub(super) plan: Result<Plan, Refusal>,
}

/// A change on its way into force.
pub(super) struct Attempt {
    pub(super) request: RequestId,
    pub(super) change: Change,
    /// How long it took to compile.
    pub(super) compile_us: u64,
    /// How often before, in vain.
    pub(super) in_vain: u32,
}

/// A table that the state has ordered was made, or cannot be.
pub(super) struct Ordered {
    pub(super) epoch: u64,
    pub(super) plan: Result<Plan, Refusal>,
}

/// A name that was looked up.
pub(super) struct LookedUp {
    pub(super) peer: PublicKey,
    pub(super) name: Name,
    /// None: not found.
    pub(super) addresses: Vec<SocketAddr>,
}

/// Something that happened.
pub(super) enum Event {
    Stop,
    Child,
    Datapath(OwnedFd),
    LinkReady,
    Report(Report),
    Heard(Heard),
    /// `None`: the kernel could not be asked.
    Own(Option<OwnAddresses>),
    LookedUp(LookedUp),
    Asked(Asked),
    /// A client of a userspace socket.
    Curious(FiguresAsked),
    Loaded(Loaded),
    /// For a change.
    Compiled(Compiled),
    /// What the state has ordered: a first table, or one for what is known of devices.
    Ordered(Ordered),
    FactsWritten(facts::Written),
    /// For the history.
    ChangeWritten(Written),
    Timeout,
}

impl Inputs {
    /// Waits for the next of them. All that this process waits for is here.
    pub(super) async fn next(&mut self, daemon: &Daemon) -> io::Result<Event> {
        let pause = daemon.deadline().map(|deadline| daemon.clock.until(deadline));
        let link = daemon.link.as_ref();
        self.calendar.set(daemon.state.next_change())?;
        Ok(tokio::select! {
            _ = self.term.recv() => Event::Stop,
            _ = self.int.recv() => Event::Stop,
            _ = self.child.recv() => Event::Child,
            alarm = self.calendar.went_off() => {
                alarm?;
                Event::Timeout
            }
            socket = accept(&self.link_listener) => Event::Datapath(socket?),
            stream = self.control.accept() => {
                self.serve(stream?.0);
                Event::Timeout
            }
            // An error is found again, and named, by whoever receives.
            _ = async { link?.ready().await.ok() }, if link.is_some() => Event::LinkReady,
            Some(report) = self.reports.recv() => Event::Report(report),
            Some(heard) = self.heard.recv() => Event::Heard(heard),
            Some(own) = self.own.recv() => Event::Own(own),
            Some(found) = self.look_ups.recv() => Event::LookedUp(found),
            Some(asked) = self.requests.recv() => Event::Asked(asked),
            Some(curious) = self.curiosities.recv() => Event::Curious(curious),
            Some(loaded) = self.loads.recv() => Event::Loaded(loaded),
            Some(compiled) = self.compilations.recv() => Event::Compiled(compiled),
            Some(plan) = self.plans.recv() => Event::Ordered(plan),
            Some(written) = self.fact_writes.recv() => Event::FactsWritten(written),
            Some(written) = self.writes.recv() => Event::ChangeWritten(written),
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                Event::Timeout
            }
        })
    }

    fn serve(&self, stream: UnixStream) {
        // Each connection holds a sender; beyond the limit the newest is closed at once.
        if self.asked.strong_count() > CONNECTIONS_MAX {
            warn!("too many connections to the control socket");
            return;
        }
        let asked = self.asked.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle is its own business.
            let _ = control_socket::serve(stream, asked).await;
        });
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    listener
        .async_io(Interest::READABLE, |socket| {
            rustix::net::accept_with(socket, flags).map_err(io::Error::from)
        })
        .await
}
