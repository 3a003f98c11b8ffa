//! How large a table may be. Both the writer and the reader hold to these, so what was emitted is
//! accepted.

use crate::format::CELL_COUNT_BITS;

/// Labels, with label 0. The matrix has a row per distinct row and a column per distinct column.
pub const LABELS_MAX: usize = 4_096;

/// Endpoints, with the placeholder 0. Bit 31 of a trie's root entry is free for its flag.
pub const ENDPOINTS_MAX: usize = 1 << 20;

/// WireGuard peers. A device is one.
pub const PEERS_MAX: usize = ENDPOINTS_MAX;

/// Segments. A gateway has a handful of ports and at most 4094 VLANs on one.
pub const SEGMENTS_MAX: usize = 4_096;

/// Rules of the configuration.
pub const RULES_MAX: usize = 1 << 20;

/// Cells of all distinct rows, 4 bytes each: 16 MiB. 2048 labels that all differ as sources fill
/// it; 4096 labels may have 1024 kinds of source.
pub const CELLS_MAX: usize = 1 << 22;

/// Runs in all distinct lists, 12 bytes each: 24 MiB.
pub const RUNS_MAX: usize = 1 << 21;

/// Runs between two labels. A cell counts them in 11 bits.
pub const CELL_RUNS_MAX: usize = (1 << CELL_COUNT_BITS) - 1;

/// Buckets of hosts of one family, 64 bytes each: 64 MiB.
pub const BUCKETS_MAX: usize = 1 << 20;

/// Nodes of one trie, 64 bytes each: 128 MiB. A node branches or ends a prefix, so two per prefix
/// are always enough for a million prefixes.
pub const NODES_MAX: usize = 1 << 21;

/// Entries of all nodes of one trie, 4 bytes each: 64 MiB.
pub const ENTRIES_MAX: usize = 1 << 24;

const _: () = assert!(ENDPOINTS_MAX < 1 << 31, "a root entry flags nodes with bit 31");
const _: () = assert!(NODES_MAX < 1 << 31, "a root entry holds a node in 31 bits");
const _: () = assert!(LABELS_MAX <= 1 << 16, "a label has 16 bits");
const _: () = assert!(SEGMENTS_MAX <= 1 << 16, "a segment has 16 bits");
const _: () = assert!(RUNS_MAX << CELL_COUNT_BITS <= 1 << 32, "a cell has 32 bits");
const _: () = assert!(LABELS_MAX <= CELLS_MAX, "the empty row always fits");
const _: () = assert!(usize::BITS >= 64, "lengths of a table are computed in usize");
