//! A daemon in a folder of its own, and the two who talk to it: a datapath that the test plays, and
//! peers on loopback.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod judge;
pub(crate) mod slow_disk;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_link::{
    Channel, ChannelError, Configuration, Endpoint, FromDatapath, Peer, Session, SessionStatus,
    Status, ToDatapath, VERSION,
};
use bulkhead_table::Table;
use bulkhead_wg::{PresharedKey, PrivateKey, Tai64n, initiate};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything takes, also on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const GATEWAY: [u8; 32] = [0x11; 32];

/// A folder with a configuration, and at most one daemon that runs on it.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) daemon: Option<Child>,
    pub(crate) port: u16,
}

impl Rig {
    pub(crate) fn new(devices: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("wg0.key");
        fs::write(&key, format!("{}\n", base64(&GATEWAY))).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        // Free now; a test whose port is taken in between fails with the port's name.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rig = Self { folder, daemon: None, port };
        rig.configure(devices, "");
        rig
    }

    pub(crate) fn configure(&self, devices: &[&str], more: &str) {
        let mut text = format!(
            "schema = 1\n[gateway]\nname = \"gw-test\"\nsessions_max = 64\npeers_max = 8\n\
             [port.outside]\ndevice = \"lo\"\n[wireguard.wg0]\nport = \"outside\"\n\
             listen_port = {}\nprivate_key_file = \"wg0.key\"\n{more}",
            self.port
        );
        for device in devices {
            let (key, last) = (base64(&private(device).public_key().0), device.as_bytes()[0]);
            text += &format!(
                "[device.{device}]\npublic_key = \"{key}\"\naddresses = [\"10.44.0.{last}/32\"]\n"
            );
        }
        fs::write(self.path("bulkhead.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkheadd"));
        command
            .args(["--config", "bulkhead.toml", "--run-dir", "run", "--state-dir", "state"])
            .args(extra)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self, extra: &[&str]) {
        assert!(self.daemon.is_none());
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = self.command(extra).stderr(log).spawn().unwrap();
        self.daemon = Some(child);
        self.until("the control socket", || self.control().is_ok());
    }

