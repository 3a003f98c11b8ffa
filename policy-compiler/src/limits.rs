//! How large a policy may be. The table has limits of its own (`bulkhead_table::limits`); these
//! keep the compiler from filling the memory before the table can refuse. The manual of the
//! configuration states them, and each is tested at its figure and one beyond.

/// Endpoints: devices, segments, and the parts of both and of the internet that have the names of
/// hosts. 100,000 devices with room; as many as there may be peers.
pub const ENDPOINTS_MAX: usize = 1 << 18;

/// Conditions that one endpoint can see: different ones in the rules that it may ask by. A table has a
/// label for the loss of each.
pub const CONDITIONS_MAX: usize = 256;

/// Pairs of labels with at least one rule: what the table holds if no two rows are alike.
pub const CELLS_MAX: usize = bulkhead_table::limits::CELLS_MAX;

/// Runs of all cells together, 12 bytes each: 192 MiB. The table keeps equal cells once, so what
/// it holds is far less.
pub const RUNS_MAX: usize = 1 << 24;

/// Rules written out: for each rule the names it is from, times those it is to, times its ranges of
/// ports. A million are what a policy of ten thousand rules comes to with room for tenfold.
pub const EXPANDED_MAX: usize = 1_000_000;
