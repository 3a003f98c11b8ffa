//! Prefixes to a trie, level by level.

use std::collections::VecDeque;

use zerocopy::byteorder::little_endian::{U32, U64, U128};

use super::{at_most, narrow};
use crate::limits::{ENTRIES_MAX, NODES_MAX};
use crate::trie::{IS_NODE, Node, ROOT_BITS, ROOT_LEN, SLOTS, STRIDE};
use crate::{EmitError, Family};

/// A prefix with the first bit of its address leftmost. Sorts so that a prefix stands before those
/// inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) key: u128,
    pub(super) len: u32,
    pub(super) endpoint: u32,
}

/// The sections of a trie.
#[derive(Debug)]
pub(super) struct RawTrie {
    pub(super) root: Vec<U32>,
    pub(super) nodes: Vec<Node>,
    pub(super) entries: Vec<U32>,
}

/// A node that has a number but no content yet.
struct Pending<'a> {
    /// Those that end inside the node or below it; sorted.
    prefixes: &'a [Prefix],
    /// Bits of the address above the node.
    depth: u32,
    /// Who owns what no prefix of the node holds.
    owner: u32,
}

impl<'a> Pending<'a> {
    /// A node for `prefixes`, which all begin with the same `bottom` bits, as deep as they agree
    /// and none of them ends above.
    fn new(family: Family, prefixes: &'a [Prefix], bottom: u32, owner: u32) -> Self {
        let agreed = match prefixes {
            // Sorted: what the outermost have in common, all have.
            [first, .., last] => (first.key ^ last.key).leading_zeros(),
            [_] | [] => u32::MAX,
        };
        let shortest = prefixes.iter().map(|prefix| prefix.len).min().unwrap_or(0);
        // The last byte of an address is a node's.
        let agreed = agreed.min(shortest).min(family.bits() - STRIDE);
        let depth = (agreed - agreed % STRIDE).max(bottom);
        Self { prefixes, depth, owner }
    }

    /// The bits that lead here.
    fn path(&self) -> u128 {
        let key = self.prefixes.first().map_or(0, |prefix| prefix.key);
        key & !u128::MAX.checked_shr(self.depth).unwrap_or(0)
    }
}

impl RawTrie {
    /// `prefixes` are sorted, without duplicates, and of this family.
    pub(super) fn of(family: Family, prefixes: &[Prefix]) -> Result<Self, EmitError> {
        let what = match family {
            Family::V4 => ("IPv4 nodes", "IPv4 entries"),
            Family::V6 => ("IPv6 nodes", "IPv6 entries"),
        };
        let mut trie = Self { root: vec![U32::ZERO; ROOT_LEN], nodes: vec![], entries: vec![] };
        let mut pending = VecDeque::new();

        let mut slots = vec![0; ROOT_LEN];
        let below = paint(prefixes, 0, ROOT_BITS, &mut slots);
        for (slot, prefixes) in below {
            let Some(owner) = slots.get_mut(slot) else { continue };
            pending.push_back(Pending::new(family, prefixes, ROOT_BITS, *owner));
            *owner = IS_NODE | narrow(pending.len() - 1).get();
        }
        for (entry, slot) in trie.root.iter_mut().zip(slots) {
            *entry = U32::new(slot);
        }

        // Nodes are written in the order in which they were numbered, so the number of the next is
        // that of the written ones plus those in the queue.
        while let Some(node) = pending.pop_front() {
            let mut slots = [node.owner; SLOTS];
            let below = paint(node.prefixes, node.depth, STRIDE, &mut slots);
            let first_child = trie.nodes.len() + 1 + pending.len();
            for ((slot, prefixes), child) in below.into_iter().zip(first_child..) {
                let Some(owner) = slots.get_mut(slot) else { continue };
                let bottom = node.depth + STRIDE;
                pending.push_back(Pending::new(family, prefixes, bottom, *owner));
                *owner = IS_NODE | narrow(child).get();
            }
            let first_entry = narrow(trie.entries.len());
            let (starts, ranks) = trie.push_entries(&slots);
            trie.nodes.push(Node {
                starts,
                ranks,
                first_entry,
                beside: U32::new(node.owner),
                path: U128::new(node.path()),
                // Below 128.
                depth: u8::try_from(node.depth).unwrap_or(0),
                reserved: [0; 3],
            });
            at_most(what.0, trie.nodes.len() + pending.len(), NODES_MAX)?;
            at_most(what.1, trie.entries.len(), ENTRIES_MAX)?;
        }
        Ok(trie)
    }

    /// Appends the entries of a node; returns where each begins, and how many before each word.
    fn push_entries(&mut self, slots: &[u32; SLOTS]) -> ([U64; 4], [u8; 4]) {
        let (mut starts, mut ranks) = ([U64::ZERO; 4], [0; 4]);
        let first = self.entries.len();
        let mut last = None;
        for ((slots, starts), rank) in slots.chunks(64).zip(&mut starts).zip(&mut ranks) {
            // At most 192: three words stand before the last.
            *rank = u8::try_from(self.entries.len() - first).unwrap_or(0);
            let mut bits = 0u64;
            for (slot, owner) in slots.iter().enumerate() {
                // A node has a name of its own, so its entry never goes on.
                if last != Some(*owner) {
                    bits |= 1 << slot;
                    self.entries.push(U32::new(*owner));
                    last = Some(*owner);
                }
            }
            *starts = U64::new(bits);
        }
        (starts, ranks)
    }
}

/// Gives every slot of a node at `depth` to the owner of the longest prefix that ends in the node
/// and holds the slot. Returns the prefixes that end below, by slot.
fn paint<'a>(
    prefixes: &'a [Prefix],
    depth: u32,
    stride: u32,
    slots: &mut [u32],
) -> Vec<(usize, &'a [Prefix])> {
    let bottom = depth + stride;
    let slot_of = |prefix: &Prefix| {
        let bits = prefix.key << depth >> (128 - stride);
        usize::try_from(bits).unwrap_or(usize::MAX)
    };
    // Sorted, so those inside a prefix come after it and paint over it.
    for prefix in prefixes.iter().filter(|prefix| prefix.len <= bottom) {
        let first = slot_of(prefix);
        let width = 1usize << (bottom - prefix.len.max(depth));
        if let Some(owned) = slots.get_mut(first..first + width) {
            owned.fill(prefix.endpoint);
        }
    }
    prefixes
        .chunk_by(|a, b| a.len > bottom && b.len > bottom && slot_of(a) == slot_of(b))
        .filter_map(|chunk| {
            let first = chunk.first()?;
            (first.len > bottom).then(|| (slot_of(first), chunk))
        })
        .collect()
}
