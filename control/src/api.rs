//! Requests and answers on `control.sock`: one JSON object per line each way. Types only.
//!
//! INVARIANT: a line that is not one of these requests gets [`RefusalKind::BadRequest`] and changes
//! nothing. Fields are added over time, never renamed: scripts read this.

mod change;
mod context;
mod hits;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::handshake::HandshakeCounters;

pub use change::{
    CONFIRM_S_MAX, ChangedNames, ConfigurationAnswer, DryRunAnswer, FileAnswer, HistoryAnswer,
    HistoryEntryAnswer, MESSAGE_MAX, RegionAnswer, TestAnswer, TextAnswer, WaitingAnswer,
};
pub use context::{
    ContextAnswer, ContextChangedAnswer, DeviceContextAnswer, FactAnswer, FactChange, RuleAnswer,
};
pub use hits::{Effect, HitAnswer, HitsAnswer, RuleHitsAnswer};

/// The longest request, bytes with its newline: facts about 20,000 devices, 400 bytes about each.
pub const REQUEST_MAX: usize = 8 << 20;

/// What the CLI asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Health, ports, workers.
    Status {},
    /// How packets ended.
    Counters {},
    /// Devices and their sessions.
    Peers {},
    /// How often each rule was used.
    Hits {},
    /// Put the configuration file in force.
    Apply {
        /// Also stop and start the datapath, for what cannot change while it runs.
        #[serde(default)]
        restart_datapath: bool,
        /// Why; for the history. One line, at most [`MESSAGE_MAX`] bytes.
        #[serde(default)]
        message: String,
        /// Roll back by itself unless confirmed within so many seconds, 1 to [`CONFIRM_S_MAX`].
        #[serde(default)]
        confirm_s: Option<u64>,
        /// Only check it, and keep it as what the next start begins with.
        #[serde(default)]
        next_start: bool,
    },
    /// What an apply would change.
    DryRun {},
    /// Keep what waits for its confirmation.
    Confirm {
        /// Only if it is this one; without it, whatever waits.
        #[serde(default)]
        generation: Option<u64>,
    },
    /// Take back what waits, or put in force what was in force before.
    Rollback {
        /// Which; without it, what was confirmed last in place of what waits.
        #[serde(default)]
        generation: Option<u64>,
        /// Only if this one waits; without it, whatever waits.
        #[serde(default)]
        of: Option<u64>,
        /// Also stop and start the datapath, for what cannot change while it runs.
        #[serde(default)]
        restart_datapath: bool,
        /// As in [`Request::Apply`].
        #[serde(default)]
        message: String,
        /// As in [`Request::Apply`].
        #[serde(default)]
        confirm_s: Option<u64>,
    },
    /// Every configuration that is kept.
    History {},
    /// The text of one of them.
    HistoryText {
        /// Which.
        generation: u64,
    },
    /// Say what is known of devices. All of it is taken, or nothing if anything is wrong with it;
    /// then the diagnostics say what, with the number of the change as their line. Answered when
    /// every worker judges by it and it is on disk.
    ContextSet {
        /// What is said, of the same device also more than once: the last counts.
        changes: Vec<FactChange>,
        /// Values are texts as the command line has them, read as the attribute demands.
        #[serde(default)]
        written: bool,
        /// Look for mistakes, and change nothing.
        #[serde(default)]
        only_check: bool,
    },
    /// Forget what is known of a device.
    ContextClear {
        /// `device:NAME`, or the name alone.
        device: String,
        /// Only these attributes; none: all.
        #[serde(default)]
        attributes: Vec<String>,
    },
    /// What is known of devices.
    ContextShow {
        /// Of this one; without it: of all.
        #[serde(default)]
        device: Option<String>,
    },
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<StatusAnswer>),
    /// To [`Request::Counters`].
    Counters(Box<CountersAnswer>),
    /// To [`Request::Peers`].
    Peers(PeersAnswer),
    /// To [`Request::Hits`].
    Hits(Box<HitsAnswer>),
    /// To [`Request::Apply`] and [`Request::Rollback`]: every worker judges by the new table.
    Applied(AppliedAnswer),
    /// To [`Request::Apply`] with `next_start`: nothing has changed before the next start.
    Kept {
        /// The generation in the history.
        generation: u64,
    },
    /// To [`Request::DryRun`].
    DryRun(Box<DryRunAnswer>),
    /// To [`Request::Confirm`]: it stands, and is on the disk.
    Confirmed {
        /// Which.
        generation: u64,
    },
    /// To [`Request::History`].
    History(HistoryAnswer),
    /// To [`Request::HistoryText`].
    Text(TextAnswer),
    /// To [`Request::ContextSet`] and [`Request::ContextClear`].
    ContextChanged(ContextChangedAnswer),
    /// To [`Request::ContextShow`].
    Context(ContextAnswer),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What sort of reason.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
    /// Places in the configuration file, if it is at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// Sorts of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// Not a request of this release.
    BadRequest,
    /// The configuration or the policy is invalid.
    Invalid,
    /// A test of the policy failed.
    TestFailed,
    /// Valid, but only with a restart of the datapath.
    RestartNeeded,
    /// Another apply is under way.
    Busy,
    /// There is no datapath to do it.
    Unavailable,
    /// The datapath refused it.
    Refused,
    /// The datapath did not confirm in time.
    Timeout,
    /// Another configuration waits for its confirmation.
    Waiting,
    /// No configuration waits for its confirmation, or not the one that was named.
    NothingWaiting,
    /// The history has no such generation, or it cannot be read.
    NotKept,
}

