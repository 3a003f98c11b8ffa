//! The datapath as the daemon sees it: its process, its link, and the credit that it is given.

use super::*;
use crate::publish::{Blob, seal};
use crate::state::Job;

impl Daemon {
    pub(super) fn flush(&mut self) -> Result<(), DaemonError> {
        if let Some(link) = &mut self.link
            && let Err(problem) = link.flush(&self.outer)
        {
            warn!(%problem, "the link to the datapath is down");
            self.disconnected();
            self.carry_out_all()?;
        }
        Ok(())
    }

    /// Tells the datapath how many handshake messages are finished since it was last told. Before it
    /// runs there are none of its own: they were an earlier datapath's.
    pub(super) fn give_credit(&mut self) {
        let finished = self.handshakes.finished();
        let count = finished - std::mem::replace(&mut self.credited, finished);
        if count > 0 && self.state.is_running() {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let message = bulkhead_link::ToDatapath::HandshakesFinished { count };
            self.post(Post::Message(message, None));
        }
    }

    /// Makes a table on a thread of its own: what is lost meanwhile, and who asks, does not wait for it.
    pub(super) fn compile(&self, job: Job) {
        let ordered = self.ordered.clone();
        tokio::task::spawn_blocking(move || {
            let epoch = job.epoch();
            // The receiver is gone only when the process goes.
            let _ = ordered.blocking_send(Ordered { epoch, plan: job.compile() });
        });
    }

    pub(super) fn send_table(&mut self, generation: u64, blob: &Blob) {
        match seal(&blob.bytes) {
            Ok(memfd) => {
                let message = bulkhead_link::ToDatapath::Table { generation };
                self.post(Post::Message(message, Some(memfd)));
                self.state.table_leaves(generation, self.clock.now());
            }
            Err(problem) => {
                // As if the datapath had refused: everything is taken back.
                let reason = format!("no memory for it: {problem}");
                let refused = bulkhead_link::FromDatapath::TableRefused { generation, reason };
                self.state.from_datapath(refused, self.clock.now());
            }
        }
    }

    pub(super) fn connected(&mut self, socket: OwnedFd) {
        if self.link.is_some() {
            self.refused_links += 1;
            if self.refused_links.is_power_of_two() {
                let times = self.refused_links;
                warn!(times, "a second datapath wants to connect; one is connected already");
            }
            return;
        }
        let own = rustix::process::geteuid();
        let peer = match socket_peercred(socket.as_fd()) {
            Ok(peer) if peer.uid == own || peer.uid.is_root() => peer,
            Ok(peer) => {
                return warn!(uid = peer.uid.as_raw(), "a stranger wants to be the datapath");
            }
            Err(problem) => return warn!(%problem, "a datapath without credentials"),
        };
        match LinkEnd::new(socket) {
            Ok(link) => {
                self.link = Some(link);
                self.pidfd = pidfd_open(peer.pid, PidfdFlags::empty()).ok();
                let (pid, now) = (peer.pid.as_raw_nonzero().get(), self.clock.now());
                self.state.link_up(u32::try_from(pid).unwrap_or(0), now);
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.linked(now);
                }
            }
            Err(problem) => warn!(%problem, "the datapath's connection cannot be used"),
        }
    }

    pub(super) fn receive(&mut self) {
        for _ in 0..BATCH {
            let Some(link) = &mut self.link else { return };
            match link.receive() {
                Ok(Some(message)) => self.state.from_datapath(message, self.clock.now()),
                Ok(None) => return,
                Err(problem) => {
                    warn!(%problem, "the link to the datapath is down");
                    return self.disconnected();
                }
            }
        }
    }

    pub(super) fn disconnected(&mut self) {
        let now = self.clock.now();
        self.link = None;
        self.pidfd = None;
        self.state.link_down(now);
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.unlinked(now);
        }
    }

    /// Starts one if it is time, and kills the one that was started if it does not connect: it is as dead
    /// as one that has ended, and nothing else can be started beside it.
    pub(super) fn start_datapath(&mut self) {
        let now = self.clock.now();
        if let Some(alone) = self.supervisor.as_mut().and_then(|one| one.overdue(now)) {
            self.kill_child(alone);
        }
        let (Some(supervisor), Some(program)) = (&mut self.supervisor, &self.datapath) else {
            return;
        };
        if !supervisor.due(now) {
            return;
        }
        supervisor.started(now);
        match detach::spawn(program, &[Path::new("--link"), &self.link_socket]) {
            Ok(child) => {
                info!(pid = child.id(), program = %program.display(), "datapath started");
                self.child = Some(child);
            }
            Err(problem) => {
                error!(%problem, program = %program.display(), "datapath not started");
                supervisor.died(now);
            }
        }
    }

    fn kill_child(&mut self, alone: Duration) {
        let (Some(child), Some(program)) = (&mut self.child, &self.datapath) else { return };
        let command = format!("{} --link {}", program.display(), self.link_socket.display());
        self.state.never_connected(child.id(), alone, &command);
        // Its end is an event of its own.
        if let Err(problem) = child.kill() {
            warn!(%problem, "the datapath cannot be killed");
        }
    }

    pub(super) fn reap(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Ok(Some(status)) = child.try_wait() {
            warn!(pid = child.id(), %status, "the datapath ended");
            self.child = None;
            if let Some(supervisor) = &mut self.supervisor {
                supervisor.died(self.clock.now());
            }
        }
    }

    pub(super) fn end_datapath(&mut self, signal: Signal) {
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.ending();
        }
        let Some(pidfd) = &self.pidfd else { return };
        if let Err(problem) = pidfd_send_signal(pidfd, signal) {
            warn!(%problem, "the datapath cannot be ended");
        }
    }
}
