//! Address to endpoint: a multibit trie with popcount-compressed nodes and compressed paths.
//!
//! ```text
//!   root[first 16 bits]
//!   ├─ endpoint                       no longer prefix below
//!   └─ node: path, depth              an address that leaves the path is its `beside` endpoint's
//!      └─ slot = the 6 bits at depth
//!         ├─ 64 bits: which slots have a child ── node, node, …
//!         └─ 64 bits: where a new leaf begins ─── endpoint, endpoint, …
//! ```
//!
//! A node's children stand side by side in the order of their slots, its leaves likewise, and equal
//! neighbouring leaves are one (Asai and Ohara, "Poptrie", SIGCOMM 2015). A node is as deep as its
//! prefixes agree: without that, an IPv6 host would be 19 dependent loads away, with it 2 or 3.
//!
//! INVARIANT, established by [`Trie::check`]: walking the nodes in order meets every child and every
//! leaf exactly once and in order, and a child is at least 6 bits deeper than its parent. So each
//! node has one parent, which stands before it, and no walk is longer than [`LEVELS_MAX`].

use core::fmt;
use core::ops::Range;

use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::count;
use crate::{EndpointId, TableError};

/// Bits of an address that the root consumes.
pub(crate) const ROOT_BITS: u32 = 16;
/// Entries of a root.
pub(crate) const ROOT_LEN: usize = 1 << ROOT_BITS;
/// Bits that a node consumes.
pub(crate) const STRIDE: u32 = 6;
/// Nodes on the longest walk.
const LEVELS_MAX: u32 = (128 - ROOT_BITS).div_ceil(STRIDE);
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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// 64 slots, for the addresses that begin with `depth` bits of `path`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Node {
    /// Bit s: slot s has a child.
    pub(crate) children: U64,
    /// Bit s: slot s has no child, and its leaf is not the leaf of the last such slot before it.
    pub(crate) leaf_starts: U64,
    pub(crate) first_child: U32,
    pub(crate) first_leaf: U32,
    /// Bits of an address before those that choose the slot.
    pub(crate) depth: U32,
    /// The endpoint of addresses that the parent sends here, but that leave the path.
    pub(crate) beside: U32,
    pub(crate) path: U128,
}

const _: () = assert!(size_of::<Node>() == 48);

impl Node {
    /// Where `key` goes from here.
    #[inline]
    fn step(&self, key: u128) -> Step {
        let depth = self.depth.get();
        if (key ^ self.path.get()).leading_zeros() < depth {
            return Step::Beside(self.beside.get());
        }
        // 6 bits are left; behind the end of an address they are zero.
        let slot = (key.wrapping_shl(depth) >> (128 - STRIDE)) as u32 & 63;
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
    Beside(u32),
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

/// A lookup that has not ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    key: u128,
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
            Err(Walk { key, node: entry & !IS_NODE })
        }
    }

    /// The next step.
    #[inline]
    pub(crate) fn step(&self, walk: Walk) -> Result<EndpointId, Walk> {
        let Some(node) = self.nodes.get(walk.node as usize) else { return Ok(EndpointId(0)) };
        match node.step(walk.key) {
            Step::Beside(endpoint) => Ok(EndpointId(endpoint)),
            Step::Node(node) => Err(Walk { node, ..walk }),
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
        for _ in 0..LEVELS_MAX {
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
        self.check_children(family, 0..children, ROOT_BITS)?;
        let mut leaves = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            if at == children {
                return Err(TableError::TrieOrphan { family, node: at });
            }
            if count(node.first_child) != children {
                let found = node.first_child.get();
                return Err(TableError::TrieChildren { family, node: at, found });
            }
            if count(node.beside) >= endpoints {
                let found = node.beside.get();
                return Err(TableError::TrieBeside { family, node: at, found });
            }
            let (inner, starts) = (node.children.get(), node.leaf_starts.get());
            // The lowest slot without a child, as a bit; 0 if all have one.
            let first_leaf = !inner & inner.wrapping_add(1);
            let right = starts & inner == 0 && (starts | inner) & first_leaf == first_leaf;
            if count(node.first_leaf) != leaves || !right {
                return Err(TableError::TrieLeaves { family, node: at });
            }
            let end = children + inner.count_ones() as usize;
            self.check_children(family, children..end, node.depth.get() + STRIDE)?;
            children = end;
            leaves += starts.count_ones() as usize;
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

    /// The children of one parent are there, and lie between `depth_min` and the end of an address.
    fn check_children(
        &self,
        family: Family,
        children: Range<usize>,
        depth_min: u32,
    ) -> Result<(), TableError> {
        let nodes = self
            .nodes
            .get(children.clone())
            .ok_or(TableError::TrieOrphan { family, node: self.nodes.len() })?;
        match nodes.iter().position(|node| !(depth_min..family.bits()).contains(&node.depth.get()))
        {
            None => Ok(()),
            Some(at) => Err(TableError::TrieDepth { family, node: children.start + at }),
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
