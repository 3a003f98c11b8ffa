//! What a run measures, read from TOML.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, for reports.
    pub name: String,
    /// Length of one measurement, seconds.
    pub seconds: u32,
    /// How often each gateway is measured under each load.
    pub rounds: usize,
    /// Who takes turns.
    pub gateways: Vec<HubKind>,
    /// What they are loaded with.
    pub load: Vec<Load>,
    /// A flood of handshakes beside it; only against this project's gateway.
    #[serde(default)]
    pub flood: Option<FloodSetup>,
    /// Changes of a fact under each load; only against this project's gateway.
    #[serde(default)]
    pub revocation: Option<RevocationSetup>,
}

/// A device that loses its posture and gets it back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationSetup {
    /// Live flows of the device, at most 240,000.
    pub flows: u32,
    /// How often.
    pub changes: u32,
}

/// A flood of handshakes from made-up sources.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloodSetup {
    /// Its rate, in multiples of what one core can answer.
    pub times_capacity: u32,
}

/// A gateway that can stand in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubKind {
    /// This project's.
    Bulkhead,
    /// Debian's wireguard-go, with the kernel forwarding between its peers.
    WireguardGo,
}

impl HubKind {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulkhead => "bulkhead",
            Self::WireguardGo => "wireguard-go",
        }
    }
}

/// One kind of traffic from the laptop to the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Its name, for reports.
    pub name: String,
    /// The transport.
    pub protocol: Protocol,
    /// UDP payload, bytes.
    #[serde(default)]
    pub payload: Option<u16>,
    /// UDP offered, payload bits a second, in iperf3's form; without it as fast as it goes, which
    /// takes the cores from everybody else.
    #[serde(default)]
    pub bitrate: Option<String>,
}

/// The transport of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// One connection.
    Tcp,
    /// One stream.
    Udp,
}

/// Why a profile cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No such file, or not readable.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a profile; the message of the parser shows the place.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The place and what was expected there.
        source: toml::de::Error,
    },
    /// Nothing would be measured.
    #[error("{path}: {what} must not be empty or zero")]
    Empty {
        /// The file.
        path: PathBuf,
        /// The key.
        what: &'static str,
    },
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is not one, or measures nothing.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        let profile: Self = toml::from_str(&text)
            .map_err(|source| ProfileError::Parse { path: path.to_owned(), source })?;
        for (empty, what) in [
            (profile.seconds == 0, "seconds"),
            (profile.rounds == 0, "rounds"),
            (profile.gateways.is_empty(), "gateways"),
            (profile.load.is_empty(), "load"),
        ] {
            if empty {
                return Err(ProfileError::Empty { path: path.to_owned(), what });
            }
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_of_the_repository_are_profiles() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Profile::load(&entry.unwrap().path()).unwrap();
            count += 1;
        }
        assert!(count > 0);
    }
}
