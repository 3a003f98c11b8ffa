//! A mirror of the kernel's neighbours on segment ports: whoever the kernel knows, the datapath knows.
//!
//! ```text
//!   kernel ── dump, then notifications ──▶ Neighbours ── Change ──▶ datapath
//!          ◀── "use this one" (NTF_USE) ──            ◀── wanted ──
//! ```
//!
//! The kernel resolves, probes and forgets. The one thing it cannot see is that the datapath uses an
//! entry, so entries that went stale are used on its behalf once in a while, which makes it probe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::interface::PortPlace;
use crate::state::Watch;

/// Something that the datapath must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Index of the port.
    pub port: u8,
    /// The neighbour.
    pub address: IpAddr,
    /// Its hardware address; `None`: it is gone.
    pub mac: Option<[u8; 6]>,
}

/// What the kernel says of one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Index of the device.
    pub interface: u32,
    /// The neighbour.
    pub address: IpAddr,
    /// Its hardware address, if it may be used.
    pub mac: Option<[u8; 6]>,
    /// Whether nobody has confirmed it for a while.
    pub stale: bool,
}

/// The mirror. Sans-IO.
#[derive(Debug, Default)]
pub struct Neighbours {
    places: BTreeMap<u32, PortPlace>,
    watch: Watch,
    known: BTreeMap<(u8, IpAddr), [u8; 6]>,
    stale: BTreeSet<(u32, IpAddr)>,
}

impl Neighbours {
    /// Watches other ports from now on; forgets everything.
    pub fn watch(&mut self, watch: Watch) {
        *self = Self { watch, ..Self::default() };
    }

    /// What is watched.
    #[must_use]
    pub fn watched(&self) -> &Watch {
        &self.watch
    }

    /// The devices of the ports, as they are now. `true` if they are others than before.
    pub fn devices(&mut self, places: BTreeMap<u32, PortPlace>) -> bool {
        let changed = self.places != places;
        self.places = places;
        changed
    }

    /// All that the kernel knows. Who is not there any more is gone.
    pub fn dump(&mut self, all: &[Observation]) -> Vec<Change> {
        self.stale.clear();
        let before = std::mem::take(&mut self.known);
        let mut changes: Vec<Change> =
            all.iter().filter_map(|observation| self.observed(*observation)).collect();
        changes.retain(|change| before.get(&(change.port, change.address)).copied() != change.mac);
        let gone = before.keys().filter(|key| !self.known.contains_key(key));
        changes.extend(gone.map(|(port, address)| Change {
            port: *port,
            address: *address,
            mac: None,
        }));
        changes
    }

    /// The kernel tells of one.
    pub fn observed(&mut self, observation: Observation) -> Option<Change> {
        let Observation { interface, address, mac, stale } = observation;
        let port = self.places.get(&interface)?.port;
        if stale && mac.is_some() {
            self.stale.insert((interface, address));
        } else {
            self.stale.remove(&(interface, address));
        }
        let before = match mac {
            Some(mac) => self.known.insert((port, address), mac),
            None => self.known.remove(&(port, address)),
        };
        (before != mac).then_some(Change { port, address, mac })
    }

    /// The device on which the kernel should look for a neighbour: the one of the segment that has
    /// the address.
    #[must_use]
    pub fn device_for(&self, port: u8, address: IpAddr) -> Option<u32> {
        let segment = self.watch.segments.iter().find(|segment| {
            segment.port == port && segment.subnets.iter().any(|subnet| subnet.contains(&address))
        })?;
        let wanted = PortPlace { port, vlan: segment.vlan };
        self.places.iter().find(|(_, place)| **place == wanted).map(|(index, _)| *index)
    }

    /// Entries to be used on behalf of the datapath.
    #[must_use]
    pub fn stale(&self) -> Vec<(u32, IpAddr)> {
        self.stale.iter().copied().collect()
    }
}