/// A mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file.
    pub path: String,
    /// Counted from 1; 0: the whole file.
    pub line: u32,
    /// In characters, counted from 1; 0: the whole line or file.
    pub column: u32,
    /// What is wrong, in one line.
    pub problem: String,
    /// The whole report with the line and a caret, as `bulkhead check` prints it.
    pub text: String,
}

/// Health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The gateway's name.
    pub gateway: String,
    /// Release of `bulkheadd`.
    pub version: String,
    /// The generation that every worker judges by; 0: none, everything is denied.
    pub generation: u64,
    /// Since `bulkheadd` started, milliseconds.
    pub control_uptime_ms: u64,
    /// The datapath, if one is connected and answers.
    pub datapath: Option<DatapathAnswer>,
    /// What of its configuration is in force.
    #[serde(default)]
    pub configuration: Option<ConfigurationAnswer>,
    /// What became of the flow log.
    #[serde(default)]
    pub flow_log: FlowLogAnswer,
    /// Why the gateway is not as it should be; empty: all is well.
    pub degraded: Vec<String>,
}

/// What became of the records of the flow log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogAnswer {
    /// Lines in the file, since `bulkheadd` started.
    pub written: u64,
    /// Records lost by `bulkheadd` since it started, because the disk was too slow or took nothing.
    pub lost: u64,
    /// Records lost by the datapath since it started, because there were too many at once, or too many
    /// denials in a second.
    pub lost_in_datapath: u64,
    /// Why nothing is written now.
    pub problem: Option<String>,
}

/// The datapath's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathAnswer {
    /// Process id.
    pub pid: u32,
    /// Since it started, milliseconds.
    pub uptime_ms: u64,
    /// WireGuard sessions.
    pub sessions: usize,
    /// By worker.
    pub workers: Vec<WorkerAnswer>,
    /// By port.
    pub ports: Vec<PortAnswer>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAnswer {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub transmitted: u64,
    /// Live flows.
    pub flows: u64,
    /// Packets that wait for a session or a neighbour.
    pub held: u64,
    /// Free frames of packet memory, and those under way.
    pub frames: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAnswer {
    /// Its name in the configuration.
    pub name: String,
    /// The network device.
    pub device: String,
    /// Whether the XDP program runs in the driver.
    pub native: bool,
    /// Whether every socket is zero-copy.
    pub zero_copy: bool,
    /// Frames that the kernel dropped because a ring was full or empty.
    pub kernel_dropped: u64,
    /// Descriptors from the kernel that named no frame of ours.
    pub faults: u64,
}

/// How packets ended since the datapath started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersAnswer {
    /// Frames received from sockets.
    pub received: u64,
    /// Frames given to sockets.
    pub transmitted: u64,
    /// Packets that the gateway made itself.
    pub originated: u64,
    /// Packets that wait for a session or a neighbour.
    pub held: u64,
    /// Packets given to other workers.
    pub handed_out: u64,
    /// Packets taken from other workers.
    pub handed_in: u64,
    /// Sum of all ends.
    pub ended: u64,
    /// Whether `received + handed_in == ended + held + handed_out` on every worker.
    pub conserved: bool,
    /// By name of the end, with its meaning.
    pub ends: BTreeMap<String, EndAnswer>,
    /// Handshakes, counted by `bulkheadd` since it started.
    pub handshakes: HandshakeCounters,
}

/// One way to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndAnswer {
    /// How many.
    pub count: u64,
    /// One sentence.
    pub meaning: String,
}

