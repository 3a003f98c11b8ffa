//! What is asked and answered about changes of the configuration.

use serde::{Deserialize, Serialize};

/// The longest message of an operator, bytes.
pub const MESSAGE_MAX: usize = 1_000;
/// The longest time that a configuration may wait for its confirmation, seconds: a day.
pub const CONFIRM_S_MAX: u64 = 86_400;

/// What the box runs with, and what it would start with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationAnswer {
    /// The generation of the history whose text is in force; `None`: it is not in the history yet.
    pub in_force: Option<u64>,
    /// The generation that was confirmed last: what a start puts in force.
    pub standing: Option<u64>,
    /// What waits for its confirmation.
    pub waiting: Option<WaitingAnswer>,
    /// The generation that is being taken back.
    pub taking_back: Option<u64>,
    /// The configuration file, compared with what is in force.
    pub file: FileAnswer,
}

/// A configuration that waits for its confirmation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingAnswer {
    /// Which.
    pub generation: u64,
    /// Until it is rolled back, milliseconds.
    pub left_ms: u64,
    /// What comes back then.
    pub back_to: u64,
}

/// The configuration file, compared with what is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAnswer {
    /// Nothing to apply.
    #[default]
    Same,
    /// Another text.
    Differs,
    /// It is not there, or cannot be read.
    Unreadable,
}

/// Every configuration that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// Oldest first.
    pub entries: Vec<HistoryEntryAnswer>,
}

/// A configuration that was in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntryAnswer {
    /// The generation of the table that first judged by it.
    pub generation: u64,
    /// When, seconds since 1970.
    pub at: u64,
    /// User id of whoever applied it; `None`: it was found at the first start.
    pub by: Option<u32>,
    /// Why.
    pub message: String,
    /// The generation whose text it is, if it was brought back.
    pub text_of: Option<u64>,
    /// `confirmed`, `waiting` or `rolled-back`.
    pub state: String,
    /// Whether it is in force now.
    pub in_force: bool,
    /// Whether a start puts it in force.
    pub standing: bool,
}

/// What an apply would change. Nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunAnswer {
    /// The file that was read.
    pub path: String,
    /// Whether the text is that of what is in force.
    pub same: bool,
    /// Why the datapath would have to be restarted; empty: it would not.
    pub restart_needed: Vec<String>,
    /// WireGuard devices.
    pub devices: ChangedNames,
    /// Plain segments.
    pub segments: ChangedNames,
    /// WireGuard listeners.
    pub listeners: ChangedNames,
    /// Flows with another verdict, the largest region first, at most 1,000.
    pub verdicts: Vec<RegionAnswer>,
    /// How many regions there are.
    pub regions: usize,
    /// Every `[[test]]` of the file.
    pub tests: Vec<TestAnswer>,
}

/// Names that come, go, and stand for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedNames {
    /// Only the file has them.
    pub added: Vec<String>,
    /// The file has them no more.
    pub removed: Vec<String>,
    /// The file says something else about them.
    pub changed: Vec<String>,
}

impl ChangedNames {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Flows whose verdict changes in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionAnswer {
    /// Whether they are allowed after the change.
    pub allowed: bool,
    /// Whose.
    pub from: String,
    /// Where to.
    pub to: String,
    /// About what.
    pub services: Vec<String>,
    /// One of them: source, destination, service.
    pub witness: [String; 3],
}

/// How a `[[test]]` ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestAnswer {
    /// Its name.
    pub name: String,
    /// Its line in the file.
    pub line: u32,
    /// Whether all answers were as wanted.
    pub passed: bool,
    /// As `bulkhead policy test` prints it.
    pub text: String,
}

/// The text of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextAnswer {
    /// Which.
    pub generation: u64,
    /// The configuration, as it was applied.
    pub text: String,
}
