//! What another policy would change: the exact regions of flows with another verdict.
//!
//! INVARIANT: a flow of one family between two addresses has another verdict under the new policy
//! exactly if it lies in one region: from an address of `from`, to one of `to`, about one of
//! `services`. Each region has a witness that shows it.

use core::fmt;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::Config;
use bulkhead_table::{Draft, LabelId, Run, Service};
use serde::Serialize;

use crate::compile::{CompileErrors, compile_with, numbered_peers};
use crate::endpoint::{Actor, Endpoints};
use crate::region::{Piece, Pieces, label_of};
use crate::span::{ServiceSpan, count, spans, without};
use crate::summary::{Roll, Summary};
use crate::{Facts, Reading};

/// What changes between two policies, the largest region first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Disjoint.
    pub regions: Vec<Region>,
}

/// Flows whose verdict changes in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// What the new policy says.
    pub now: Now,
    /// From these; named as in the new policy, or in the old one if that alone has them.
    pub from: Summary,
    /// To these.
    pub to: Summary,
    /// About these.
    pub services: Vec<ServiceSpan>,
    /// A flow of the region.
    pub witness: Witness,
    /// Pairs of endpoints, for the order.
    #[serde(skip)]
    pairs: u64,
}

/// The verdict of the new policy, where that of the old one is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Now {
    /// Was denied.
    Allowed,
    /// Was allowed.
    Denied,
}

/// A flow that shows a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// From this address,
    pub from: IpAddr,
    /// to this one,
    pub to: IpAddr,
    /// about this.
    #[serde(serialize_with = "as_text")]
    pub service: Service,
}

fn as_text<S: serde::Serializer>(service: &Service, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(service)
}

/// Compares two policies under the same facts.
///
/// # Errors
///
/// If one of them does not compile.
pub fn diff(old: &Config, new: &Config, facts: &Facts) -> Result<Diff, CompileErrors> {
    Comparison::of(old, new, facts).map(|comparison| comparison.diff())
}

/// Two policies side by side.
pub struct Comparison {
    old: Draft,
    new: Draft,
    pieces: Pieces,
    rolls: (Roll, Roll),
}

/// The pieces that have the same labels in both policies, and are of one family.
type Class = (LabelId, LabelId, bool);

/// Where something changes: to which classes, in which way.
type Changes = BTreeMap<Change, BTreeSet<Class>>;

/// In which way, and for which services.
type Change = (Now, Vec<ServiceSpan>);

impl Comparison {
    /// Compiles both.
    ///
    /// # Errors
    ///
    /// If one of them does not compile.
    pub fn of(old: &Config, new: &Config, facts: &Facts) -> Result<Self, CompileErrors> {
        let draft = |config: &Config| {
            compile_with(config, &numbered_peers(config), 1, Reading::Enforced, facts)
                .map(|compiled| compiled.draft)
        };
        let rolls = (Roll::of(old, &Endpoints::of(old)), Roll::of(new, &Endpoints::of(new)));
        let (old, new) = (draft(old)?, draft(new)?);
        let pieces = Pieces::of(&old, &new);
        Ok(Self { old, new, pieces, rolls })
    }

    /// How the verdict about one flow changes; `None` if it stays.
    #[must_use]
    pub fn change(&self, from: IpAddr, to: IpAddr, service: Service) -> Option<Now> {
        let nobody = |address: IpAddr| (LabelId(0), LabelId(0), address.is_ipv4());
        let class = |address| self.pieces.at(address).map_or(nobody(address), |p| self.class(&p));
        let (from, to) = (class(from), class(to));
        let changed = self.changes(from, to).into_iter().find(|(_, services)| {
            services.iter().any(|span| span.first <= service && service <= span.last)
        });
        changed.map(|(now, _)| now)
    }

    /// All regions.
    #[must_use]
    pub fn diff(&self) -> Diff {
        let mut members: BTreeMap<Class, Vec<Piece>> = BTreeMap::new();
        for piece in self.pieces.list.keys() {
            members.entry(self.class(piece)).or_default().push(*piece);
        }
        let mut alike: BTreeMap<(Change, BTreeSet<Class>), BTreeSet<Class>> = BTreeMap::new();
        for from in members.keys() {
            let mut changes = Changes::new();
            for to in members.keys().filter(|to| to.2 == from.2) {
                for change in self.changes(*from, *to) {
                    changes.entry(change).or_default().insert(*to);
                }
            }
            for region in changes {
                alike.entry(region).or_default().insert(*from);
            }
        }
        let regions = alike.into_iter();
        let mut regions: Vec<Region> = regions
            .filter_map(|(((now, services), to), from)| {
                self.region(now, services, &from, &to, &members)
            })
            .collect();
        regions.sort_by_key(|region| core::cmp::Reverse((region.pairs, count(&region.services))));
        Diff { regions }
    }