/// Devices and their sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersAnswer {
    /// In the order of their names.
    pub peers: Vec<PeerAnswer>,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// Its name in the configuration.
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub user: Option<String>,
    /// Its public key, base64.
    pub public_key: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Where it is, or where it is expected.
    pub endpoint: Option<String>,
    /// Since the last handshake, milliseconds, also if its session has ended; `None`: there was none
    /// since the datapath started.
    pub handshake_age_ms: Option<u64>,
    /// Age of the newest session that lives, milliseconds.
    #[serde(default)]
    pub session_age_ms: Option<u64>,
    /// Since its last authenticated packet, milliseconds.
    pub silent_ms: Option<u64>,
    /// Inner bytes received since the datapath started.
    pub received_bytes: u64,
    /// Inner packets received since the datapath started.
    #[serde(default)]
    pub received_packets: u64,
    /// Inner bytes sent since the datapath started.
    pub sent_bytes: u64,
    /// Inner packets sent since the datapath started.
    #[serde(default)]
    pub sent_packets: u64,
    /// What was lost on the way to us; `None`: no session that lives has received anything.
    #[serde(default)]
    pub loss: Option<LossAnswer>,
    /// The worker that opens its packets.
    #[serde(default)]
    pub worker: Option<u8>,
    /// The listener whose key the device used in its last handshake.
    #[serde(default)]
    pub listener: Option<String>,
    /// Its labels in the newest table that the datapath was sent: what the policy makes of what is
    /// known of it. `context show` says why.
    #[serde(default)]
    pub labels: Vec<u16>,
}

/// An estimate of the loss on the way from a device, under its sessions that live: a WireGuard
/// sender numbers its messages without a gap, so what is missing below the greatest number that was
/// accepted was lost, or is late. What was lost after that one is not in it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAnswer {
    /// Messages accepted, also those without content.
    pub accepted: u64,
    /// Messages that the device had sealed by the latest of them.
    pub expected: u64,
}

/// A configuration is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedAnswer {
    /// The generation that every worker judges by.
    pub generation: u64,
    /// Compiling and validating the table, microseconds.
    pub compile_us: u64,
    /// From sending the table to the confirmation of the last worker, microseconds.
    pub publish_us: u64,
    /// Size of the table.
    pub table_bytes: u64,
    /// Devices that came.
    pub peers_added: usize,
    /// Devices that went, their keys and sessions with them.
    pub peers_removed: usize,
    /// Whether the datapath was started anew.
    pub datapath_restarted: bool,
    /// The generation in the history whose text it is.
    #[serde(default)]
    pub configuration: u64,
    /// It is rolled back unless confirmed within this many seconds.
    #[serde(default)]
    pub confirm_within_s: Option<u64>,
    /// The generation that was taken back.
    #[serde(default)]
    pub rolled_back: Option<u64>,
    /// It is in force, but not kept, and why.
    #[serde(default)]
    pub warning: Option<String>,
}

impl Refusal {
    /// A reason without a place in the file.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), diagnostics: vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented_and_nothing_else_does() {
        let read = |text| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#"{"request":"status"}"#).unwrap(), Request::Status {});
        let apply = Request::Apply {
            restart_datapath: false,
            message: String::new(),
            confirm_s: None,
            next_start: false,
        };
        assert_eq!(read(r#"{"request":"apply"}"#).unwrap(), apply);
        let confirm = |generation| Request::Confirm { generation };
        assert_eq!(read(r#"{"request":"confirm"}"#).unwrap(), confirm(None));
        assert_eq!(read(r#"{"request":"confirm","generation":7}"#).unwrap(), confirm(Some(7)));
        assert_eq!(
            read(r#"{"request":"rollback","generation":7,"message":"why","confirm_s":60}"#)
                .unwrap(),
            Request::Rollback {
                generation: Some(7),
                of: None,
                restart_datapath: false,
                message: "why".to_owned(),
                confirm_s: Some(60),
            }
        );
        let of = read(r#"{"request":"rollback","of":8}"#).unwrap();
        assert!(matches!(of, Request::Rollback { generation: None, of: Some(8), .. }), "{of:?}");
        for bad in [
            "",
            "{}",
            "[]",
            "\"status\"",
            r#"{"request":"reboot"}"#,
            r#"{"request":"status","verbose":true}"#,
            r#"{"request":"apply","restart_datapath":"yes"}"#,
            r#"{"request":"apply","confirm_s":-1}"#,
            r#"{"request":"confirm","generation":"7"}"#,
            r#"{"request":"apply","force":true}"#,
            r#"{"request":"status"} trailing"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_survive_their_line() {
        let refused = Answer::Refused(Refusal {
            kind: RefusalKind::RestartNeeded,
            message: "two\nlines".to_owned(),
            diagnostics: vec![],
        });
        let line = serde_json::to_string(&refused).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.starts_with(r#"{"answer":"refused","kind":"restart-needed""#), "{line}");
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), refused);
    }
}
