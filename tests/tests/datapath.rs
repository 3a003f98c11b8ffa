//! The datapath alone, with this test in the place of the control process: what it refuses.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    reason = "tests fail by panicking, their helpers too; they wait for one message of many"
)]

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bulkhead_link::{
    AttachMode, BindMode, Channel, ChannelError, Configuration, Dscp, FromDatapath, Listener,
    PortSetup, Status, Terms, Timers, ToDatapath, VERSION,
};
use bulkhead_table::Draft;
use bulkhead_tests::{Deadline, Failure, Look, Office, Process, program, until};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A datapath and the control process's end of its link.
struct Bench {
    channel: Channel,
    listener: OwnedFd,
    datapath: Process,
    _office: Office,
}

impl Bench {
    /// Starts a datapath in the gateway's place and takes its greeting.
    fn start() -> Self {
        let office = Office::build().unwrap();
        let path = office.gateway.run_dir().join("link.sock");
        let listener = listen(&path);
        let command = [program("bulkhead-datapath").unwrap(), "--link".into(), path];
        let datapath = office.gateway.namespace().spawn("datapath", &command).unwrap();
        let channel = accept(&listener);
        let mut bench = Self { channel, listener, datapath, _office: office };
        let hello = bench.hear("its greeting", |message| match message {
            FromDatapath::Hello { version, configuration, generation, .. } => {
                Some((version, configuration.is_some(), generation))
            }
            _ => None,
        });
        assert_eq!(hello, (VERSION, false, 0));
        bench.tell(&ToDatapath::Hello { version: VERSION }, None);
        bench
    }

    fn tell(&self, message: &ToDatapath, fd: Option<&OwnedFd>) {
        self.channel.send(message, fd.map(AsFd::as_fd)).unwrap();
    }

    fn hear<T>(&mut self, what: &str, mut find: impl FnMut(FromDatapath) -> Option<T>) -> T {
        let channel = &mut self.channel;
        until(Deadline::seconds(10), what, || {
            loop {
                match channel.receive::<FromDatapath>() {
                    Ok((message, _)) => {
                        if let Some(found) = find(message) {
                            return Ok(Look::Ready(found));
                        }
                    }
                    Err(ChannelError::NotReady) => {
                        return Ok(Look::NotYet("nothing more".to_owned()));
                    }
                    Err(problem) => return Err(Failure::new(problem.to_string())),
                }
            }
        })
        .unwrap()
    }

    fn status(&mut self) -> Status {
        self.tell(&ToDatapath::AskStatus { token: 5 }, None);
        self.hear("a status", |message| match message {
            FromDatapath::Status { token: 5, status } => Some(*status),
            _ => None,
        })
    }

    /// The answer to a table: the generation confirmed, or the reason of the refusal.
    fn publish(&mut self, generation: u64, fd: Option<&OwnedFd>) -> Result<u64, String> {
        self.tell(&ToDatapath::Table { generation }, fd);
        self.hear("an answer to the table", |message| match message {
            FromDatapath::Confirmed { generation } => Some(Ok(generation)),
            FromDatapath::TableRefused { reason, .. } => Some(Err(reason)),
            _ => None,
        })
    }
}

fn listen(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    socket
}

fn accept(listener: &OwnedFd) -> Channel {
    let socket = until(Deadline::seconds(10), "the datapath to connect", || {
        Ok(match rustix::net::accept(listener) {
            Ok(socket) => Look::Ready(socket),
            Err(errno) => Look::NotYet(errno.to_string()),
        })
    });
    Channel::new(socket.unwrap()).unwrap()
}

fn configuration() -> Configuration {
    let port = |name: &str, segment| PortSetup {
        name: name.to_owned(),
        device: name.to_owned(),
        queues: 2,
        segment,
        attach: AttachMode::Auto,
        bind: BindMode::Auto,
    };
    Configuration {
        ports: vec![port("outside", false), port("inside", true)],
        workers: 2,
        cpus: vec![],
        listeners: vec![Listener {
            port: 51_820,
            public_key: [7; 32],
            dark: false,
            terms: Terms { tunnel_mtu: 1420, timers: Timers::default(), dscp: Dscp::Clear },
        }],
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        frames_per_worker: 1024,
        ring_entries: 256,
        sessions_max: 64,
        peers_max: 8,
        flows_per_worker: 1024,
        flows: bulkhead_link::FlowSetup::default(),
    }
}

fn table(generation: u64) -> Vec<u8> {
    let draft = Draft {
        generation,
        labels: 1,
        endpoints: vec![bulkhead_table::Endpoint {
            label: bulkhead_table::LabelId(0),
            next_hop: bulkhead_table::NextHop::Peer(bulkhead_table::PeerIndex(0)),
        }],
        prefixes: vec![],
        segments: vec![],
        rules: 0,
        peers: 1,
        ..Draft::default()
    };
    draft.emit().unwrap()
}

fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("table", flags).unwrap());
    file.write_all(bytes).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

