//! All passes in order: a configuration becomes a draft of the table.

use core::fmt;
use std::collections::BTreeMap;

use bulkhead_config::{Config, Place};
use bulkhead_table::{
    Draft, Endpoint, EndpointId, LabelId, NextHop, PeerIndex, PortIndex, Segment, SegmentId, Stage,
    limits,
};
use ipnet::IpNet;
use serde::Serialize;

use crate::names::Names;
use crate::{classes, lower, resolve};

/// Which peer of the datapath a public key is.
pub type PeerMap = BTreeMap<[u8; 32], PeerIndex>;

/// A policy ready to be emitted, with the names of its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What the table will say.
    pub draft: Draft,
    /// What its endpoints and rules are called in the file.
    pub names: Names,
}

/// Compiles a configuration. `peers` must know every device's key.
///
/// The draft depends on nothing but the arguments, and never on the order of anything unordered.
///
/// # Errors
///
/// If the policy is larger than the limits of the table, or `peers` lacks a device.
pub fn compile(
    config: &Config,
    peers: &PeerMap,
    generation: u64,
) -> Result<Compiled, CompileErrors> {
    let mut errors = sizes(config);
    let rules = resolve::rules(config);
    let actors = config.devices.len() + config.segments.len();
    let classes = match classes::classes(&rules, actors, limits::LABELS_MAX) {
        Ok(classes) => Some(classes),
        Err(needed) => {
            errors.push(CompileError::Labels { needed });
            None
        }
    };
    let cells = classes.as_ref().and_then(|classes| {
        match lower::cells(&rules, classes, lower::Max::default()) {
            Ok(cells) => Some(cells),
            Err(lower::TooLarge::Cells) => {
                errors.push(CompileError::Cells);
                None
            }
            Err(lower::TooLarge::Runs) => {
                errors.push(CompileError::Runs);
                None
            }
        }
    });
    let hops = next_hops(config, peers, &mut errors);
    match (classes, cells) {
        (Some(classes), Some(cells)) if errors.is_empty() => {
            let draft = Draft {
                generation,
                labels: classes.count,
                endpoints: endpoints(&classes.labels, &hops),
                prefixes: prefixes(config),
                segments: segments(config),
                cells,
                rules: u32::try_from(config.rules.len()).unwrap_or(u32::MAX),
                peers: peers.values().map(|peer| peer.0.saturating_add(1)).max().unwrap_or(0),
            };
            Ok(Compiled { draft, names: Names::of(config) })
        }
        (_, _) => Err(CompileErrors(errors)),
    }
}

fn sizes(config: &Config) -> Vec<CompileError> {
    let endpoints = config.devices.len() + config.segments.len() + 1;
    [
        ("endpoints (devices and segments)", endpoints, limits::ENDPOINTS_MAX),
        ("segments", config.segments.len(), limits::SEGMENTS_MAX),
        ("rules", config.rules.len(), limits::RULES_MAX),
    ]
    .into_iter()
    .filter(|(_, found, most)| found > most)
    .map(|(what, found, most)| CompileError::TooMany { what, found, most })
    .collect()
}

/// Where each endpoint is reached: a device through its tunnel, a segment through its port.
fn next_hops(config: &Config, peers: &PeerMap, errors: &mut Vec<CompileError>) -> Vec<NextHop> {
    let mut hops = Vec::with_capacity(config.devices.len() + config.segments.len());
    for device in &config.devices {
        match peers.get(&device.public_key.0) {
            Some(peer) => hops.push(NextHop::Peer(*peer)),
            None => errors
                .push(CompileError::NoPeer { device: device.name.clone(), place: device.place }),
        }
    }
    // More segments than numbers have been reported as too many.
    let numbers = (0..config.segments.len()).map_while(|index| u16::try_from(index).ok());
    hops.extend(numbers.map(|number| NextHop::Segment(SegmentId(number))));
    hops
}

/// With the placeholder that stands for nobody in front.
fn endpoints(labels: &[LabelId], hops: &[NextHop]) -> Vec<Endpoint> {
    let nobody = Endpoint { label: LabelId(0), next_hop: NextHop::Peer(PeerIndex(0)) };
    let all = labels.iter().zip(hops);
    let all = all.map(|(label, next_hop)| Endpoint { label: *label, next_hop: *next_hop });
    core::iter::once(nobody).chain(all).collect()
}

fn prefixes(config: &Config) -> Vec<(IpNet, EndpointId)> {
    let devices = config.devices.iter().map(|device| &device.addresses);
    let all = devices.chain(config.segments.iter().map(|segment| &segment.subnets));
    let mut prefixes: Vec<_> = (1..=u32::MAX)
        .zip(all)
        .flat_map(|(id, nets)| nets.iter().map(move |net| (*net, EndpointId(id))))
        .collect();
    prefixes.sort_unstable();
    prefixes
}

fn segments(config: &Config) -> Vec<Segment> {
    config
        .segments
        .iter()
        .map(|segment| Segment {
            port: PortIndex(segment.port),
            vlan: segment.vlan,
            stage: match segment.stage {
                bulkhead_config::Stage::Enforce => Stage::Enforce,
            },
        })
        .collect()
}

/// Why a configuration does not become a table. At least one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CompileErrors(Vec<CompileError>);

impl CompileErrors {
    /// The reasons.
    #[must_use]
    pub fn list(&self) -> &[CompileError] {
        &self.0
    }

    pub(crate) fn one(error: CompileError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| writeln!(f, "policy: {error}"))
    }
}

impl std::error::Error for CompileErrors {}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CompileError {
    /// More of something than the table can number.
    #[error("{found} {what}; at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The rules tell too many endpoints apart.
    #[error(
        "the rules tell {needed} kinds of endpoints apart; at most {}: let rules name groups and \
         tags instead of single devices",
        limits::LABELS_MAX
    )]
    Labels {
        /// With the one that may nothing.
        needed: usize,
    },
    /// The rules join too many pairs.
    #[error(
        "the rules join more than {} pairs of kinds of endpoints: let rules name groups and tags \
         instead of single devices",
        crate::limits::CELLS_MAX
    )]
    Cells,
    /// The rules need too many port ranges.
    #[error(
        "the rules need more than {} ranges of ports: join services that are used together",
        crate::limits::RUNS_MAX
    )]
    Runs,
    /// Nobody said which peer a device is.
    #[error("device {device} (line {}) has no peer index", .place.line)]
    NoPeer {
        /// Its name.
        device: String,
        /// Where it is defined.
        place: Place,
    },
    /// The table's writer refused the draft.
    #[error("the table cannot be written: {reason}")]
    Emit {
        /// What it said.
        reason: String,
    },
}
