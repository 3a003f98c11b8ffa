//! Address to endpoint by longest prefix: a multibit trie with popcount-compressed nodes and
//! compressed paths.
//!
//! ```text
//!   root[first 16 bits]
//!   ├─ endpoint                        no longer prefix below
//!   └─ node: path, depth               an address that leaves the path is its `beside` endpoint's
//!      └─ slot = the 8 bits at depth
//!         └─ 256 bits: where a new entry begins ── entry, entry, …   each an endpoint or a node
//! ```
//!
//! Equal neighbouring entries of a node are one (Asai and Ohara, "Poptrie", SIGCOMM 2015). A node is
//! as deep as its prefixes agree, in whole bytes: without that, an IPv6 subnet would be six dependent
//! loads away, with it one or two. A node is one cache line.
//!
//! A step has no branch that depends on the address, so that a batch of lookups runs at the speed of
//! its loads and not of a branch predictor that an attacker can starve.
//!
//! INVARIANT, established by [`Trie::check`]: the entries of the root and then those of the nodes, in
//! order, name the nodes in order, each once, and a child is at least 8 bits deeper than its parent.
//! So each node has one parent, which stands before it, and no walk is longer than [`LEVELS_MAX`].

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::count;
use crate::{EndpointId, TableError};

/// Bits of an address that the root consumes.
pub(crate) const ROOT_BITS: u32 = 16;
/// Entries of a root.
pub(crate) const ROOT_LEN: usize = 1 << ROOT_BITS;
/// Bits that a node consumes; every depth is a multiple.
pub(crate) const STRIDE: u32 = 8;
/// Slots of a node.
pub(crate) const SLOTS: usize = 1 << STRIDE;
/// Nodes on the longest walk.
const LEVELS_MAX: u32 = (128 - ROOT_BITS).div_ceil(STRIDE);
/// In an entry: the rest is a node and not an endpoint.
pub(crate) const IS_NODE: u32 = 1 << 31;

/// Which family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Bits of an address.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// 256 slots, for the addresses that begin with `depth` bits of `path`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Node {
    /// Bit s: the entry of slot s is not that of the slot before it.
    pub(crate) starts: [U64; 4],
    pub(crate) path: U128,
    pub(crate) first_entry: U32,
    /// The endpoint of addresses that the parent sends here, but that leave the path.
    pub(crate) beside: U32,
    /// How many bits are set in the words of `starts` before this one.
    pub(crate) ranks: [u8; 4],
    /// Bits of an address before those that choose the slot.
    pub(crate) depth: u8,
    pub(crate) reserved: [u8; 3],
}

const _: () = assert!(size_of::<Node>() == 64);

impl Node {
    /// What stands beside the path, or else which entry is the address's.
    #[inline]
    fn step(&self, key: u128, entries: &[U32]) -> u32 {
        let depth = u32::from(self.depth);
        // 8 bits are left.
        let slot = (key.wrapping_shl(depth) >> (128 - STRIDE)) as usize;
        let (word, bit) = (slot >> 6, slot & 63);
        let starts = self.starts.get(word).map_or(0, |starts| starts.get());
        let before = self.ranks.get(word).copied().unwrap_or(0);
        // Up to and with this slot; the first entry counts one, hence the -1.
        let rank = u32::from(before) + (starts << (63 - bit)).count_ones();
        let at = self.first_entry.get().wrapping_add(rank).wrapping_sub(1);
        let entry = entries.get(at as usize).map_or(0, |entry| entry.get());
        let strayed = (key ^ self.path.get()) & !u128::MAX.wrapping_shr(depth) != 0;
        select(strayed, self.beside.get(), entry)
    }
}

/// `a` if `choice`, else `b`, without a branch.
#[inline]
fn select(choice: bool, a: u32, b: u32) -> u32 {
    let mask = 0u32.wrapping_sub(u32::from(choice));
    a & mask | b & !mask
}

/// A borrowed trie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trie<'a> {
    pub(crate) root: &'a [U32],
    pub(crate) nodes: &'a [Node],
    pub(crate) entries: &'a [U32],
}

