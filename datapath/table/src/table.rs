//! A validated table, and the view of it that answers.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use bulkhead_wire::Address;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::format::{
    Header, KIND_PEER, KIND_SEGMENT, Layout, MAGIC, MatrixLayout, RawEndpoint, RawSegment,
    STAGE_ENFORCE, TrieLayout, VERSION, VLAN_MAX, checksum, count,
};
use crate::hosts::Hosts;
use crate::log::Logs;
use crate::matrix::{Cell, Matrix};
use crate::trie::{IS_NODE, Trie};
use crate::{
    Endpoint, EndpointId, Family, LabelId, Log, NextHop, PeerIndex, PortIndex, Question, RuleIndex,
    RuleTag, Segment, SegmentId, Service, Stage, TableError, Verdict,
};

/// An owned table whose bytes have been checked.
///
/// The bytes must not change while the table lives; the datapath has a copy of its own. If they do change,
/// answers are wrong but nothing panics or reads out of bounds.
#[derive(Clone)]
pub struct Table {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    header: Header,
    layout: Layout,
}

impl Table {
    /// Checks `bytes` completely, in time linear in their length.
    ///
    /// # Errors
    ///
    /// The first defect, in the order: header, counts, length, checksum, endpoints, segments,
    /// hosts, tries, matrix, remarks, tags, logs.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, TableError> {
        let found: &[u8] = (*bytes).as_ref();
        let (header, _) = Header::read_from_prefix(found)
            .map_err(|_| TableError::HeaderTruncated { len: found.len() })?;
        if header.magic != MAGIC {
            return Err(TableError::Magic { found: header.magic });
        }
        if header.version.get() != VERSION {
            return Err(TableError::Version { found: header.version.get() });
        }
        if header.reserved.get() != 0 || header.padding != [0; 12] {
            return Err(TableError::Reserved { what: "header" });
        }
        header.check_counts()?;
        let layout = Layout::of(&header);
        let counts = layout.total_len();
        if found.len() != counts || header.total_len.get() != counts as u64 {
            let header = header.total_len.get();
            return Err(TableError::Length { found: found.len(), header, counts });
        }
        if checksum(found) != header.checksum {
            return Err(TableError::Checksum);
        }
        let view = view(found, &header, &layout);
        view.check_endpoints(&header)?;
        view.check_segments()?;
        view.hosts.check(view.endpoints.len())?;
        view.v4.check(Family::V4, view.endpoints.len())?;
        view.v6.check(Family::V6, view.endpoints.len())?;
        view.matrix.check(count(header.rules))?;
        view.remarks.check(count(header.rules))?;
        view.check_tags()?;
        view.logs.check()?;
        Ok(Self { bytes, header, layout })
    }

    /// The view that answers. Cheap; taken once per batch.
    #[inline]
    #[must_use]
    pub fn view(&self) -> View<'_> {
        view((*self.bytes).as_ref(), &self.header, &self.layout)
    }

    /// Which edition of the policy this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header.generation.get()
    }

    /// The checksum of the table; tables with equal digests are equal.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        self.header.checksum
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.layout.total_len()
    }

    /// How many endpoints there are, with the placeholder.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        count(self.header.endpoints)
    }

    /// How many labels there are, with label 0.
    #[must_use]
    pub fn label_count(&self) -> usize {
        count(self.header.labels)
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        count(self.header.segments)
    }

    /// How many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        count(self.header.rules)
    }

    /// How many peers there are: every [`PeerIndex`] in the table is below.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        count(self.header.peers)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A borrowed table. Copying it copies slices.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    generation: u64,
    endpoints: &'a [RawEndpoint],
    segments: &'a [RawSegment],
    hosts: Hosts<'a>,
    v4: Trie<'a>,
    v6: Trie<'a>,
    matrix: Matrix<'a>,
    remarks: Matrix<'a>,
    tags: &'a [U64],
    logs: Logs<'a>,
}