/// Reads a message; `None` if it is not about an IP neighbour on Ethernet. `removed` tells
/// `RTM_DELNEIGH` from `RTM_NEWNEIGH`.
#[must_use]
pub fn observation(message: &NeighbourMessage, removed: bool) -> Option<Observation> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) = attribute {
            address = Some(IpAddr::V4(*found));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) = attribute {
            address = Some(IpAddr::V6(*found));
        } else if let NeighbourAttribute::LinkLayerAddress(found) = attribute {
            mac = <[u8; 6]>::try_from(found.as_slice()).ok();
        }
    }
    let address = address.filter(|address| !address.is_multicast())?;
    let state = message.header.state;
    // NUD_VALID less NUD_NOARP, include/net/neighbour.h: what NOARP gives is derived, not learnt.
    let usable = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    Some(Observation {
        interface: message.header.ifindex,
        address,
        mac: mac.filter(|mac| usable && !removed && mac[0] & 1 == 0),
        stale: state == NeighbourState::Stale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::SegmentPlace;

    fn mirror() -> Neighbours {
        let mut neighbours = Neighbours::default();
        let segment = |vlan, subnet: &str| SegmentPlace {
            port: 1,
            vlan,
            subnets: vec![subnet.parse().unwrap()],
        };
        neighbours.watch(Watch {
            ports: vec![(1, "inside".to_owned())],
            segments: vec![segment(None, "10.1.0.0/16"), segment(Some(201), "10.2.0.0/16")],
        });
        let places = BTreeMap::from([
            (7, PortPlace { port: 1, vlan: None }),
            (8, PortPlace { port: 1, vlan: Some(201) }),
        ]);
        assert!(neighbours.devices(places.clone()));
        assert!(!neighbours.devices(places));
        neighbours
    }

    fn seen(interface: u32, address: &str, mac: Option<u8>) -> Observation {
        let mac = mac.map(|byte| [byte; 6]);
        Observation { interface, address: address.parse().unwrap(), mac, stale: false }
    }

    fn change(address: &str, mac: Option<u8>) -> Change {
        Change { port: 1, address: address.parse().unwrap(), mac: mac.map(|byte| [byte; 6]) }
    }

    #[test]
    fn only_changes_are_told() {
        let mut neighbours = mirror();
        let mut told = |observation| neighbours.observed(observation);
        assert_eq!(told(seen(7, "10.1.0.1", Some(2))), Some(change("10.1.0.1", Some(2))));
        assert_eq!(told(seen(7, "10.1.0.1", Some(2))), None);
        assert_eq!(told(seen(7, "10.1.0.1", Some(4))), Some(change("10.1.0.1", Some(4))));
        assert_eq!(told(seen(7, "10.1.0.1", None)), Some(change("10.1.0.1", None)));
        assert_eq!(told(seen(7, "10.1.0.1", None)), None);
        assert_eq!(told(seen(9, "10.1.0.1", Some(2))), None, "not our device");
    }

    #[test]
    fn a_new_dump_takes_back_what_is_gone() {
        let mut neighbours = mirror();
        let first = [seen(7, "10.1.0.1", Some(2)), seen(8, "10.2.0.1", Some(4))];
        assert_eq!(neighbours.dump(&first).len(), 2);
        let second = [seen(7, "10.1.0.1", Some(2)), seen(7, "10.1.0.3", Some(6))];
        let want = vec![change("10.1.0.3", Some(6)), change("10.2.0.1", None)];
        assert_eq!(neighbours.dump(&second), want);
    }

    #[test]
    fn a_neighbour_is_looked_for_on_the_vlan_of_its_segment() {
        let neighbours = mirror();
        let device = |port, address: &str| neighbours.device_for(port, address.parse().unwrap());
        assert_eq!(device(1, "10.1.0.9"), Some(7));
        assert_eq!(device(1, "10.2.0.9"), Some(8));
        assert_eq!(device(1, "10.3.0.9"), None);
        assert_eq!(device(0, "10.1.0.9"), None);
    }

    #[test]
    fn every_state_of_the_kernel_is_usable_or_not() {
        let message = |state, mac: &[u8]| {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = 7;
            message.header.state = state;
            let address = NeighbourAddress::Inet("10.1.0.1".parse().unwrap());
            message.attributes.push(NeighbourAttribute::Destination(address));
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            message
        };
        for (state, usable) in [
            (NeighbourState::Incomplete, false),
            (NeighbourState::Reachable, true),
            (NeighbourState::Stale, true),
            (NeighbourState::Delay, true),
            (NeighbourState::Probe, true),
            (NeighbourState::Failed, false),
            (NeighbourState::Noarp, false),
            (NeighbourState::Permanent, true),
            (NeighbourState::None, false),
        ] {
            let seen = observation(&message(state, &[2; 6]), false).unwrap();
            assert_eq!(seen.mac.is_some(), usable, "{state:?}");
            assert_eq!(observation(&message(state, &[2; 6]), true).unwrap().mac, None);
        }
        let reachable = NeighbourState::Reachable;
        for bad in [&[2; 5][..], &[3; 6], &[]] {
            assert_eq!(observation(&message(reachable, bad), false).unwrap().mac, None);
        }
        assert_eq!(observation(&NeighbourMessage::default(), false), None);
    }

    #[test]
    fn stale_entries_are_used_until_they_are_fresh_or_gone() {
        let mut neighbours = mirror();
        let stale = |address| Observation { stale: true, ..seen(7, address, Some(2)) };
        neighbours.observed(stale("10.1.0.1"));
        neighbours.observed(stale("10.1.0.2"));
        neighbours.observed(stale("10.1.0.3"));
        neighbours.observed(seen(7, "10.1.0.2", Some(2)));
        neighbours.observed(seen(7, "10.1.0.3", None));
        assert_eq!(neighbours.stale(), [(7, "10.1.0.1".parse().unwrap())]);
    }
}