    pub(crate) fn stop(&mut self, signal: Signal) {
        let mut child = self.daemon.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.success(), signal == Signal::TERM, "{}", self.log());
    }

    pub(crate) fn control(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.path("run/control.sock"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "waited for {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn datapath(&self) -> Datapath {
        let channel = Channel::new(connect_to(&self.path("run/link.sock"))).unwrap();
        Datapath { channel, credit: 0 }
    }

    /// Starts the CLI; the test goes on and plays the datapath meanwhile.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["--run-dir", "run", "--json"])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Sends one line to the control socket and reads the answer.
    pub(crate) fn say(&self, line: &[u8]) -> String {
        let mut stream = self.control().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(line).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(child) = &mut self.daemon {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A connection to the daemon's end of the link.
pub(crate) fn connect_to(link: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(link).unwrap()).unwrap();
    socket
}

pub(crate) fn answer(child: Child) -> (i32, serde_json::Value) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The datapath's end of the link, played by hand.
pub(crate) struct Datapath {
    pub(crate) channel: Channel,
    /// Handshake messages that control says it has finished.
    pub(crate) credit: u32,
}

impl Datapath {
    pub(crate) fn tell(&self, message: &FromDatapath) {
        self.channel.send(message, None).unwrap();
    }

    pub(crate) fn heard(&mut self) -> (ToDatapath, Option<OwnedFd>) {
        loop {
            match self.channel.receive() {
                // It comes when it comes: see `until_credit`.
                Ok((ToDatapath::HandshakesFinished { count }, None)) => self.credit += count,
                Ok(message) => return message,
                Err(ChannelError::NotReady) => {
                    let timeout = Timespec::try_from(PATIENCE).unwrap();
                    let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
                    assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "control is silent");
                }
                Err(problem) => panic!("{problem}"),
            }
        }
    }

    /// Hears nothing but credit, until there is so much.
    pub(crate) fn until_credit(&mut self, enough: u32) {
        while self.credit < enough {
            match self.channel.receive() {
                Ok((ToDatapath::HandshakesFinished { count }, None)) => self.credit += count,
                Err(ChannelError::NotReady) => {
                    let timeout = Timespec::try_from(PATIENCE).unwrap();
                    let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
                    assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "control is silent");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.credit, enough);
    }

    pub(crate) fn hello(&mut self, configuration: Option<Configuration>, generation: u64) {
        let pid = std::process::id();
        self.tell(&FromDatapath::Hello { version: VERSION, pid, configuration, generation });
        let (message, _) = self.heard();
        assert!(matches!(message, ToDatapath::Hello { version: VERSION }), "{message:?}");
    }

    pub(crate) fn peers(&mut self, count: usize) -> Vec<Peer> {
        let next = |_| match self.heard().0 {
            ToDatapath::Peer(peer) => peer,
            other => panic!("{other:?}"),
        };
        (0..count).map(next).collect()
    }

    pub(crate) fn table(&mut self) -> Table {
        let (ToDatapath::Table { generation }, Some(memfd)) = self.heard() else {
            panic!("expected a table");
        };
        let mut file = File::from(memfd);
        assert!(file.set_len(0).is_err(), "sealed");
        let mut bytes = vec![];
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let table = Table::new(Arc::new(bytes)).unwrap();
        assert_eq!(table.generation(), generation);
        table
    }

    /// From the first greeting to a table in force.
    pub(crate) fn set_up(&mut self, devices: usize) -> (Configuration, Vec<Peer>, u64) {
        self.hello(None, 0);
        self.tell(&FromDatapath::Adopted);
        let (ToDatapath::Configure(configuration), None) = self.heard() else {
            panic!("expected a configuration");
        };
        self.tell(&FromDatapath::Configured);
        let peers = self.peers(devices);
        let generation = self.table().generation();
        self.tell(&FromDatapath::Confirmed { generation });
        (configuration, peers, generation)
    }

    pub(crate) fn status(&mut self) {
        let (ToDatapath::AskStatus { token }, None) = self.heard() else {
            panic!("expected a question");
        };
        self.tell(&FromDatapath::Status { token, status: Box::default() });
    }

    pub(crate) fn status_with(&mut self, sessions: Vec<SessionStatus>) {
        let (ToDatapath::AskStatus { token }, None) = self.heard() else {
            panic!("expected a question");
        };
        let status = Box::new(Status { sessions, ..Status::default() });
        self.tell(&FromDatapath::Status { token, status });
    }

    /// Whether there is nothing to hear, for so long.
    pub(crate) fn is_silent(&self, pause: Duration) -> bool {
        let timeout = Timespec::try_from(pause).unwrap();
        let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() == 0
    }

    pub(crate) fn session(&mut self) -> Session {
        match self.heard() {
            (ToDatapath::Session(session), None) => session,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn private(device: &str) -> PrivateKey {
    PrivateKey::from_bytes([device.as_bytes()[0]; 32])
}

pub(crate) fn base64(key: &[u8; 32]) -> String {
    bulkhead_wg::PublicKey(*key).to_string()
}

/// A peer on loopback that calls the gateway.
pub(crate) struct Caller {
    pub(crate) device: &'static str,
    pub(crate) socket: UdpSocket,
}

impl Caller {
    pub(crate) fn new(device: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { device, socket }
    }

    pub(crate) fn initiation(&self, at: u64) -> ([u8; 148], bulkhead_wg::Pending) {
        let gateway = PrivateKey::from_bytes(GATEWAY).public_key();
        let label = Tai64n::from_unix(Duration::from_secs(at));
        let psk = PresharedKey::default();
        initiate(&private(self.device), &gateway, &psk, 77, label, &[at as u8; 32]).unwrap()
    }

    pub(crate) fn handshake(&self, port: u16, message: &[u8]) -> FromDatapath {
        let from = Endpoint {
            remote: self.socket.local_addr().unwrap(),
            local: format!("127.0.0.1:{port}").parse().unwrap(),
            port: 0,
            vlan: None,
            remote_mac: [2; 6],
            local_mac: [4; 6],
        };
        let listener = Some(PrivateKey::from_bytes(GATEWAY).public_key().0);
        FromDatapath::Handshake { worker: 0, listener, from, message: message.to_vec() }
    }
}