impl View<'_> {
    /// Which edition of the policy this is.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whose address this is; nobody's if no prefix holds it.
    #[inline]
    #[must_use]
    pub fn endpoint_at(&self, address: Address) -> EndpointId {
        match self.hosts.find(address) {
            EndpointId(0) => {
                let (trie, key) = self.trie_of(address);
                trie.find(key)
            }
            found => found,
        }
    }

    /// Whose addresses these are: [`Self::endpoint_at`] for a whole batch. Places of `endpoints`
    /// beyond the addresses become nobody.
    ///
    /// All lookups take a step before any takes the next, so that their cache misses overlap, and no
    /// step branches on what it finds.
    pub fn endpoints_at(&self, addresses: &[Address], endpoints: &mut [EndpointId]) {
        let beyond = endpoints.get_mut(addresses.len()..).unwrap_or_default();
        beyond.fill(EndpointId(0));
        for (addresses, endpoints) in addresses.chunks(LANES).zip(endpoints.chunks_mut(LANES)) {
            for (address, endpoint) in addresses.iter().zip(&mut *endpoints) {
                *endpoint = self.hosts.find(*address);
            }
            let count = addresses.len().min(endpoints.len());
            let endpoints = endpoints.get_mut(..count).unwrap_or_default();
            self.walk(endpoints, |lane| addresses.get(lane).copied());
        }
    }

    /// Asks the tries for those of at most [`LANES`] addresses that are no hosts.
    #[inline]
    fn walk(&self, endpoints: &mut [EndpointId], address: impl Fn(usize) -> Option<Address>) {
        // All in one look: that there is none is the rule.
        if !endpoints.iter().fold(false, |any, endpoint| any | (endpoint.0 == 0)) {
            return;
        }
        // Their places, in order.
        let (mut walking, mut count) = ([0u8; LANES], 0);
        for (at, endpoint) in (0..).zip(endpoints.iter()) {
            if let Some(place) = walking.get_mut(count) {
                *place = at;
            }
            count += usize::from(endpoint.0 == 0);
        }
        let mut walkers = walking.get_mut(..count).unwrap_or_default();
        let mut start = true;
        while !walkers.is_empty() {
            let mut still = 0;
            for from in 0..walkers.len() {
                let Some(&at) = walkers.get(from) else { break };
                let lane = usize::from(at);
                let (Some(address), Some(endpoint)) = (address(lane), endpoints.get_mut(lane))
                else {
                    break;
                };
                let (trie, key) = self.trie_of(address);
                let entry = if start { trie.start(key) } else { trie.step(key, endpoint.0) };
                *endpoint = EndpointId(entry);
                if let Some(place) = walkers.get_mut(still) {
                    *place = at;
                }
                still += usize::from(entry & IS_NODE != 0);
            }
            walkers = walkers.get_mut(..still).unwrap_or_default();
            start = false;
        }
    }

    /// What is known of an endpoint; nothing of nobody.
    #[inline]
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<Endpoint> {
        let raw = self.endpoints.get(id.0 as usize)?;
        let next_hop = match raw.kind {
            KIND_PEER => NextHop::Peer(PeerIndex(raw.next_hop.get())),
            KIND_SEGMENT => NextHop::Segment(SegmentId(u16::try_from(raw.next_hop.get()).ok()?)),
            _ => return None,
        };
        Some(Endpoint { label: LabelId(raw.label.get()), next_hop })
    }

    /// What is known of a segment.
    #[inline]
    #[must_use]
    pub fn segment(&self, id: SegmentId) -> Option<Segment> {
        let raw = self.segments.get(usize::from(id.0))?;
        let stage = match raw.stage {
            STAGE_ENFORCE => Stage::Enforce,
            _ => return None,
        };
        let vlan = raw.vlan.get();
        Some(Segment { port: PortIndex(raw.port), vlan: (vlan != 0).then_some(vlan), stage })
    }

    /// Whether `source` may use `service` of `destination`. Labels that the table does not have may
    /// nothing.
    #[inline]
    #[must_use]
    pub fn judge(&self, source: LabelId, destination: LabelId, service: Service) -> Verdict {
        self.matrix.judge(source, destination, service)
    }

    /// The rule that is to be recorded beside the verdict on this question: that which denies it
    /// although others allow it, or the shadow rule with which the verdict would be another.
    #[must_use]
    pub fn remark(
        &self,
        source: LabelId,
        destination: LabelId,
        service: Service,
    ) -> Option<RuleIndex> {
        match self.remarks.judge(source, destination, service) {
            Verdict::Allow(rule) => Some(rule),
            Verdict::Deny(_) => None,
        }
    }

    /// The name of a rule; [`RuleTag::NONE`] if there is no such rule.
    #[must_use]
    pub fn tag(&self, rule: RuleIndex) -> RuleTag {
        self.tags.get(rule.0 as usize).map_or(RuleTag::NONE, |tag| RuleTag(tag.get()))
    }

    /// Which flows of a rule are logged; without a rule, whether it is logged what none allows.
    #[must_use]
    pub fn log(&self, rule: Option<RuleIndex>) -> Log {
        self.logs.of(rule)
    }

    /// The verdicts on a batch of questions; those beyond the questions become denials.
    ///
    /// All take a step before any takes the next: addresses, labels, cells, runs.
    pub fn verdicts(&self, questions: &[Question], verdicts: &mut [Verdict]) {
        verdicts.get_mut(questions.len()..).unwrap_or_default().fill(Verdict::default());
        for (questions, verdicts) in questions.chunks(LANES / 2).zip(verdicts.chunks_mut(LANES / 2))
        {
            self.verdicts_of_chunk(questions, verdicts);
        }
    }

    /// At most half of [`LANES`] verdicts.
    #[inline]
    fn verdicts_of_chunk(&self, questions: &[Question], verdicts: &mut [Verdict]) {
        let mut ends = [[EndpointId(0); 2]; LANES / 2];
        let mut cells = [Cell::default(); LANES / 2];
        let ends = ends.get_mut(..questions.len()).unwrap_or_default();
        for (ends, question) in ends.iter_mut().zip(questions) {
            *ends = [self.hosts.find(question.source), self.hosts.find(question.destination)];
        }
        self.walk(ends.as_flattened_mut(), |lane| {
            let question = questions.get(lane / 2)?;
            Some(if lane % 2 == 0 { question.source } else { question.destination })
        });
        let mut labels = [[LabelId(0); 2]; LANES / 2];
        for (labels, ends) in labels.iter_mut().zip(&*ends) {
            *labels = ends.map(|endpoint| self.label(endpoint));
        }
        for (cell, &[source, destination]) in cells.iter_mut().zip(&labels).take(questions.len()) {
            *cell = self.matrix.cell(source, destination);
        }
        for ((question, verdict), cell) in questions.iter().zip(verdicts).zip(cells) {
            *verdict = self.matrix.verdict(cell, question.service);
        }
    }

    /// The label of an endpoint; nobody's is 0.
    #[inline]
    fn label(&self, endpoint: EndpointId) -> LabelId {
        LabelId(self.endpoints.get(endpoint.0 as usize).map_or(0, |raw| raw.label.get()))
    }

    #[inline]
    fn trie_of(&self, address: Address) -> (&Trie<'_>, u128) {
        if address.is_ipv4() {
            (&self.v4, address.bits() << 96)
        } else {
            (&self.v6, address.bits())
        }
    }

    fn check_endpoints(&self, header: &Header) -> Result<(), TableError> {
        for (endpoint, raw) in self.endpoints.iter().enumerate() {
            let (label, next_hop) = (raw.label.get(), raw.next_hop.get());
            if endpoint == 0 {
                if raw.kind != 0 || raw.reserved != 0 || label != 0 || next_hop != 0 {
                    return Err(TableError::Placeholder);
                }
                continue;
            }
            let known = match raw.kind {
                KIND_PEER => header.peers,
                KIND_SEGMENT => header.segments,
                found => return Err(TableError::EndpointKind { endpoint, found }),
            };
            if raw.reserved != 0 {
                return Err(TableError::Reserved { what: "endpoints" });
            }
            if u32::from(label) >= header.labels.get() {
                return Err(TableError::EndpointLabel { endpoint, found: label });
            }
            if next_hop >= known.get() {
                return Err(TableError::EndpointNextHop { endpoint, found: next_hop });
            }
        }
        Ok(())
    }

    fn check_tags(&self) -> Result<(), TableError> {
        match self.tags.iter().position(|tag| tag.get() == RuleTag::NONE.0) {
            Some(rule) => Err(TableError::RuleTag { rule }),
            None => Ok(()),
        }
    }

    fn check_segments(&self) -> Result<(), TableError> {
        for (segment, raw) in self.segments.iter().enumerate() {
            if raw.stage != STAGE_ENFORCE {
                return Err(TableError::SegmentStage { segment, found: raw.stage });
            }
            if raw.vlan.get() > VLAN_MAX {
                return Err(TableError::SegmentVlan { segment, found: raw.vlan.get() });
            }
        }
        Ok(())
    }
}

