//! The bytes: structures, order of sections, checksum.

use core::ops::Range;

use blake2::digest::consts::U16 as Sixteen;
use blake2::{Blake2s, Digest};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::TableError;
use crate::hosts::{BucketV4, BucketV6};
use crate::limits::{
    BUCKETS_MAX, CELLS_MAX, ENDPOINTS_MAX, ENTRIES_MAX, LABELS_MAX, NODES_MAX, PEERS_MAX,
    RULES_MAX, RUNS_MAX, SEGMENTS_MAX,
};
use crate::log;
use crate::trie::{Node, ROOT_LEN};

/// The first bytes of a table.
pub(crate) const MAGIC: [u8; 8] = *b"BULKHEAD";

/// The version that this release writes and reads.
pub(crate) const VERSION: u32 = 4;

/// The start of a table. The sections follow in the order of [`Layout`], each on a cache line of its
/// own, with zeros between them.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) reserved: U32,
    pub(crate) total_len: U64,
    /// BLAKE2s-128 over everything but this field.
    pub(crate) checksum: [u8; 16],
    pub(crate) generation: U64,
    pub(crate) rules: U32,
    pub(crate) peers: U32,
    pub(crate) labels: U32,
    pub(crate) endpoints: U32,
    pub(crate) segments: U32,
    pub(crate) rows: U32,
    pub(crate) columns: U32,
    pub(crate) runs: U32,
    pub(crate) v4_buckets: U32,
    pub(crate) v4_nodes: U32,
    pub(crate) v4_entries: U32,
    pub(crate) v6_buckets: U32,
    pub(crate) v6_nodes: U32,
    pub(crate) v6_entries: U32,
    pub(crate) remark_rows: U32,
    pub(crate) remark_columns: U32,
    pub(crate) remark_runs: U32,
    pub(crate) padding: [u8; 12],
}

pub(crate) const HEADER_LEN: usize = size_of::<Header>();
pub(crate) const CHECKSUM_AT: Range<usize> = 24..40;

/// Sections begin at multiples of a cache line.
pub(crate) const LINE: usize = 64;

const _: () = assert!(HEADER_LEN == 128);
const _: () = assert!(core::mem::offset_of!(Header, checksum) == CHECKSUM_AT.start);

/// One endpoint. `kind` is 0 for endpoint 0 alone.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawEndpoint {
    pub(crate) label: U16,
    pub(crate) kind: u8,
    pub(crate) reserved: u8,
    pub(crate) next_hop: U32,
}

/// `kind` of an endpoint behind a peer.
pub(crate) const KIND_PEER: u8 = 1;
/// `kind` of an endpoint behind a segment.
pub(crate) const KIND_SEGMENT: u8 = 2;

/// One segment. `vlan` is 0 for untagged frames.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawSegment {
    pub(crate) port: u8,
    pub(crate) stage: u8,
    pub(crate) vlan: U16,
}

/// `stage` of a segment where the policy decides. The strictest is the zero value.
pub(crate) const STAGE_ENFORCE: u8 = 0;
/// The largest VLAN identifier that is not reserved (IEEE 802.1Q).
pub(crate) const VLAN_MAX: u16 = 4094;

/// What a label is in the matrix.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawLabel {
    /// As a source.
    pub(crate) row: U16,
    /// As a destination.
    pub(crate) column: U16,
}

/// One inclusive range of services.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawRun {
    pub(crate) first: U32,
    pub(crate) last: U32,
    /// With [`FIRST`] if a list begins here.
    pub(crate) rule: U32,
}

/// In `rule`: the first run of a list.
pub(crate) const FIRST: u32 = 1 << 31;

/// Bits of a cell that count its runs; those above say which is the first.
pub(crate) const CELL_COUNT_BITS: u32 = 11;

/// Where each section lies.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) endpoints: Range<usize>,
    pub(crate) segments: Range<usize>,
    pub(crate) hosts_v4: Range<usize>,
    pub(crate) hosts_v6: Range<usize>,
    pub(crate) v4: TrieLayout,
    pub(crate) v6: TrieLayout,
    pub(crate) matrix: MatrixLayout,
    pub(crate) remarks: MatrixLayout,
    pub(crate) tags: Range<usize>,
    pub(crate) logs: Range<usize>,
}

/// Where the sections of a matrix lie.
#[derive(Clone, Debug)]
pub(crate) struct MatrixLayout {
    pub(crate) labels: Range<usize>,
    pub(crate) cells: Range<usize>,
    pub(crate) runs: Range<usize>,
}