    fn class(&self, piece: &Piece) -> Class {
        (label_of(&self.old, piece.old), label_of(&self.new, piece.new), piece.v4)
    }

    /// What changes between two classes, at most once in each way.
    fn changes(&self, from: Class, to: Class) -> Vec<Change> {
        fn cell(draft: &Draft, from: LabelId, to: LabelId) -> &[Run] {
            draft.cells.get(&(from, to)).map_or(&[], |runs| &**runs)
        }
        let (old, new) = (cell(&self.old, from.0, to.0), cell(&self.new, from.1, to.1));
        if old.is_empty() && new.is_empty() {
            return Vec::new();
        }
        let (old, new) = (spans(old), spans(new));
        [(Now::Allowed, without(&new, &old)), (Now::Denied, without(&old, &new))]
            .into_iter()
            .filter(|(_, services)| !services.is_empty())
            .collect()
    }

    fn region(
        &self,
        now: Now,
        services: Vec<ServiceSpan>,
        from: &BTreeSet<Class>,
        to: &BTreeSet<Class>,
        members: &BTreeMap<Class, Vec<Piece>>,
    ) -> Option<Region> {
        let pieces = |classes: &BTreeSet<Class>| -> BTreeSet<Piece> {
            classes.iter().filter_map(|class| members.get(class)).flatten().copied().collect()
        };
        let (from, to) = (pieces(from), pieces(to));
        let address = |pieces: &BTreeSet<Piece>| {
            pieces.first().and_then(|piece| self.pieces.list.get(piece)).copied()
        };
        let witness =
            Witness { from: address(&from)?, to: address(&to)?, service: services.first()?.first };
        let pairs = u64::try_from(from.len().saturating_mul(to.len())).unwrap_or(u64::MAX);
        let (from, to) = (self.summary(&from), self.summary(&to));
        Some(Region { now, from, to, services, witness, pairs })
    }

    fn summary(&self, set: &BTreeSet<Piece>) -> Summary {
        let prefixes = self.pieces.prefixes_of(|piece| set.contains(piece));
        let actor = |endpoint: bulkhead_table::EndpointId| endpoint.0.checked_sub(1);
        // A region is of one family. Who is there with only some addresses of it does not stand for
        // the whole.
        let family = set.first().map(|piece| piece.v4);
        let partly: BTreeSet<Actor> = self
            .pieces
            .list
            .keys()
            .filter(|piece| Some(piece.v4) == family && !set.contains(piece))
            .filter_map(|piece| actor(piece.new))
            .collect();
        let all: BTreeSet<Actor> = set.iter().filter_map(|piece| actor(piece.new)).collect();
        let whole = all.difference(&partly).copied().collect();
        let mut summary = self.rolls.1.named_only(&all, &whole, prefixes);
        let gone = set.iter().filter(|piece| piece.new.0 == 0);
        let gone: BTreeSet<Actor> = gone.filter_map(|piece| actor(piece.old)).collect();
        let gone = self.rolls.0.named_only(&gone, &gone, Vec::new());
        summary.endpoints += gone.endpoints;
        summary.groups.extend(gone.groups);
        summary.others.extend(gone.others);
        summary
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.regions.is_empty() {
            return writeln!(f, "no verdict changes");
        }
        for Region { now, from, to, services, witness, .. } in &self.regions {
            let (sign, word) = match now {
                Now::Allowed => ('+', "allowed"),
                Now::Denied => ('-', "denied"),
            };
            let services: Vec<_> = services.iter().map(ToString::to_string).collect();
            writeln!(f, "{sign} {word}: {}", services.join(", "))?;
            writeln!(f, "  from     {from}")?;
            writeln!(f, "  to       {to}")?;
            writeln!(f, "  as       {} to {} {}", witness.from, witness.to, witness.service)?;
        }
        Ok(())
    }
}