const SEALED: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Goal: a table that is cut, changed, unsealed, old, or not there is refused, and the one before
/// stays in force.
#[test]
fn a_bad_table_is_refused_and_the_one_before_stays() {
    let mut bench = Bench::start();
    bench.tell(&ToDatapath::Configure(configuration()), None);
    bench.hear("to be configured", |message| match message {
        FromDatapath::Configured => Some(()),
        FromDatapath::ConfigurationRefused { reason } => panic!("{reason}"),
        _ => None,
    });
    assert_eq!(bench.status().generation, 0, "without a table nothing is in force");
    assert_eq!(bench.publish(3, Some(&memfd(&table(3), SEALED))), Ok(3));

    let good = table(4);
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let mut refused = vec![
        ("cut to nothing", memfd(&[], SEALED), 4),
        ("cut in the header", memfd(&good[..9], SEALED), 4),
        ("cut by a byte", memfd(&good[..good.len() - 1], SEALED), 4),
        ("longer", memfd(&[&good[..], &[0]].concat(), SEALED), 4),
        ("writable", memfd(&good, SealFlags::GROW | SealFlags::SHRINK), 4),
        ("another generation inside", memfd(&good, SEALED), 5),
        ("older than the one in force", memfd(&table(2), SEALED), 2),
        ("the one in force again", memfd(&table(3), SEALED), 3),
    ];
    for at in [0, 8, 20, 40, 100, 5_000, good.len() - 1] {
        refused.push(("one bit changed", memfd(&changed(at), SEALED), 4));
    }
    for (what, fd, generation) in refused {
        let reason = bench.publish(generation, Some(&fd)).expect_err(what);
        assert!(reason.len() > 10, "{what}: the reason says something: {reason}");
        assert_eq!(bench.status().generation, 3, "{what}");
    }
    assert!(bench.publish(4, None).is_err(), "no memfd beside the message");
    assert_eq!(bench.publish(4, Some(&memfd(&good, SEALED))), Ok(4), "and a good one is taken");
    bench.datapath.check_alive().unwrap();
}

/// Goal: what is not a message, or of another version, ends the connection and nothing else; the
/// datapath comes back and tells what it runs.
#[test]
fn a_broken_link_is_dialled_again_and_nothing_is_lost() {
    let mut bench = Bench::start();
    bench.tell(&ToDatapath::Configure(configuration()), None);
    assert_eq!(bench.publish(7, Some(&memfd(&table(7), SEALED))), Ok(7));

    rustix::io::write(bench.channel.as_fd(), &[0xff; 40]).unwrap();
    bench.channel = accept(&bench.listener);
    let hello = |message| match message {
        FromDatapath::Hello { configuration, generation, .. } => Some((configuration, generation)),
        _ => None,
    };
    assert_eq!(bench.hear("its greeting", hello), (Some(configuration()), 7));

    bench.tell(&ToDatapath::Hello { version: VERSION + 1 }, None);
    bench.channel = accept(&bench.listener);
    assert_eq!(bench.hear("its greeting", hello), (Some(configuration()), 7));

    // Without a greeting nothing is done.
    bench.tell(&ToDatapath::RemovePeer { peer: 0 }, None);
    bench.channel = accept(&bench.listener);
    assert_eq!(bench.hear("its greeting", hello), (Some(configuration()), 7));
    bench.tell(&ToDatapath::Hello { version: VERSION }, None);
    let mut other = configuration();
    other.workers = 1;
    bench.tell(&ToDatapath::Configure(other), None);
    let reason = bench.hear("a refusal", |message| match message {
        FromDatapath::ConfigurationRefused { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("restart"), "{reason}");
    assert_eq!(bench.status().generation, 7);
    bench.datapath.check_alive().unwrap();
}

/// A configuration that cannot be put in force is refused with its reason, and a right one is
/// taken after it.
#[test]
fn an_impossible_configuration_is_refused_with_its_reason() {
    let mut bench = Bench::start();
    let cases: [(fn(&mut Configuration), &str); 4] = [
        (|c| c.ports[0].device = "nowhere".to_owned(), "nowhere"),
        (|c| c.ports[1].queues = 1, "queues"),
        (|c| c.frames_per_worker = 300, "frames_per_worker"),
        (|c| c.ring_entries = 300, "ring_entries"),
    ];
    for (change, word) in cases {
        let mut bad = configuration();
        change(&mut bad);
        bench.tell(&ToDatapath::Configure(bad), None);
        let reason = bench.hear("a refusal", |message| match message {
            FromDatapath::ConfigurationRefused { reason } => Some(reason),
            FromDatapath::Configured => panic!("{word}: taken"),
            _ => None,
        });
        assert!(reason.contains(word), "{word}: {reason}");
    }
    bench.tell(&ToDatapath::Configure(configuration()), None);
    bench.hear("to be configured", |message| match message {
        FromDatapath::Configured => Some(()),
        FromDatapath::ConfigurationRefused { reason } => panic!("{reason}"),
        _ => None,
    });
    let status = bench.status();
    assert_eq!((status.workers.len(), status.ports.len()), (2, 2));
    assert!(status.uptime > Duration::ZERO && status.ports.iter().all(|port| port.native));
}
