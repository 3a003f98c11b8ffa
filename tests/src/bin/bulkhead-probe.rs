//! The traffic tool of the worlds: started inside a namespace, one task per process.
//!
//! Exit code 0: done and as hoped; 1: not (the line on standard output says what happened);
//! 2: usage.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_tests::probe::stream::{Carrier, RECORD_LEN, Sending};
use bulkhead_tests::probe::{echo, http, stream};
use bulkhead_tests::{Deadline, Failure, World};
use clap::{Parser, Subcommand, ValueEnum};

/// Traffic for Bulkhead's worlds.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Send numbered records.
    StreamSend {
        carrier: CarrierName,
        to: SocketAddr,
        /// Microseconds between two records.
        #[arg(long, default_value_t = 1000)]
        interval_us: u64,
        /// Records to send; without it, until killed.
        #[arg(long)]
        count: Option<u64>,
        /// Bytes of a UDP datagram.
        #[arg(long, default_value_t = RECORD_LEN)]
        bytes: usize,
    },
    /// Receive numbered records; tell gaps and silence.
    StreamReceive {
        carrier: CarrierName,
        listen: SocketAddr,
        /// Milliseconds without a record that count as silence.
        #[arg(long, default_value_t = 300)]
        quiet_ms: u64,
    },
    /// Send every UDP datagram back.
    UdpEcho { listen: SocketAddr },
    /// Send UDP datagrams and count the echoes.
    UdpPing {
        to: SocketAddr,
        #[arg(long, default_value_t = 10)]
        count: u64,
        #[arg(long, default_value_t = 10_000)]
        interval_us: u64,
        #[arg(long, default_value_t = 1000)]
        patience_ms: u64,
    },
    /// Try a TCP connection.
    Connect {
        to: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        patience_ms: u64,
    },
    /// Serve one reproducible file.
    HttpServe {
        listen: SocketAddr,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        bytes: u64,
    },
    /// Download it and tell its hash.
    HttpGet {
        from: SocketAddr,
        #[arg(long, default_value_t = 5000)]
        patience_ms: u64,
    },
    /// Make a world with one namespace, this program as a server in it, and stay: the test of the
    /// sweep kills it.
    HoldWorld,
}

#[derive(Clone, Copy, ValueEnum)]
enum CarrierName {
    Tcp,
    Udp,
}

impl From<CarrierName> for Carrier {
    fn from(name: CarrierName) -> Self {
        match name {
            CarrierName::Tcp => Self::Tcp,
            CarrierName::Udp => Self::Udp,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // If standard error is gone, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "bulkhead-probe: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<bool, Box<dyn std::error::Error>> {
    match task {
        Task::StreamSend { carrier, to, interval_us, count, bytes } => {
            let interval = Duration::from_micros(interval_us);
            let carrier = carrier.into();
            stream::send(&Sending { carrier, to, interval, count, datagram_len: bytes })?;
        }
        Task::StreamReceive { carrier, listen, quiet_ms } => {
            stream::receive(carrier.into(), listen, Duration::from_millis(quiet_ms))?;
        }
        Task::UdpEcho { listen } => echo::serve(listen)?,
        Task::UdpPing { to, count, interval_us, patience_ms } => {
            let interval = Duration::from_micros(interval_us);
            return Ok(echo::ping(to, count, interval, Duration::from_millis(patience_ms))?);
        }
        Task::Connect { to, patience_ms } => {
            return Ok(echo::connect(to, Duration::from_millis(patience_ms))?);
        }
        Task::HttpServe { listen, seed, bytes } => {
            http::serve(listen, http::Content { seed, len: bytes })?;
        }
        Task::HttpGet { from, patience_ms } => {
            http::get(from, Duration::from_millis(patience_ms))?;
        }
        Task::HoldWorld => hold_world()?,
    }
    Ok(true)
}

fn hold_world() -> Result<(), Failure> {
    bulkhead_tests::remove_worlds_on_signal()?;
    let world = World::new()?;
    let namespace = world.namespace("held")?;
    let probe = bulkhead_tests::program("bulkhead-probe")?;
    let server = [probe.as_os_str(), "udp-echo".as_ref(), "127.0.0.1:7".as_ref()];
    let mut server = namespace.spawn("echo", &server)?;
    server.wait_for_log(Deadline::seconds(10), "listening", |log| {
        log.contains("listening").then_some(())
    })?;
    let line = format!(
        "held namespace={} folder={} server={}",
        namespace.full_name(),
        world.folder().display(),
        server.pid()
    );
    bulkhead_tests::probe::tell(&line).map_err(|error| Failure::new(error.to_string()))?;
    // Busy until its programs are taken away, like whoever is interrupted in the middle of something.
    loop {
        namespace.exec(&["sleep", "0.2"])?;
    }
}