/// Where the sections of a trie lie.
#[derive(Clone, Debug)]
pub(crate) struct TrieLayout {
    pub(crate) root: Range<usize>,
    pub(crate) nodes: Range<usize>,
    pub(crate) entries: Range<usize>,
}

impl Layout {
    /// The layout that the counts of a header make. They must have been checked.
    pub(crate) fn of(header: &Header) -> Self {
        let mut end = HEADER_LEN;
        Self {
            endpoints: section::<RawEndpoint>(&mut end, count(header.endpoints)),
            segments: section::<RawSegment>(&mut end, count(header.segments)),
            hosts_v4: section::<BucketV4>(&mut end, count(header.v4_buckets)),
            hosts_v6: section::<BucketV6>(&mut end, count(header.v6_buckets)),
            v4: TrieLayout::of(&mut end, header.v4_nodes, header.v4_entries),
            v6: TrieLayout::of(&mut end, header.v6_nodes, header.v6_entries),
            matrix: MatrixLayout::of(
                &mut end,
                header.labels,
                (header.rows, header.columns),
                header.runs,
            ),
            remarks: MatrixLayout::of(
                &mut end,
                header.labels,
                (header.remark_rows, header.remark_columns),
                header.remark_runs,
            ),
            tags: section::<U64>(&mut end, count(header.rules)),
            logs: section::<U32>(&mut end, log::words(count(header.rules))),
        }
    }

    /// Length of a whole table.
    pub(crate) const fn total_len(&self) -> usize {
        self.logs.end
    }
}

impl MatrixLayout {
    fn of(end: &mut usize, labels: U32, (rows, columns): (U32, U32), runs: U32) -> Self {
        Self {
            labels: section::<RawLabel>(end, count(labels)),
            cells: section::<U32>(end, count(rows) * count(columns)),
            runs: section::<RawRun>(end, count(runs)),
        }
    }
}

impl TrieLayout {
    fn of(end: &mut usize, nodes: U32, entries: U32) -> Self {
        Self {
            root: section::<U32>(end, ROOT_LEN),
            nodes: section::<Node>(end, count(nodes)),
            entries: section::<U32>(end, count(entries)),
        }
    }
}

/// The next section: `count` items of `T`. Counts are within [`crate::limits`], so no sum wraps.
const fn section<T>(end: &mut usize, count: usize) -> Range<usize> {
    let start = end.next_multiple_of(LINE);
    *end = start + count * size_of::<T>();
    start..*end
}

/// A count or index as a `usize`, which has 64 bits ([`crate::limits`]).
#[inline]
pub(crate) const fn count(value: U32) -> usize {
    value.get() as usize
}

impl Header {
    /// Holds every count against its limits.
    pub(crate) fn check_counts(&self) -> Result<(), TableError> {
        let labels = count(self.labels);
        let counts = [
            ("rules", self.rules, 0, RULES_MAX),
            ("peers", self.peers, 0, PEERS_MAX),
            ("labels", self.labels, 1, LABELS_MAX),
            ("endpoints", self.endpoints, 1, ENDPOINTS_MAX),
            ("segments", self.segments, 0, SEGMENTS_MAX),
            ("columns", self.columns, 1, labels),
            ("rows", self.rows, 1, labels.min(CELLS_MAX / count(self.columns).max(1))),
            ("runs", self.runs, 0, RUNS_MAX),
            ("columns of remarks", self.remark_columns, 1, labels),
            (
                "rows of remarks",
                self.remark_rows,
                1,
                labels.min(CELLS_MAX / count(self.remark_columns).max(1)),
            ),
            ("runs of remarks", self.remark_runs, 0, RUNS_MAX),
            ("IPv4 buckets", self.v4_buckets, 0, BUCKETS_MAX),
            ("IPv4 nodes", self.v4_nodes, 0, NODES_MAX),
            ("IPv4 entries", self.v4_entries, 0, ENTRIES_MAX),
            ("IPv6 buckets", self.v6_buckets, 0, BUCKETS_MAX),
            ("IPv6 nodes", self.v6_nodes, 0, NODES_MAX),
            ("IPv6 entries", self.v6_entries, 0, ENTRIES_MAX),
        ];
        for (what, value, min, max) in counts {
            let found = count(value);
            if found < min || found > max {
                return Err(TableError::Count { what, found, min, max });
            }
        }
        Ok(())
    }
}

/// The checksum of a table: BLAKE2s-128 over everything but the field that holds it.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hash = Blake2s::<Sixteen>::new();
    hash.update(bytes.get(..CHECKSUM_AT.start).unwrap_or(&[]));
    hash.update(bytes.get(CHECKSUM_AT.end..).unwrap_or(&[]));
    hash.finalize().into()
}
