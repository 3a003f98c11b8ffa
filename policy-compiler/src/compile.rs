//! All passes in order: a configuration becomes a draft of the table.

use core::fmt;
use std::collections::{BTreeMap, HashMap};

use bulkhead_config::{
    Action, Config, Device, Group, Host, Internet, Log as RuleLog, Place, RuleStage, Services, Tag,
    User,
};
use bulkhead_table::{
    Draft, Endpoint, EndpointId, LabelId, Log, NextHop, PeerIndex, PortIndex, RuleIndex, RuleTag,
    Segment, SegmentId, Stage, limits,
};
use serde::Serialize;

use crate::classes::{Classes, Excess};
use crate::condition::{Conditions, Held};
use crate::endpoint::{Endpoints, Owner};
use crate::labels::Labels;
use crate::limits::{CONDITIONS_MAX, ENDPOINTS_MAX, EXPANDED_MAX};
use crate::names::Names;
use crate::resolve::{Identity, Reading, Resolved};
use crate::{Context, Facts, lower};

/// Which peer of the datapath a public key is.
pub type PeerMap = BTreeMap<[u8; 32], PeerIndex>;

/// A policy ready to be emitted, with the names of its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What the table will say.
    pub draft: Draft,
    /// What its endpoints and rules are called in the file.
    pub names: Names,
    /// Which of its labels an endpoint gets when conditions come and go.
    pub labels: Labels,
}

/// Compiles the rules in force for a box that knows neither the time nor anything about devices: no
/// rule with a condition allows, and each that denies does. `peers` must know every device's key.
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
    compile_with(config, peers, generation, Reading::Enforced, &Facts::default())
}

/// As [`compile`], for the rules that `reading` counts and what is known.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_with(
    config: &Config,
    peers: &PeerMap,
    generation: u64,
    reading: Reading,
    facts: &Facts,
) -> Result<Compiled, CompileErrors> {
    Compiler::default().compile(config, peers, generation, reading, facts)
}

/// A compiler that remembers who is who from one compile to the next: a change of rules, conditions
/// or facts alone does not sort the endpoints again.
#[derive(Debug, Default)]
pub struct Compiler {
    known: Option<(Parts, Identity)>,
    /// Where endpoints are, as long as these are who is who and which peers there are.
    hops: Option<(PeerMap, Vec<NextHop>)>,
}

/// The parts of a configuration that say who is who.
#[derive(Debug, PartialEq)]
struct Parts {
    users: Vec<User>,
    tags: Vec<Tag>,
    groups: Vec<Group>,
    devices: Vec<Device>,
    segments: Vec<bulkhead_config::Segment>,
    hosts: Vec<Host>,
    internet: Option<Internet>,
}

impl Parts {
    fn of(config: &Config) -> Self {
        Self {
            users: config.users.clone(),
            tags: config.tags.clone(),
            groups: config.groups.clone(),
            devices: config.devices.clone(),
            segments: config.segments.clone(),
            hosts: config.hosts.clone(),
            internet: config.internet.clone(),
        }
    }

    fn are_of(&self, config: &Config) -> bool {
        self.users == config.users
            && self.tags == config.tags
            && self.groups == config.groups
            && self.devices == config.devices
            && self.segments == config.segments
            && self.hosts == config.hosts
            && self.internet == config.internet
    }
}

impl Compiler {
    /// As [`compile_with`].
    ///
    /// # Errors
    ///
    /// As [`compile`].
    pub fn compile(
        &mut self,
        config: &Config,
        peers: &PeerMap,
        generation: u64,
        reading: Reading,
        facts: &Facts,
    ) -> Result<Compiled, CompileErrors> {
        let known = self.known.take().filter(|(parts, _)| parts.are_of(config));
        let hops = self.hops.take().filter(|(of, _)| known.is_some() && of == peers);
        let (parts, mut identity) =
            known.unwrap_or_else(|| (Parts::of(config), Identity::of(config)));
        let mut errors = vec![];
        let hops = hops.unwrap_or_else(|| {
            let hops = next_hops(config, &identity.endpoints, peers, &mut errors);
            (peers.clone(), hops)
        });
        // What is incomplete is not kept.
        let complete = errors.is_empty();
        let numbers = (generation, peers, hops.1.as_slice());
        let compiled = translate(config, &mut identity, numbers, reading, facts, errors);
        self.known = Some((parts, identity));
        self.hops = Some(hops).filter(|_| complete);
        compiled
    }
}

