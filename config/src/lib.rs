//! What an operator writes, and what the daemon runs on.
//!
//! ```text
//!   bulkhead.toml ── text ──▶ tables with places ──▶ Config        nothing left to check
//!                     toml                  read/*  └─▶ ConfigErrors, every mistake at once
//! ```
//!
//! Only [`Config`] leaves this crate, so code that holds one has nothing left to check. All
//! mistakes are reported in one run, each with its place, the value found, what would be accepted
//! and, where there is one, the nearest name. The manual of the file is `default.toml`; its
//! limits stand in [`limits`].
//!
//! Key files are read here too, because a missing one is a mistake like any other; what is not a
//! file of the operator (devices, addresses of the box) is not looked at.
#![forbid(unsafe_code)]

mod condition;
mod config;
mod error;
mod flow_log;
mod flows;
pub mod internet;
mod key;
pub mod keys;
pub mod limits;
mod names;
mod nearest;
mod prefix;
mod read;
mod reader;
mod rule;
mod section;
mod selector;
mod service;
mod source;
mod value;
mod when;

use std::path::Path;

pub use condition::{
    ATTRIBUTES, Attribute, AttributeKind, Condition, Demand, Given, Must, Posture, TimeOfWeek,
    Value,
};
pub use config::{
    Attach, Bind, ClientSide, Config, Device, Dscp, EndpointName, Expectation, Gateway, Group,
    Listener, Origin, Place, Port, PortKind, Segment, Service, Stage, Tag, Test, Timers, User,
};
pub use error::{ConfigError, ConfigErrors, Mistake};
pub use flow_log::FlowLog;
pub use flows::{FlowTimeouts, Flows, Midstream, OnRevoke};
pub use key::{InvalidKey, KeyFileError, KeyFolder, KeySource, PublicKey, Secret};
pub use nearest::nearest;
pub use rule::{Action, Host, Internet, Log, Rule, RuleStage, Selector, Services};
pub use service::{Flow, InvalidFlow, InvalidService, ServiceRange};
pub use value::counted;
pub use when::{Knowing, Known, Name, Part, When};

impl Config {
    /// Reads a file and the key files that it names.
    ///
    /// # Errors
    ///
    /// Every mistake found, in the order of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&path.display().to_string(), &Self::text(path)?)
    }

    /// The text of a file, as [`Config::load`] reads it.
    ///
    /// # Errors
    ///
    /// If it is not a regular file of a bearable size, or cannot be read.
    pub fn text(path: &Path) -> Result<String, ConfigErrors> {
        let shown = path.display().to_string();
        let refused = |problem| ConfigErrors::new(vec![ConfigError::of_file(&shown, problem)]);
        // Asked first, so that a wrong path cannot fill the memory or block on a pipe.
        let facts = std::fs::metadata(path).map_err(|error| refused(unreadable(&error)))?;
        if !facts.is_file() || facts.len() > limits::FILE_BYTES_MAX as u64 {
            let most = limits::FILE_BYTES_MAX;
            return Err(refused(format!("not a regular file of at most {most} bytes")));
        }
        std::fs::read_to_string(path).map_err(|error| refused(unreadable(&error)))
    }

    /// Reads a text. `path` is quoted in errors, and key files are looked for in its folder.
    ///
    /// # Errors
    ///
    /// Every mistake found, in the order of the file.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_with(path, text, &KeyFolder::beside(Path::new(path)))
    }

    /// Reads a text with keys from somewhere else than the file system.
    ///
    /// # Errors
    ///
    /// Every mistake found, in the order of the file.
    pub fn parse_with(path: &str, text: &str, keys: &dyn KeySource) -> Result<Self, ConfigErrors> {
        read::config(path, text, keys)
    }
}

fn unreadable(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::InvalidData {
        "not a text: it is not UTF-8".to_owned()
    } else {
        format!("cannot be read: {error}")
    }
}
