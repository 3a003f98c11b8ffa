//! The only writer of the format.

mod hosts;
mod matrix;
mod trie;

use ipnet::IpNet;
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use crate::format::{
    HEADER_LEN, Header, KIND_PEER, KIND_SEGMENT, LINE, MAGIC, RawEndpoint, RawSegment,
    STAGE_ENFORCE, VERSION, VLAN_MAX, checksum,
};
use crate::limits::{ENDPOINTS_MAX, LABELS_MAX, PEERS_MAX, RULES_MAX, SEGMENTS_MAX};
use crate::log;
use crate::{
    Draft, EmitError, Endpoint, EndpointId, Family, NextHop, RuleTag, Segment, SegmentId, Stage,
};
use hosts::RawHosts;
use matrix::RawMatrix;
use trie::{Prefix, RawTrie};

impl Draft {
    /// Checks the draft and writes it as the bytes that [`crate::Table::new`] accepts. Equal drafts
    /// give equal bytes, whatever the order of their prefixes and runs.
    ///
    /// # Errors
    ///
    /// The first mistake found, in the order: counts, endpoints, segments, prefixes, cells,
    /// remarks, names of rules, logs.
    pub fn emit(&self) -> Result<Vec<u8>, EmitError> {
        self.check_counts()?;
        let endpoints = self.raw_endpoints()?;
        let segments = self.raw_segments()?;
        let mut hosts = RawHosts::default();
        let v4 = self.raw_trie(Family::V4, &mut hosts)?;
        let v6 = self.raw_trie(Family::V6, &mut hosts)?;
        let matrix = RawMatrix::of(self, &self.cells)?;
        let remarks = RawMatrix::of(self, &self.remarks)?;
        let tags = self.raw_tags()?;
        let logs = self.raw_logs()?;

        let header = Header {
            magic: MAGIC,
            version: U32::new(VERSION),
            generation: U64::new(self.generation),
            rules: U32::new(self.rules),
            peers: U32::new(self.peers),
            labels: U32::new(u32::from(self.labels)),
            endpoints: narrow(endpoints.len()),
            segments: narrow(segments.len()),
            rows: narrow(matrix.rows),
            columns: narrow(matrix.columns),
            runs: narrow(matrix.runs.len()),
            remark_rows: narrow(remarks.rows),
            remark_columns: narrow(remarks.columns),
            remark_runs: narrow(remarks.runs.len()),
            v4_buckets: narrow(hosts.v4.len()),
            v4_nodes: narrow(v4.nodes.len()),
            v4_entries: narrow(v4.entries.len()),
            v6_buckets: narrow(hosts.v6.len()),
            v6_nodes: narrow(v6.nodes.len()),
            v6_entries: narrow(v6.entries.len()),
            ..Header::default()
        };
        let sections = [
            endpoints.as_bytes(),
            segments.as_bytes(),
            hosts.v4.as_bytes(),
            hosts.v6.as_bytes(),
            v4.root.as_bytes(),
            v4.nodes.as_bytes(),
            v4.entries.as_bytes(),
            v6.root.as_bytes(),
            v6.nodes.as_bytes(),
            v6.entries.as_bytes(),
            matrix.labels.as_bytes(),
            matrix.cells.as_bytes(),
            matrix.runs.as_bytes(),
            remarks.labels.as_bytes(),
            remarks.cells.as_bytes(),
            remarks.runs.as_bytes(),
            tags.as_bytes(),
            logs.as_bytes(),
        ];
        Ok(assemble(header, &sections))
    }

    fn check_counts(&self) -> Result<(), EmitError> {
        if self.labels == 0 {
            return Err(EmitError::NoLabels);
        }
        if self.endpoints.is_empty() {
            return Err(EmitError::NoPlaceholder);
        }
        at_most("labels", usize::from(self.labels), LABELS_MAX)?;
        at_most("endpoints", self.endpoints.len(), ENDPOINTS_MAX)?;
        at_most("segments", self.segments.len(), SEGMENTS_MAX)?;
        at_most("rules", self.rules as usize, RULES_MAX)?;
        at_most("peers", self.peers as usize, PEERS_MAX)
    }

    fn raw_endpoints(&self) -> Result<Vec<RawEndpoint>, EmitError> {
        let mut raw = vec![RawEndpoint::default()];
        for (id, Endpoint { label, next_hop }) in (0..).zip(&self.endpoints).skip(1) {
            let endpoint = EndpointId(id);
            if label.0 >= self.labels {
                return Err(EmitError::EndpointLabel { endpoint, label: *label });
            }
            let (kind, index, known) = match next_hop {
                NextHop::Peer(peer) => (KIND_PEER, peer.0, self.peers as usize),
                NextHop::Segment(id) => (KIND_SEGMENT, u32::from(id.0), self.segments.len()),
            };
            if index as usize >= known {
                return Err(EmitError::EndpointNextHop { endpoint });
            }
            raw.push(RawEndpoint {
                label: U16::new(label.0),
                kind,
                reserved: 0,
                next_hop: U32::new(index),
            });
        }
        Ok(raw)
    }

