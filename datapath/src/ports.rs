//! The network ports: packet memory, sockets, and the programs that steer frames to them.

use std::io;

use bulkhead_engine::{Attached, PortFacts};
use bulkhead_link::{AttachMode, BindMode, Configuration, PortSetup, PortStatus};
use bulkhead_wire::Mac;
use bulkhead_xsk::{
    Attachment, Frame, Interface, Socket, SocketConfig, SteerConfig, Steering, Umem,
};

/// All ports of a configuration, bound and attached.
#[derive(Default)]
pub(crate) struct Ports {
    /// Kept: a program is detached when its attachment is dropped.
    attached: Vec<AttachedPort>,
    /// By port index.
    pub(crate) facts: Vec<PortFacts>,
    /// By worker: its sockets and its share of the frames.
    pub(crate) shares: Vec<(Vec<Attached<Socket>>, Vec<Frame>)>,
}

struct AttachedPort {
    setup: PortSetup,
    zero_copy: bool,
    attachment: Attachment,
    _steering: Steering,
    watchers: Vec<bulkhead_xsk::Watcher>,
}

/// A port that could not be taken into service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// What failed, for which port and device.
    #[error("port {port} (device {device}): {what}: {source}")]
    Failed {
        /// The configuration's name.
        port: String,
        /// The device.
        device: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Fewer queues than workers.
    #[error(
        "port {port} has {queues} queues for {workers} workers; every worker needs a queue of \
         every port: lower gateway.workers, or raise port.{port}.queues"
    )]
    Queues {
        /// The configuration's name.
        port: String,
        /// Its queues.
        queues: u16,
        /// The workers.
        workers: u8,
    },
    /// The packet memory does not suffice for the rings.
    #[error(
        "{frames} frames per worker, but its {sockets} queues of {entries} entries need {need}: \
         raise gateway.frames_per_worker, or lower gateway.ring_entries"
    )]
    Frames {
        /// As configured.
        frames: u32,
        /// Queues of one worker.
        sockets: usize,
        /// Entries of each ring.
        entries: u32,
        /// Frames that would suffice.
        need: u64,
    },
    /// A worker could not be started.
    #[error("starting worker {worker}: {source}")]
    Thread {
        /// Which.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// No secret for the flow hashes; with a known one an attacker could fill a bucket.
    #[error("the system gives no randomness: {0}")]
    Randomness(io::Error),
    /// No packet memory.
    #[error("{frames} frames of packet memory: {source}")]
    Memory {
        /// How many were wanted.
        frames: u64,
        /// What the system said.
        source: io::Error,
    },
}

impl Ports {
    /// Binds every queue of every port and attaches the programs.
    ///
    /// # Errors
    ///
    /// The first port that cannot serve, with what to change; nothing stays attached.
    pub(crate) fn open(configuration: &Configuration) -> Result<Self, PortError> {
        let workers = usize::from(configuration.workers.max(1));
        check(configuration, workers)?;
        let per_worker = configuration.frames_per_worker;
        let frames = u64::from(per_worker) * workers as u64;
        let memory = |source| PortError::Memory { frames, source };
        let total = u32::try_from(frames).map_err(|_| memory(io::ErrorKind::OutOfMemory.into()))?;
        let (umem, mut all) = Umem::new(total).map_err(memory)?;

        let mut ports = Self { attached: vec![], facts: vec![], shares: vec![] };
        // A frame's home is `index / per_worker`.
        all.sort_by_key(Frame::index);
        for _ in 0..workers {
            let rest = all.split_off((per_worker as usize).min(all.len()));
            ports.shares.push((vec![], std::mem::replace(&mut all, rest)));
        }
        for (index, setup) in configuration.ports.iter().enumerate() {
            ports.open_port(index, setup, configuration, &umem)?;
        }
        Ok(ports)
    }

