//! `make demo`: the gateway at work in network namespaces, told at reading speed.
//!
//! Every statement that it prints was checked a moment before; what is not as it should be ends the
//! demo with exit code 1. It leaves nothing behind, also after Ctrl-C.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_tests::office::{LEGACY, SERVER};
use bulkhead_tests::probe::{field, http::Content, last_line, number};
use bulkhead_tests::{
    Deadline, Engine, Failure, Namespace, Office, Outer, Tunnel, monotonic_ns,
    remove_worlds_on_signal,
};

/// Milliseconds to read what was just said; the tests set it to 0.
const PACE_VARIABLE: &str = "BULKHEAD_DEMO_PACE_MS";

/// A paragraph of two or three lines takes a reader about so long.
const PACE_DEFAULT: Duration = Duration::from_millis(1800);

/// The policy of the demo. `{members}` is what changes on the way.
const POLICY: &str = r#"[group.hr]
members = [{members}]

[service.web]
ports = ["tcp/80"]
[service.records]
ports = ["tcp/7000"]
[service.measurement]
ports = ["tcp/5201"]

[[rule]]
id = "hr-server"
from = ["group:hr"]
to = ["device:server"]
services = ["web", "records", "measurement"]

[[rule]]
id = "hr-legacy"
from = ["group:hr"]
to = ["segment:offices"]
services = ["web"]

[[test]]
name = "nobody but HR reaches the old offices"
from = "device:server"
deny = ["10.20.1.5 tcp/80"]
"#;

