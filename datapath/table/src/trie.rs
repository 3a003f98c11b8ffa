//! Address to endpoint: a multibit trie with popcount-compressed nodes.
//!
//! ```text
//!   address  | 16 bits | 6 | 6 | 6 | …          IPv4: at most 3 nodes, IPv6: at most 19
//!              root[65536]
//!              ├─ endpoint                      no longer prefix below
//!              └─ node ─┬─ 64 bits: which slots have a child ── node, node, …
//!                       └─ 64 bits: where a new leaf begins ─── endpoint, endpoint, …
//! ```
//!
//! A node's children stand side by side in the order of their slots, its leaves likewise, and equal
//! neighbouring leaves are one (Asai and Ohara, "Poptrie", SIGCOMM 2015). Nodes stand level by
//! level.
//!
//! INVARIANT, established by [`Trie::check`]: walking the nodes in order meets every child and every
//! leaf exactly once and in order. So each node has one parent, which stands before it, and no
//! walk is longer than [`Family::levels`].

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::count;
use crate::{EndpointId, TableError};

/// Bits of an address that the root consumes.
pub(crate) const ROOT_BITS: u32 = 16;
/// Entries of a root.
pub(crate) const ROOT_LEN: usize = 1 << ROOT_BITS;
/// Bits that a node consumes.
pub(crate) const STRIDE: u32 = 6;
/// In a root entry: the rest is a node and not an endpoint.
pub(crate) const IS_NODE: u32 = 1 << 31;

/// Which trie.
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

    /// Levels of nodes below the root.
    pub(crate) const fn levels(self) -> u32 {
        (self.bits() - ROOT_BITS).div_ceil(STRIDE)
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

/// 64 slots.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Node {
    /// Bit s: slot s has a child.
    pub(crate) children: U64,
    /// Bit s: slot s has no child, and its leaf is not the leaf of the last such slot before it.
    pub(crate) leaf_starts: U64,
    pub(crate) first_child: U32,
    pub(crate) first_leaf: U32,
}

const _: () = assert!(size_of::<Node>() == 24);

impl Node {
    /// The child of a slot, or its leaf.
    #[inline]
    fn at(&self, slot: u32) -> Step {
        let below = (1u64 << slot) - 1;
        let children = self.children.get();
        if children >> slot & 1 == 1 {
            Step::Node(self.first_child.get().wrapping_add((children & below).count_ones()))
        } else {
            // Up to and with this slot; the first leaf counts one, hence the -1.
            let starts = self.leaf_starts.get() & (below << 1 | 1);
            Step::Leaf(self.first_leaf.get().wrapping_add(starts.count_ones()).wrapping_sub(1))
        }
    }
}

/// Where one step of a walk leads.
enum Step {
    Node(u32),
    Leaf(u32),
}

/// A borrowed trie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trie<'a> {
    pub(crate) root: &'a [U32],
    pub(crate) nodes: &'a [Node],
    pub(crate) leaves: &'a [U32],
}

/// A lookup that has not ended: the bits still to use, leftmost first, and where it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    rest: u128,
    node: u32,
}

impl Trie<'_> {
    /// The first step of a lookup; `key` is an address with its first bit leftmost.
    #[inline]
    pub(crate) fn start(&self, key: u128) -> Result<EndpointId, Walk> {
        // 16 bits are left.
        let slot = (key >> (128 - ROOT_BITS)) as usize;
        let entry = self.root.get(slot).map_or(0, |entry| entry.get());
        if entry & IS_NODE == 0 {
            Ok(EndpointId(entry))
        } else {
            Err(Walk { rest: key << ROOT_BITS, node: entry & !IS_NODE })
        }
    }

    /// The next step.
    #[inline]
    pub(crate) fn step(&self, walk: Walk) -> Result<EndpointId, Walk> {
        let Some(node) = self.nodes.get(walk.node as usize) else { return Ok(EndpointId(0)) };
        // 6 bits are left.
        match node.at((walk.rest >> (128 - STRIDE)) as u32 & 63) {
            Step::Node(node) => Err(Walk { rest: walk.rest << STRIDE, node }),
            Step::Leaf(leaf) => {
                Ok(EndpointId(self.leaves.get(leaf as usize).map_or(0, |leaf| leaf.get())))
            }
        }
    }

    /// The endpoint of the longest prefix of `key`.
    #[inline]
    pub(crate) fn find(&self, key: u128) -> EndpointId {
        let mut walk = match self.start(key) {
            Ok(endpoint) => return endpoint,
            Err(walk) => walk,
        };
        for _ in 0..Family::V6.levels() {
            walk = match self.step(walk) {
                Ok(endpoint) => return endpoint,
                Err(walk) => walk,
            };
        }
        EndpointId(0)
    }

    /// Establishes the invariant of this module, for a table of so many endpoints.
    pub(crate) fn check(&self, family: Family, endpoints: usize) -> Result<(), TableError> {
        let mut children = self.check_root(family, endpoints)?;
        let mut leaves = 0;
        let (mut level, mut level_end) = (1, children);
        for (at, node) in self.nodes.iter().enumerate() {
            if at == children {
                return Err(TableError::TrieOrphan { family, node: at });
            }
            if at == level_end {
                (level, level_end) = (level + 1, children);
            }
            if level > family.levels() {
                return Err(TableError::TrieDepth { family, node: at });
            }
            if count(node.first_child) != children {
                let found = node.first_child.get();
                return Err(TableError::TrieChildren { family, node: at, found });
            }
            let (inner, starts) = (node.children.get(), node.leaf_starts.get());
            // The lowest slot without a child, as a bit; 0 if all have one.
            let first_leaf = !inner & inner.wrapping_add(1);
            let right = starts & inner == 0 && (starts | inner) & first_leaf == first_leaf;
            if count(node.first_leaf) != leaves || !right {
                return Err(TableError::TrieLeaves { family, node: at });
            }
            children += inner.count_ones() as usize;
            leaves += starts.count_ones() as usize;
        }
        if children != self.nodes.len() {
            return Err(TableError::TrieOrphan { family, node: self.nodes.len() });
        }
        if leaves != self.leaves.len() {
            return Err(TableError::TrieLeaves { family, node: self.nodes.len() });
        }
        match self.leaves.iter().position(|leaf| count(*leaf) >= endpoints) {
            None => Ok(()),
            Some(leaf) => {
                let found = self.leaves.get(leaf).map_or(0, |leaf| leaf.get());
                Err(TableError::TrieEndpoint { family, leaf, found })
            }
        }
    }

    /// Returns how many nodes the root names.
    fn check_root(&self, family: Family, endpoints: usize) -> Result<usize, TableError> {
        let mut children = 0;
        for (slot, entry) in self.root.iter().enumerate() {
            let entry = entry.get();
            let found = entry & !IS_NODE;
            if entry & IS_NODE == 0 {
                if found as usize >= endpoints {
                    return Err(TableError::TrieEndpoint { family, leaf: slot, found });
                }
            } else if found as usize == children {
                children += 1;
            } else {
                return Err(TableError::TrieRoot { family, slot, found });
            }
        }
        Ok(children)
    }
}