fn translate(
    config: &Config,
    identity: &mut Identity,
    (generation, peers, hops): (u64, &PeerMap, &[NextHop]),
    reading: Reading,
    facts: &Facts,
    unreachable: Vec<CompileError>,
) -> Result<Compiled, CompileErrors> {
    let resolved = Resolved::of(config, identity, reading);
    let endpoints = &identity.endpoints;
    let mut errors = sizes(config, endpoints);
    let conditions = Conditions::of(config);
    let standing = held(config, endpoints, &conditions, facts);
    let of = |actor: usize| standing.1.get(actor).and_then(|at| standing.0.get(*at));
    let nothing = Held::default();
    let held = |actor| of(actor).unwrap_or(&nothing);
    let classes = match Classes::of(&resolved, &conditions, held, limits::LABELS_MAX) {
        Ok(classes) => Some(classes),
        Err(excess) => {
            errors.push(CompileError::of(config, excess));
            None
        }
    };
    let cells = classes.as_ref().and_then(|classes| {
        match lower::cells(&resolved.rules, classes, lower::Max::default()) {
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
    errors.extend(unreachable);
    match (classes, cells) {
        (Some(classes), Some((cells, remarks))) if errors.is_empty() => {
            let prefixes = endpoints.prefixes.iter();
            let draft = Draft {
                generation,
                labels: classes.count(),
                endpoints: with_labels(&classes.labels, hops),
                prefixes: prefixes.map(|(net, actor)| (*net, EndpointId(actor + 1))).collect(),
                segments: segments(config),
                cells,
                remarks,
                tags: config.rules.iter().map(|rule| RuleTag::of(&rule.id)).collect(),
                logs: logs(config),
                logs_denied: config.flow_log.denied,
                rules: u32::try_from(config.rules.len()).unwrap_or(u32::MAX),
                peers: peers.values().map(|peer| peer.0.saturating_add(1)).max().unwrap_or(0),
            };
            let labels = labels(config, endpoints, classes);
            Ok(Compiled { draft, names: Names::of(config, endpoints), labels })
        }
        (_, _) => Err(CompileErrors(errors)),
    }
}

/// Which flows of which rules are logged. What is denied has no end, and a shadow rule is only ever
/// asked about what no rule allows or denies: then its own log counts, or that of no rule.
fn logs(config: &Config) -> Vec<(RuleIndex, Log)> {
    let log = |rule: &bulkhead_config::Rule| match (rule.action, rule.stage, rule.log) {
        (Action::Allow, RuleStage::Enforce, RuleLog::All) => Log::All,
        (Action::Allow | Action::Deny, RuleStage::Enforce, RuleLog::New)
        | (Action::Deny, RuleStage::Enforce, RuleLog::All)
        | (Action::Allow, RuleStage::Shadow, RuleLog::New | RuleLog::All) => Log::New,
        (Action::Allow, RuleStage::Shadow, RuleLog::None) if config.flow_log.denied => Log::New,
        (Action::Allow | Action::Deny, RuleStage::Enforce | RuleStage::Shadow, _) => Log::None,
    };
    let all = (0..).map(RuleIndex).zip(config.rules.iter().map(log));
    all.filter(|(_, log)| *log != Log::None).collect()
}

/// Peers as they come, for tables that only answer questions.
pub(crate) fn numbered_peers(config: &Config) -> PeerMap {
    let keys = config.devices.iter().map(|device| device.public_key.0);
    keys.zip((0..).map(PeerIndex)).collect()
}

/// What holds, each combination once, and by endpoint which of them.
fn held(
    config: &Config,
    endpoints: &Endpoints,
    conditions: &Conditions,
    facts: &Facts,
) -> (Vec<Held>, Vec<usize>) {
    let nobody = Context::default();
    let mut all = vec![conditions.evaluate(None, &nobody, facts.now)];
    let mut of_device: HashMap<u32, usize> = HashMap::new();
    for (at, device) in (0..).zip(&config.devices) {
        let context = facts.devices.get(&device.name);
        if context.is_some() || conditions.are_personal() {
            of_device.insert(at, all.len());
            let context = context.unwrap_or(&nobody);
            all.push(conditions.evaluate(Some(&device.name), context, facts.now));
        }
    }
    let of_actor = |(owner, _): &(Owner, Vec<u32>)| match owner {
        Owner::Device(at) => of_device.get(at).copied().unwrap_or(0),
        Owner::Segment(_) | Owner::Internet => 0,
    };
    let of_actors = endpoints.list.iter().map(of_actor).collect();
    (all, of_actors)
}

fn labels(config: &Config, endpoints: &Endpoints, classes: Classes) -> Labels {
    let device = |(owner, _): &(Owner, Vec<u32>)| match owner {
        Owner::Device(at) => {
            let device = usize::try_from(*at).ok().and_then(|at| config.devices.get(at));
            device.map(|device| device.name.clone())
        }
        Owner::Segment(_) | Owner::Internet => None,
    };
    let all = classes.kind_of.iter().copied().zip(endpoints.list.iter().map(device));
    let endpoints = core::iter::once((0, None)).chain(all).collect();
    Labels { endpoints, kinds: classes.kinds }
}

fn sizes(config: &Config, endpoints: &Endpoints) -> Vec<CompileError> {
    let device = |at: u32| usize::try_from(at).ok().and_then(|at| config.devices.get(at));
    let segment = |at: u32| usize::try_from(at).ok().and_then(|at| config.segments.get(at));
    let endpoint = endpoints.list.get(ENDPOINTS_MAX).and_then(|(owner, _)| match owner {
        Owner::Device(at) => device(*at).map(|device| named("device", &device.name, device.place)),
        Owner::Segment(at) => {
            segment(*at).map(|segment| named("segment", &segment.name, segment.place))
        }
        Owner::Internet => Some("the internet".to_owned()),
    });
    let rule = |rule: &bulkhead_config::Rule| named("rule", &rule.id, rule.place);
    let (expanded, too_many) = expanded(config);
    let too_large = config.segments.get(limits::SEGMENTS_MAX);
    [
        ("endpoints", endpoints.list.len(), ENDPOINTS_MAX, endpoint),
        (
            "segments",
            config.segments.len(),
            limits::SEGMENTS_MAX,
            too_large.map(|segment| named("segment", &segment.name, segment.place)),
        ),
        (
            "rules",
            config.rules.len(),
            limits::RULES_MAX,
            config.rules.get(limits::RULES_MAX).map(rule),
        ),
        ("rules when written out", expanded, EXPANDED_MAX, too_many.map(rule)),
    ]
    .into_iter()
    .filter(|(_, found, most, _)| found > most)
    .map(|(what, found, most, first)| {
        let first = first.unwrap_or_default();
        CompileError::TooMany { what, found, most, first }
    })
    .collect()
}

fn named(kind: &str, name: &str, place: Place) -> String {
    format!("{kind} {name} (line {})", place.line)
}

/// See [`EXPANDED_MAX`]; and the rule with which it is exceeded.
fn expanded(config: &Config) -> (usize, Option<&bulkhead_config::Rule>) {
    let ports: HashMap<&str, usize> = config
        .services
        .iter()
        .map(|service| (service.name.as_str(), service.ports.len()))
        .collect();
    let of_rule = |rule: &bulkhead_config::Rule| {
        let ranges = match &rule.services {
            Services::Any => 1,
            Services::Named(names) => {
                names.iter().filter_map(|name| ports.get(name.as_str())).sum::<usize>()
            }
        };
        rule.from.len().saturating_mul(rule.to.len()).saturating_mul(ranges)
    };
    let (mut sum, mut first) = (0usize, None);
    for rule in &config.rules {
        sum = sum.saturating_add(of_rule(rule));
        if sum > EXPANDED_MAX && first.is_none() {
            first = Some(rule);
        }
    }
    (sum, first)
}

/// Where each endpoint is reached: a device through its tunnel, a segment through its port, the
/// internet through the device that leads there.
fn next_hops(
    config: &Config,
    endpoints: &Endpoints,
    peers: &PeerMap,
    errors: &mut Vec<CompileError>,
) -> Vec<NextHop> {
    let mut of_device = Vec::with_capacity(config.devices.len());
    for device in &config.devices {
        let peer = peers.get(&device.public_key.0).copied();
        if peer.is_none() {
            let (device, place) = (device.name.clone(), device.place);
            errors.push(CompileError::NoPeer { device, place });
        }
        of_device.push(NextHop::Peer(peer.unwrap_or_default()));
    }
    let via = config
        .internet
        .as_ref()
        .and_then(|internet| config.devices.iter().position(|device| device.name == internet.via));
    let device = |at: usize| of_device.get(at).copied();
    let hop = |(owner, _): &(Owner, Vec<u32>)| match *owner {
        Owner::Device(at) => usize::try_from(at).ok().and_then(device),
        // More segments than numbers have been reported as too many.
        Owner::Segment(at) => u16::try_from(at).ok().map(|at| NextHop::Segment(SegmentId(at))),
        Owner::Internet => via.and_then(device),
    };
    endpoints.list.iter().filter_map(hop).collect()
}

/// With the placeholder that stands for nobody in front.
fn with_labels(labels: &[LabelId], hops: &[NextHop]) -> Vec<Endpoint> {
    let nobody = Endpoint { label: LabelId(0), next_hop: NextHop::Peer(PeerIndex(0)) };
    let all = labels.iter().zip(hops);
    let all = all.map(|(label, next_hop)| Endpoint { label: *label, next_hop: *next_hop });
    core::iter::once(nobody).chain(all).collect()
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

impl CompileError {
    pub(crate) fn of(config: &Config, excess: Excess) -> Self {
        let (Excess::Labels { rule, .. } | Excess::Conditions { rule, .. }) = excess;
        let rule = rule.and_then(|at| usize::try_from(at).ok()).and_then(|at| config.rules.get(at));
        let first = rule.map_or_else(String::new, |rule| named("rule", &rule.id, rule.place));
        match excess {
            Excess::Labels { needed, .. } => Self::Labels { needed, first },
            Excess::Conditions { found, .. } => Self::Conditions { found, first },
        }
    }
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CompileError {
    /// More of something than there may be.
    #[error("{found} {what}; at most {most}: {first} is the first too many")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
        /// What is beyond it, with its line.
        first: String,
    },
    /// The rules tell too many endpoints apart.
    #[error(
        "the rules tell {needed} kinds of endpoints apart; at most {}: {first} is the first too \
         many; let rules name groups and tags instead of single devices",
        limits::LABELS_MAX
    )]
    Labels {
        /// With the one that may nothing.
        needed: usize,
        /// The rule that tells the first too many apart, with its line.
        first: String,
    },
    /// An endpoint depends on too many conditions.
    #[error(
        "some endpoint asks by rules with {found} different conditions; at most {CONDITIONS_MAX}: \
         {first} is the first too many; let rules share their posture, time and when"
    )]
    Conditions {
        /// How many.
        found: usize,
        /// The rule that is beyond the limit, with its line.
        first: String,
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