fn main() -> ExitCode {
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is gone, the exit code still tells.
            let _ = writeln!(io::stderr(), "\nThe demo failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<(), Failure> {
    remove_worlds_on_signal()?;
    let clock = Deadline::after(Duration::MAX);
    let stage = Stage::set()?;
    stage.policy()?;
    stage.allowed_download()?;
    stage.denied_port()?;
    stage.legacy_host()?;
    stage.revocation()?;
    stage.throughput()?;
    stage.conservation()?;
    drop(stage);
    let seconds = clock.elapsed().as_secs();
    say(&format!("\nAll processes, namespaces and files are removed. That took {seconds} s.\n"))
}

/// Everything that runs.
struct Stage {
    pace: Duration,
    /// The clients run until the stage is dropped.
    _tunnels: [Tunnel; 2],
    office: Office,
}

impl Stage {
    fn set() -> Result<Self, Failure> {
        let pace = std::env::var(PACE_VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or(PACE_DEFAULT, Duration::from_millis);
        say(
            "Bulkhead demo: a laptop (wireguard-go), a server (boringtun) and a legacy host without\n\
             WireGuard, each in a network namespace; between them the gateway, two workers on ports\n\
             with two queues. Ctrl-C ends it at any time and leaves nothing behind.\n",
        )?;
        let mut office = Office::build()?;
        office.gateway.write_config(&office.config(&policy(true)))?;
        office.gateway.start_and_wait(Deadline::seconds(20))?;
        let server = office.server_tunnel(Engine::Boringtun, Outer::V4)?;
        let laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4)?;
        server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20))?;
        Ok(Self { pace, _tunnels: [laptop, server], office })
    }

    fn policy(&self) -> Result<(), Failure> {
        self.title("The policy", "Rules only allow; whatever none allows is denied.")?;
        let text = policy(true);
        say(&text.lines().map(|line| format!("    {line}\n")).collect::<String>())?;
        self.read();
        Ok(())
    }

    fn allowed_download(&self) -> Result<(), Failure> {
        self.title(
            "Allowed: laptop to server, port 80",
            "Decrypted, judged by rule hr-server, encrypted again for the server.",
        )?;
        let content = Content { seed: 44, len: 8_000_000 };
        let serve = format!("http-serve {SERVER}:80 --seed 44 --bytes {}", content.len);
        let _server = self.office.server.probe_server("http", &serve)?;
        self.download(&self.office.laptop, &format!("{SERVER}:80"), content)?;
        self.read();
        Ok(())
    }

    /// Downloads, compares the hash with the one computed here, and says so.
    fn download(&self, from: &Namespace, at: &str, content: Content) -> Result<(), Failure> {
        let output = from.probe_once(&format!("http-get {at}"))?;
        let told = output.stdout.as_str();
        let want = content.sha256().map_err(|error| Failure::new(error.to_string()))?;
        let (Some(sha256), Some(bytes), Some(milliseconds)) =
            (field(told, "sha256"), number(told, "bytes"), number(told, "milliseconds"))
        else {
            return Err(Failure::new(format!("no download: {told}{}", output.stderr)));
        };
        if sha256 != want {
            return Err(Failure::new(format!("SHA-256 is {sha256}, not {want}")));
        }
        let short = sha256.get(..16).unwrap_or(sha256);
        say(&format!(
            "    {bytes} bytes in {milliseconds} ms; SHA-256 {short}… is the one of the original\n"
        ))
    }

    fn denied_port(&self) -> Result<(), Failure> {
        self.title(
            "Denied: laptop to server, port 22",
            "The server listens there; no rule of the policy speaks of it.",
        )?;
        let _server = self
            .office
            .server
            .probe_server("port-22", &format!("http-serve {SERVER}:22 --seed 1 --bytes 1"))?;
        self.no_way(&self.office.laptop, &format!("{SERVER}:22"))?;
        self.explain("device:anna-laptop", &format!("{SERVER} tcp/22"))?;
        self.read();
        Ok(())
    }

    /// Tries a connection that must not come about, and says how it ended.
    fn no_way(&self, from: &Namespace, to: &str) -> Result<(), Failure> {
        let told = from.probe_once(&format!("connect {to} --patience-ms 700"))?.stdout;
        let how = told.split(' ').next().unwrap_or_default();
        if !matches!(how, "silent" | "refused") {
            return Err(Failure::new(format!("{} reached {to}: {told}", from.name())));
        }
        let name = from.name();
        say(&format!("    {name} connects to {to}: {how}\n"))
    }

    fn explain(&self, from: &str, to: &str) -> Result<(), Failure> {
        let output = self.office.gateway.cli(&["policy", "explain", from, to])?;
        say(&format!("    $ bulkhead policy explain {from} '{to}'\n"))?;
        let text = [output.stdout, output.stderr].concat();
        say(&text.lines().map(|line| format!("      {line}\n")).collect::<String>())
    }

    fn legacy_host(&self) -> Result<(), Failure> {
        self.title(
            "The legacy host, in plain, for one group",
            "It has no WireGuard. HR may (rule hr-legacy), the server may not.",
        )?;
        let content = Content { seed: 20, len: 1_000_000 };
        let serve = format!("http-serve {LEGACY}:80 --seed 20 --bytes {}", content.len);
        let _legacy = self.office.legacy.probe_server("http", &serve)?;
        self.download(&self.office.laptop, &format!("{LEGACY}:80"), content)?;
        self.no_way(&self.office.server, &format!("{LEGACY}:80"))?;
        self.read();
        Ok(())
    }

    fn revocation(&self) -> Result<(), Failure> {
        self.title(
            "A live connection dies with the membership",
            "The laptop streams a record every millisecond; then anna leaves the group hr.",
        )?;
        let listen = format!("stream-receive tcp {SERVER}:7000 --quiet-ms 1000");
        let mut receiver = self.office.server.probe_server("stream-receive", &listen)?;
        let send = format!("stream-send tcp {SERVER}:7000 --interval-us 1000");
        let _sender = self.office.laptop.probe("stream-send", &send)?;
        let before =
            receiver.wait_for_log(Deadline::seconds(20), "a second of records", |log| {
                let line = last_line(log, "progress")?;
                number(line, "received").filter(|received| *received >= 1000)
            })?;
        say(&format!("    {before} records have come, and they keep coming\n"))?;

        let applied_ns = monotonic_ns();
        let answer = self.office.gateway.apply(&self.office.config(&policy(false)))?;
        let quiet = receiver.wait_for_log(Deadline::seconds(20), "silence", |log| {
            last_line(log, "quiet").map(str::to_owned)
        })?;
        let last_ns = number(&quiet, "last_at").unwrap_or(u64::MAX);
        let figure = |name: &str| {
            answer
                .get(name)
                .and_then(serde_json::Value::as_u64)
                .ok_or_else(|| Failure::new(format!("apply answers without {name}: {answer}")))
        };
        let (compile_us, publish_us) = (figure("compile_us")?, figure("publish_us")?);
        say(&format!(
            "    bulkhead apply: compiled in {compile_us} µs, in force on both workers {publish_us} µs after\n    \
             it was sent. The last record came {:.1} ms after the command was given, then silence.\n",
            milliseconds(last_ns.saturating_sub(applied_ns))
        ))?;
        self.no_way(&self.office.laptop, &format!("{SERVER}:7000"))?;
        self.read();
        Ok(())
    }

    fn throughput(&self) -> Result<(), Failure> {
        const SECONDS: u64 = 4;
        self.title(
            "Throughput",
            "Anna is back. iperf3, laptop to server; both clients and the gateway share these CPUs.",
        )?;
        self.office.gateway.apply(&self.office.config(&policy(true)))?;
        let mut server = self.office.server.spawn(
            "iperf3",
            &["iperf3", "--server", "--one-off", "--forceflush", "--bind", &SERVER.to_string()],
        )?;
        server.wait_for_log(Deadline::seconds(10), "a listening iperf3", |log| {
            log.contains("listening").then_some(())
        })?;
        let before = self.office.gateway.counters()?.end("forwarded")?;
        let (to, seconds) = (SERVER.to_string(), SECONDS.to_string());
        let iperf = ["iperf3", "--json", "--client", &to, "--time", &seconds];
        let report = self.office.laptop.exec(&iperf)?;
        let forwarded = self.office.gateway.counters()?.end("forwarded")?.saturating_sub(before);
        let report: serde_json::Value = serde_json::from_str(&report)
            .map_err(|error| Failure::new(format!("iperf3 printed no JSON: {error}")))?;
        let bits = report
            .pointer("/end/sum_received/bits_per_second")
            .and_then(serde_json::Value::as_f64)
            .ok_or_else(|| Failure::new(format!("iperf3 reports no rate: {report}")))?;
        say(&format!(
            "    {:.0} Mbit/s of TCP; the gateway forwarded {} packets a second\n",
            bits / 1e6,
            forwarded / SECONDS
        ))?;
        self.read();
        Ok(())
    }

    fn conservation(&self) -> Result<(), Failure> {
        self.title("The counters", "Every packet that came has exactly one end.")?;
        // Clients go on talking meanwhile; the law holds at every moment.
        let counters = self.office.gateway.counters()?;
        counters.check_conserved()?;
        for (name, count, meaning) in counters.met() {
            say(&format!("    {count:>9}  {name:<24} {meaning}\n"))?;
        }
        say(&format!(
            "    {:>9}  = received, and {} wait for a session or a neighbour: nothing is lost\n",
            counters.received, counters.held
        ))?;
        self.read();
        Ok(())
    }

    fn title(&self, title: &str, what: &str) -> Result<(), Failure> {
        say(&format!("\n{title}\n{}\n{what}\n", "-".repeat(title.chars().count())))
    }

    /// Leaves time to read.
    fn read(&self) {
        std::thread::sleep(self.pace);
    }
}

/// The policy with anna in the group hr, or without.
fn policy(with_anna: bool) -> String {
    POLICY.replace("{members}", if with_anna { "\"user:anna\"" } else { "" })
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, below an hour")]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("writing to standard output: {error}")))
}