    fn open_port(
        &mut self,
        index: usize,
        setup: &PortSetup,
        configuration: &Configuration,
        umem: &Umem,
    ) -> Result<(), PortError> {
        let failed = |what| {
            let (port, device) = (setup.name.clone(), setup.device.clone());
            move |source| PortError::Failed { port, device, what, source }
        };
        let interface =
            Interface::by_name(&setup.device).map_err(failed("looking for the device"))?;
        let steering = Steering::load(&SteerConfig {
            listeners: configuration.listeners.iter().map(|listener| listener.port).collect(),
            addresses: configuration.addresses.clone(),
            segment: setup.segment,
        })
        .map_err(failed("loading the XDP program"))?;

        // The program first: threaded NAPI and some drivers re-create their queues when one is
        // attached, and a socket bound before would be lost.
        let mode = match setup.attach {
            AttachMode::Auto => bulkhead_xsk::AttachMode::Auto,
            AttachMode::Native => bulkhead_xsk::AttachMode::Native,
            AttachMode::Generic => bulkhead_xsk::AttachMode::Generic,
        };
        let attachment = steering
            .attach(interface.index, mode)
            .map_err(failed("attaching the XDP program (is another one there?)"))?;

        let socket_config = SocketConfig {
            ring_entries: configuration.ring_entries,
            mode: match setup.bind {
                BindMode::Auto => bulkhead_xsk::BindMode::Auto,
                BindMode::ZeroCopy => bulkhead_xsk::BindMode::ZeroCopy,
                BindMode::Copy => bulkhead_xsk::BindMode::Copy,
            },
        };
        let (mut zero_copy, mut watchers) = (true, vec![]);
        for queue in 0..setup.queues {
            let first = self.shares.iter().find_map(|(sockets, _)| sockets.first());
            let mut socket = Socket::bind(
                umem,
                interface.index,
                u32::from(queue),
                &socket_config,
                first.map(|attached| &attached.socket),
            )
            .map_err(failed("binding an AF_XDP socket"))?;
            zero_copy &= socket.is_zerocopy();
            watchers.push(socket.watcher().map_err(failed("watching a socket"))?);
            let worker = usize::from(queue) % self.shares.len().max(1);
            if let Some((sockets, frames)) = self.shares.get_mut(worker) {
                // Stocked before the queue is reachable: the first frame finds a place.
                socket.fill(frames, usize::MAX);
                steering
                    .set_socket(u32::from(queue), &socket)
                    .map_err(failed("entering a socket into the map"))?;
                // Ports are at most 255, checked above.
                sockets.push(Attached::new(u8::try_from(index).unwrap_or(u8::MAX), socket));
            }
        }
        self.facts.push(PortFacts {
            segment: setup.segment,
            mac: Mac(interface.mac),
            mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        });
        self.attached.push(AttachedPort {
            setup: setup.clone(),
            zero_copy,
            attachment,
            _steering: steering,
            watchers,
        });
        Ok(())
    }

    /// The state of every port.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<PortStatus> {
        self.attached
            .iter()
            .map(|port| PortStatus {
                name: port.setup.name.clone(),
                device: port.setup.device.clone(),
                native: port.attachment.native(),
                zero_copy: port.zero_copy,
                kernel_dropped: port.watchers.iter().map(bulkhead_xsk::Watcher::dropped).sum(),
                faults: port.watchers.iter().map(bulkhead_xsk::Watcher::faults).sum(),
            })
            .collect()
    }
}

/// The relations between figures, before anything is touched.
fn check(configuration: &Configuration, workers: usize) -> Result<(), PortError> {
    for port in &configuration.ports {
        if usize::from(port.queues) < workers {
            return Err(PortError::Queues {
                port: port.name.clone(),
                queues: port.queues,
                workers: configuration.workers,
            });
        }
    }
    let sockets: usize =
        configuration.ports.iter().map(|port| usize::from(port.queues).div_ceil(workers)).sum();
    // What the fill rings hold, and as much again as one ring on the way through and out.
    let need = (sockets as u64 + 1) * u64::from(configuration.ring_entries);
    if u64::from(configuration.frames_per_worker) < need {
        return Err(PortError::Frames {
            frames: configuration.frames_per_worker,
            sockets,
            entries: configuration.ring_entries,
            need,
        });
    }
    Ok(())
}