    fn raw_tags(&self) -> Result<Vec<U64>, EmitError> {
        let (tags, rules) = (self.tags.len(), self.rules);
        if tags != rules as usize || self.tags.contains(&RuleTag::NONE) {
            return Err(EmitError::Tags { tags, rules });
        }
        Ok(self.tags.iter().map(|tag| U64::new(tag.0)).collect())
    }

    fn raw_logs(&self) -> Result<Vec<U32>, EmitError> {
        match self.logs.iter().find(|(rule, _)| rule.0 >= self.rules) {
            Some((rule, _)) => Err(EmitError::LogRule { rule: *rule }),
            None => Ok(log::pack(self.rules as usize, &self.logs, self.logs_denied)),
        }
    }

    fn raw_segments(&self) -> Result<Vec<RawSegment>, EmitError> {
        let mut raw = vec![];
        for (id, Segment { port, vlan, stage }) in (0..).zip(&self.segments) {
            if let Some(vlan) = *vlan
                && !(1..=VLAN_MAX).contains(&vlan)
            {
                return Err(EmitError::SegmentVlan { segment: SegmentId(id), vlan });
            }
            let stage = match stage {
                Stage::Enforce => STAGE_ENFORCE,
            };
            raw.push(RawSegment { port: port.0, stage, vlan: U16::new(vlan.unwrap_or(0)) });
        }
        Ok(raw)
    }

    /// The trie of the prefixes of one family that are not among the hosts.
    fn raw_trie(&self, family: Family, hosts: &mut RawHosts) -> Result<RawTrie, EmitError> {
        let mut prefixes = vec![];
        for &(prefix, endpoint) in &self.prefixes {
            let (of, key) = match prefix {
                IpNet::V4(net) => (Family::V4, u128::from(net.addr().to_bits()) << 96),
                IpNet::V6(net) => (Family::V6, net.addr().to_bits()),
            };
            if of != family {
                continue;
            }
            if endpoint.0 == 0 || endpoint.0 as usize >= self.endpoints.len() {
                return Err(EmitError::PrefixEndpoint { prefix, endpoint });
            }
            if prefix != prefix.trunc() {
                return Err(EmitError::PrefixHostBits { prefix });
            }
            let len = prefix.prefix_len();
            if family == Family::V6 && len >= 96 && key >> 32 == 0xffff {
                return Err(EmitError::PrefixMapped { prefix });
            }
            prefixes.push(Prefix { key, len: u32::from(len), endpoint: endpoint.0 });
        }
        // A prefix sorts before those inside it.
        prefixes.sort_unstable();
        for pair in prefixes.windows(2) {
            if let [a, b] = pair
                && (a.key, a.len) == (b.key, b.len)
            {
                return Err(self.listed_twice(family, a, b));
            }
        }
        hosts.take(family, &mut prefixes);
        RawTrie::of(family, &prefixes)
    }

    fn listed_twice(&self, family: Family, a: &Prefix, b: &Prefix) -> EmitError {
        let (first, second) = (EndpointId(a.endpoint), EndpointId(b.endpoint));
        let same = |prefix: &IpNet| {
            let key = match prefix {
                IpNet::V4(net) => (Family::V4, u128::from(net.addr().to_bits()) << 96),
                IpNet::V6(net) => (Family::V6, net.addr().to_bits()),
            };
            key == (family, a.key) && u32::from(prefix.prefix_len()) == a.len
        };
        let prefix = self.prefixes.iter().map(|(prefix, _)| *prefix).find(same);
        EmitError::PrefixTwice { prefix: prefix.unwrap_or_default(), first, second }
    }
}

/// Header and sections in one piece, with length and checksum.
fn assemble(mut header: Header, sections: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    for section in sections {
        bytes.resize(bytes.len().next_multiple_of(LINE), 0);
        bytes.extend_from_slice(section);
    }
    header.total_len = U64::new(bytes.len() as u64);
    if let Some(start) = bytes.first_chunk_mut::<HEADER_LEN>() {
        start.copy_from_slice(header.as_bytes());
    }
    header.checksum = checksum(&bytes);
    if let Some(start) = bytes.first_chunk_mut::<HEADER_LEN>() {
        start.copy_from_slice(header.as_bytes());
    }
    bytes
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), EmitError> {
    if count > limit { Err(EmitError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// A count that was held against its limit, all of which fit 32 bits.
fn narrow(count: usize) -> U32 {
    U32::new(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