impl Trie<'_> {
    /// The first step of a lookup: an endpoint, or a node to go on with. `key` is an address with
    /// its first bit leftmost.
    #[inline]
    pub(crate) fn start(&self, key: u128) -> u32 {
        // 16 bits are left.
        let slot = (key >> (128 - ROOT_BITS)) as usize;
        self.root.get(slot).map_or(0, |entry| entry.get())
    }

    /// The next step, from a node.
    #[inline]
    pub(crate) fn step(&self, key: u128, node: u32) -> u32 {
        match self.nodes.get((node & !IS_NODE) as usize) {
            Some(node) => node.step(key, self.entries),
            None => 0,
        }
    }

    /// The endpoint of the longest prefix of `key`.
    #[inline]
    pub(crate) fn find(&self, key: u128) -> EndpointId {
        let mut entry = self.start(key);
        for _ in 0..LEVELS_MAX {
            if entry & IS_NODE == 0 {
                return EndpointId(entry);
            }
            entry = self.step(key, entry);
        }
        EndpointId(if entry & IS_NODE == 0 { entry } else { 0 })
    }

    /// Establishes the invariant of this module, for a table of so many endpoints.
    pub(crate) fn check(&self, family: Family, endpoints: usize) -> Result<(), TableError> {
        let mut names = Names { trie: self, family, endpoints, nodes: 0 };
        for (slot, entry) in self.root.iter().enumerate() {
            let place = TableError::TrieRoot { family, slot, found: entry.get() };
            // 16 bits, moved to the front.
            let way = (slot as u128) << (128 - ROOT_BITS);
            names.next(entry.get(), (way, ROOT_BITS), place)?;
        }
        let mut entries = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            if at == names.nodes {
                return Err(TableError::TrieOrphan { family, node: at });
            }
            if count(node.beside) >= endpoints {
                let found = node.beside.get();
                return Err(TableError::TrieBeside { family, node: at, found });
            }
            if node.reserved != [0; 3] {
                return Err(TableError::Reserved { what: "tries" });
            }
            let wrong = TableError::TrieEntries { family, node: at };
            let own = node.check_starts().filter(|_| count(node.first_entry) == entries);
            let end = entries + own.ok_or(wrong)?;
            let own = self.entries.get(entries..end).ok_or(wrong)?;
            for (entry, (slot, wide)) in own.iter().zip(node.slots()) {
                if wide && entry.get() & IS_NODE != 0 {
                    return Err(wrong);
                }
                let place = TableError::TrieEntry { family, node: at, found: entry.get() };
                let bottom = u32::from(node.depth) + STRIDE;
                let way = node.path.get() | (slot as u128) << (128 - bottom);
                names.next(entry.get(), (way, bottom), place)?;
            }
            entries = end;
        }
        if entries != self.entries.len() {
            return Err(TableError::TrieEntries { family, node: self.nodes.len() });
        }
        if names.nodes != self.nodes.len() {
            return Err(TableError::TrieOrphan { family, node: self.nodes.len() });
        }
        Ok(())
    }
}

impl Node {
    /// How many entries begin in the node, if the first does with the first slot and the ranks are
    /// right.
    fn check_starts(&self) -> Option<usize> {
        let mut sum = 0;
        for (starts, rank) in self.starts.iter().zip(self.ranks) {
            if u32::from(rank) != sum {
                return None;
            }
            sum += starts.get().count_ones();
        }
        let first = self.starts.first().is_some_and(|starts| starts.get() & 1 == 1);
        first.then_some(sum as usize)
    }

    /// Of each entry its first slot, and whether it has more than one.
    fn slots(&self) -> impl Iterator<Item = (usize, bool)> {
        let starts = |slot: usize| {
            let word = self.starts.get(slot >> 6).map_or(1, |starts| starts.get());
            slot == SLOTS || word >> (slot & 63) & 1 == 1
        };
        (0..SLOTS).filter(move |slot| starts(*slot)).map(move |slot| (slot, !starts(slot + 1)))
    }
}

/// The names of nodes, in the order in which they are met.
struct Names<'a, 'b> {
    trie: &'a Trie<'b>,
    family: Family,
    endpoints: usize,
    nodes: usize,
}

impl Names<'_, '_> {
    /// Takes the next entry of the root or of a node, to which addresses come that begin with the first
    /// `bottom` bits of `way`.
    fn next(
        &mut self,
        entry: u32,
        (way, bottom): (u128, u32),
        place: TableError,
    ) -> Result<(), TableError> {
        let named = (entry & !IS_NODE) as usize;
        if entry & IS_NODE == 0 {
            return if named < self.endpoints { Ok(()) } else { Err(place) };
        }
        if named != self.nodes {
            return Err(place);
        }
        self.nodes += 1;
        let node = self.trie.nodes.get(named).ok_or(place)?;
        let depth = u32::from(node.depth);
        let deep = (bottom..=self.family.bits() - STRIDE).contains(&depth);
        if !deep || !depth.is_multiple_of(STRIDE) {
            return Err(TableError::TrieDepth { family: self.family, node: named });
        }
        // It goes on where it hangs, and says nothing of the bits that choose among its slots.
        let path = node.path.get();
        let strayed = (path ^ way) & !u128::MAX.wrapping_shr(bottom) != 0;
        let beyond = path & u128::MAX.wrapping_shr(depth) != 0;
        if strayed || beyond {
            return Err(TableError::TriePath { family: self.family, node: named });
        }
        Ok(())
    }
}
