//! The names that a file defines, gathered before anything refers to them.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::{AttributeKind, PortKind};

/// Names by kind. The values are what a reference needs to know of its target.
#[derive(Default)]
pub(crate) struct Names<'a> {
    /// Position among the ports, and what arrives there.
    pub(crate) ports: BTreeMap<&'a str, (u8, PortKind)>,
    /// Position among the listeners.
    pub(crate) listeners: BTreeMap<&'a str, u8>,
    pub(crate) users: BTreeMap<&'a str, ()>,
    pub(crate) tags: BTreeMap<&'a str, ()>,
    pub(crate) groups: BTreeMap<&'a str, ()>,
    pub(crate) devices: BTreeMap<&'a str, ()>,
    pub(crate) segments: BTreeMap<&'a str, ()>,
    pub(crate) hosts: BTreeMap<&'a str, ()>,
    pub(crate) services: BTreeMap<&'a str, ()>,
    pub(crate) postures: BTreeMap<&'a str, ()>,
    /// Filled in when the tables `[attribute]` have been read.
    pub(crate) attributes: BTreeMap<&'a str, AttributeKind>,
}

impl<'a> Names<'a> {
    /// Gathers the names of all tables, also of those that turn out to be wrong: whoever refers to
    /// them made no mistake.
    pub(crate) fn of(root: &'a DeTable<'a>) -> Self {
        let all = |kind| in_table(root, kind).map(|name| (name, ())).collect();
        let ports = in_table(root, "port")
            .zip(0..=u8::MAX)
            // The kind follows when the ports have been read.
            .map(|(name, index)| (name, (index, PortKind::Both)))
            .collect();
        Self {
            ports,
            listeners: in_table(root, "wireguard").zip(0..=u8::MAX).collect(),
            users: all("user"),
            tags: all("tag"),
            groups: all("group"),
            devices: all("device"),
            segments: all("segment"),
            hosts: all("host"),
            services: all("service"),
            postures: all("posture"),
            attributes: BTreeMap::new(),
        }
    }
}

/// The map is sorted by name.
fn in_table<'a>(root: &'a DeTable<'a>, kind: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let table = root.get(kind).and_then(|value| value.get_ref().as_table());
    table.into_iter().flat_map(|table| table.keys().map(|name| name.get_ref().as_ref()))
}
