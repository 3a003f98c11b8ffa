//! Why a draft cannot become a table, and why bytes are not one.

use ipnet::IpNet;

use crate::format::VERSION;
use crate::{EndpointId, Family, LabelId, RuleIndex, SegmentId, Service};

/// Why a draft cannot be written. Each variant names its evidence; all are mistakes of the
/// compiler, or limits of this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// Not even label 0.
    #[error("a table has at least label 0")]
    NoLabels,
    /// Not even endpoint 0.
    #[error("a table has at least the placeholder endpoint 0")]
    NoPlaceholder,
    /// More than the format or this release carries.
    #[error("{count} {what}; a table holds at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the draft needs, or has needed when counting stopped.
        count: usize,
        /// See [`crate::limits`].
        limit: usize,
    },
    /// An endpoint has a label that does not exist.
    #[error("endpoint {endpoint} has label {label}, which does not exist")]
    EndpointLabel {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        label: LabelId,
    },
    /// An endpoint is behind a peer or segment that does not exist.
    #[error("endpoint {endpoint} is behind a peer or segment that does not exist")]
    EndpointNextHop {
        /// Whose.
        endpoint: EndpointId,
    },
    /// A VLAN that no frame can carry.
    #[error("segment {segment} has VLAN {vlan}; want 1 to 4094")]
    SegmentVlan {
        /// Whose.
        segment: SegmentId,
        /// Which.
        vlan: u16,
    },
    /// A prefix belongs to endpoint 0, or to one that does not exist.
    #[error("{prefix} belongs to endpoint {endpoint}, which does not exist")]
    PrefixEndpoint {
        /// Which prefix.
        prefix: IpNet,
        /// To whom.
        endpoint: EndpointId,
    },
    /// An address with bits beyond the length of its prefix: perhaps a host was meant.
    #[error("{prefix} has bits set beyond its length")]
    PrefixHostBits {
        /// Which prefix.
        prefix: IpNet,
    },
    /// An IPv4 prefix in IPv6 clothes, which no packet would ever match.
    #[error("{prefix} is an IPv4-mapped prefix; write it as IPv4")]
    PrefixMapped {
        /// Which prefix.
        prefix: IpNet,
    },
    /// A prefix with two owners, or twice the same.
    #[error("{prefix} is listed twice, for endpoints {first} and {second}")]
    PrefixTwice {
        /// Which prefix.
        prefix: IpNet,
        /// One owner.
        first: EndpointId,
        /// The other.
        second: EndpointId,
    },
    /// A cell of label 0, which may nothing, or of a label that does not exist.
    #[error("cell {source_label} to {destination}: label 0 has no rights, others do not exist")]
    CellLabel {
        /// From.
        source_label: LabelId,
        /// To.
        destination: LabelId,
    },
    /// A run that ends before it begins.
    #[error("cell {source_label} to {destination}: a run from {first} to {last}")]
    RunReversed {
        /// From.
        source_label: LabelId,
        /// To.
        destination: LabelId,
        /// Begin of the run.
        first: Service,
        /// Its end.
        last: Service,
    },
    /// Two runs of a cell share a service: which rule would it be?
    #[error("cell {source_label} to {destination}: two runs hold {service}")]
    RunsOverlap {
        /// From.
        source_label: LabelId,
        /// To.
        destination: LabelId,
        /// The first service that both hold.
        service: Service,
    },
    /// Not as many names as rules, or one that is the name of no rule.
    #[error("{tags} names for {rules} rules, or an empty one")]
    Tags {
        /// How many names.
        tags: usize,
        /// How many rules.
        rules: u32,
    },
    /// A log of a rule that does not exist.
    #[error("flows of rule {rule} are to be logged, which does not exist")]
    LogRule {
        /// Which rule.
        rule: RuleIndex,
    },
    /// A run of a rule that does not exist.
    #[error("cell {source_label} to {destination}: rule {rule} does not exist")]
    RunRule {
        /// From.
        source_label: LabelId,
        /// To.
        destination: LabelId,
        /// Which rule.
        rule: RuleIndex,
    },
}