/// Lookups that go side by side: more than a core has misses in flight (10 to 16 on what we know),
/// few enough for the stack.
const LANES: usize = 64;

#[inline]
fn view<'a>(bytes: &'a [u8], header: &Header, layout: &Layout) -> View<'a> {
    View {
        generation: header.generation.get(),
        endpoints: items(bytes, &layout.endpoints),
        segments: items(bytes, &layout.segments),
        hosts: Hosts { v4: items(bytes, &layout.hosts_v4), v6: items(bytes, &layout.hosts_v6) },
        v4: trie(bytes, &layout.v4),
        v6: trie(bytes, &layout.v6),
        matrix: matrix(bytes, &layout.matrix, header.columns),
        remarks: matrix(bytes, &layout.remarks, header.remark_columns),
        tags: items(bytes, &layout.tags),
        logs: Logs { words: items(bytes, &layout.logs), rules: count(header.rules) },
    }
}

#[inline]
fn matrix<'a>(bytes: &'a [u8], layout: &MatrixLayout, columns: U32) -> Matrix<'a> {
    Matrix {
        labels: items(bytes, &layout.labels),
        cells: items(bytes, &layout.cells),
        columns: count(columns),
        runs: items(bytes, &layout.runs),
    }
}

#[inline]
fn trie<'a>(bytes: &'a [u8], layout: &TrieLayout) -> Trie<'a> {
    Trie {
        root: items(bytes, &layout.root),
        nodes: items(bytes, &layout.nodes),
        entries: items(bytes, &layout.entries),
    }
}

/// The items of a section. There are none, and so everything is denied, if the owner of the bytes
/// hands out others than those that were checked.
#[inline]
fn items<'a, T>(bytes: &'a [u8], section: &Range<usize>) -> &'a [T]
where
    T: FromBytes + KnownLayout + Immutable,
{
    bytes.get(section.clone()).and_then(|bytes| <[T]>::ref_from_bytes(bytes).ok()).unwrap_or(&[])
}

#[cfg(test)]
pub(crate) mod tests;