/// Why bytes are not a table. One variant per defect, with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Too short for a header.
    #[error("policy table: {len} bytes are no header")]
    HeaderTruncated {
        /// How many bytes there are.
        len: usize,
    },
    /// These are not our bytes.
    #[error("policy table: magic is {found:02x?}")]
    Magic {
        /// What stands where the magic should.
        found: [u8; 8],
    },
    /// Written by another release.
    #[error("policy table: version {found}, this release reads {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A reserved byte is not zero.
    #[error("policy table: reserved bytes of the {what} are not zero")]
    Reserved {
        /// Of which structure.
        what: &'static str,
    },
    /// A count is zero, or above its limit.
    #[error("policy table: {found} {what}; want {min} to {max}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many the header says.
        found: usize,
        /// How many there must be.
        min: usize,
        /// How many there may be.
        max: usize,
    },
    /// Cut, grown, or counts that do not belong to these bytes.
    #[error("policy table: {found} bytes, the header says {header}, its counts make {counts}")]
    Length {
        /// How many bytes there are.
        found: usize,
        /// What the header says.
        header: u64,
        /// What its counts add up to.
        counts: usize,
    },
    /// Some byte is not what was written.
    #[error("policy table: the checksum is wrong")]
    Checksum,
    /// Endpoint 0 is somebody.
    #[error("policy table: endpoint 0 is not empty")]
    Placeholder,
    /// An endpoint is behind something that this release does not know.
    #[error("policy table: endpoint {endpoint} has next hop kind {found}")]
    EndpointKind {
        /// Which endpoint.
        endpoint: usize,
        /// What stands there.
        found: u8,
    },
    /// An endpoint has a label that does not exist.
    #[error("policy table: endpoint {endpoint} has label {found}")]
    EndpointLabel {
        /// Which endpoint.
        endpoint: usize,
        /// Its label.
        found: u16,
    },
    /// An endpoint is behind a peer or segment that does not exist.
    #[error("policy table: endpoint {endpoint} has next hop {found}")]
    EndpointNextHop {
        /// Which endpoint.
        endpoint: usize,
        /// The index of the peer or segment.
        found: u32,
    },
    /// A segment is at a stage that this release does not know.
    #[error("policy table: segment {segment} has stage {found}")]
    SegmentStage {
        /// Which segment.
        segment: usize,
        /// What stands there.
        found: u8,
    },
    /// A segment has a VLAN that no frame can carry.
    #[error("policy table: segment {segment} has VLAN {found}")]
    SegmentVlan {
        /// Which segment.
        segment: usize,
        /// What stands there.
        found: u16,
    },
    /// A label has a row that does not exist.
    #[error("policy table: label {label} has row {found}")]
    LabelRow {
        /// Which label.
        label: usize,
        /// Its row.
        found: u16,
    },
    /// A label has a column that does not exist.
    #[error("policy table: label {label} has column {found}")]
    LabelColumn {
        /// Which label.
        label: usize,
        /// Its column.
        found: u16,
    },
    /// Label 0 may something, or may be reached.
    #[error("policy table: cell {cell} gives rights to label 0")]
    NobodyMay {
        /// Which cell.
        cell: usize,
    },
    /// A cell does not name a whole list of runs.
    #[error("policy table: cell {cell} is {found:#x}, which is no list of runs")]
    CellRuns {
        /// Which cell.
        cell: usize,
        /// What stands there.
        found: u32,
    },
    /// The first run of all begins no list.
    #[error("policy table: run 0 begins no list")]
    RunFirst,
    /// A run ends before it begins, or is not behind the one before it in its span.
    #[error("policy table: run {run} is out of order")]
    RunOrder {
        /// Which run.
        run: usize,
    },
    /// A rule has the name of no rule.
    #[error("policy table: rule {rule} has no name")]
    RuleTag {
        /// Which rule.
        rule: usize,
    },
    /// It is not said which flows of a rule, or of what no rule allows, are logged.
    #[error("policy table: rule {rule}: log {found} does not exist")]
    RuleLog {
        /// Which rule; what no rule allows is behind the last, and behind that there is nothing.
        rule: usize,
        /// The value found.
        found: u32,
    },
    /// A run names a rule that does not exist.
    #[error("policy table: run {run} names rule {found}")]
    RunRule {
        /// Which run.
        run: usize,
        /// What it names.
        found: u32,
    },
    /// The endpoint of a host does not exist.
    #[error("policy table: {family} bucket {bucket} names endpoint {found}")]
    HostEndpoint {
        /// Whose hosts.
        family: Family,
        /// Which bucket.
        bucket: usize,
        /// What it names.
        found: u32,
    },
    /// A host is not in the bucket of its hash, or not in its place there.
    #[error("policy table: {family} bucket {bucket} has a wrong host in place {place}")]
    HostPlace {
        /// Whose hosts.
        family: Family,
        /// Which bucket.
        bucket: usize,
        /// Which place in it.
        place: usize,
    },
    /// An entry of a trie's root names an endpoint that does not exist, or not the next node.
    #[error("policy table: {family} root entry {slot} is {found:#x}")]
    TrieRoot {
        /// Which trie.
        family: Family,
        /// Which entry.
        slot: usize,
        /// What stands there.
        found: u32,
    },
    /// An entry of a node names an endpoint that does not exist, or not the next node.
    #[error("policy table: {family} node {node} has an entry {found:#x}")]
    TrieEntry {
        /// Which trie.
        family: Family,
        /// Which node.
        node: usize,
        /// What stands there.
        found: u32,
    },
    /// A node's neighbour is an endpoint that does not exist.
    #[error("policy table: {family} node {node} is beside endpoint {found}")]
    TrieBeside {
        /// Which trie.
        family: Family,
        /// Which node.
        node: usize,
        /// What it names.
        found: u32,
    },
    /// A node that is nobody's child, or a child that is no node.
    #[error("policy table: {family} node {node} is not the child of one before it")]
    TrieOrphan {
        /// Which trie.
        family: Family,
        /// The first node without a parent, or the number of nodes if some are missing.
        node: usize,
    },
    /// A node that is not below its parent, or below the end of an address.
    #[error("policy table: {family} node {node} is at a wrong depth")]
    TrieDepth {
        /// Which trie.
        family: Family,
        /// Which node.
        node: usize,
    },
    /// A node's path does not begin with the way that leads to it, or has bits beyond its depth.
    #[error("policy table: {family} node {node} has a wrong path")]
    TriePath {
        /// Which trie.
        family: Family,
        /// Which node.
        node: usize,
    },
    /// A node's entries do not follow those of the node before it, do not begin with its first slot,
    /// are counted wrongly, or give a child more than one slot.
    #[error("policy table: {family} node {node} has wrong entries")]
    TrieEntries {
        /// Which trie.
        family: Family,
        /// Which node; the number of nodes if entries are left over.
        node: usize,
    },
}
