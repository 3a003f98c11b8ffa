//! The kernel's network devices and addresses, by rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage};

/// A network device, as far as we are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// If it is a VLAN of another: that one's index, and the VLAN.
    pub vlan: Option<(u32, u16)>,
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPlace {
    /// Index of the port.
    pub port: u8,
    /// VLAN on it; `None`: untagged.
    pub vlan: Option<u16>,
}

/// Reads all devices.
///
/// # Errors
///
/// Whatever the kernel says.
pub async fn interfaces(handle: &Handle) -> Result<Vec<Interface>, rtnetlink::Error> {
    handle.link().get().execute().map_ok(|link| interface(&link)).try_collect().await
}

/// Reads the addresses of the devices with these indices, sorted. IPv6 link-local addresses are left
/// out: the XDP program never takes what is sent to them.
///
/// # Errors
///
/// Whatever the kernel says.
pub async fn addresses(
    handle: &Handle,
    of: &BTreeSet<u32>,
) -> Result<Vec<IpAddr>, rtnetlink::Error> {
    let all: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    let own = all.iter().filter(|message| of.contains(&message.header.index));
    let found: BTreeSet<IpAddr> =
        own.filter_map(address).filter(|address| !is_link_local(*address)).collect();
    Ok(found.into_iter().collect())
}

/// Which devices belong to ports: those that are named, and their VLANs.
#[must_use]
pub fn places(interfaces: &[Interface], ports: &[(u8, String)]) -> BTreeMap<u32, PortPlace> {
    let mut found = BTreeMap::new();
    for (port, device) in ports {
        let own = interfaces.iter().filter(|interface| interface.name == *device);
        for interface in own {
            found.insert(interface.index, PortPlace { port: *port, vlan: None });
            for other in interfaces {
                if let Some((parent, vlan)) = other.vlan
                    && parent == interface.index
                {
                    found.insert(other.index, PortPlace { port: *port, vlan: Some(vlan) });
                }
            }
        }
    }
    found
}

fn interface(link: &LinkMessage) -> Interface {
    let (mut name, mut parent, mut vlan) = (String::new(), None, None);
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(given) = attribute {
            name.clone_from(given);
        } else if let LinkAttribute::Link(index) = attribute {
            parent = Some(*index);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            vlan = infos.iter().find_map(vlan_of).or(vlan);
        }
    }
    Interface { index: link.header.index, name, vlan: parent.zip(vlan) }
}

fn vlan_of(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    let id = |attribute: &InfoVlan| {
        let InfoVlan::Id(id) = attribute else { return None };
        Some(*id)
    };
    attributes.iter().find_map(id)
}

/// The address itself: on a point-to-point device `IFA_ADDRESS` is the other side's.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            return Some(*address);
        }
        if let AddressAttribute::Address(address) = attribute {
            found = Some(*address);
        }
    }
    found
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_its_device_with_all_vlans() {
        let interface = |index, name: &str, vlan| Interface { index, name: name.to_owned(), vlan };
        let all = [
            interface(1, "lo", None),
            interface(2, "inside", None),
            interface(3, "inside.201", Some((2, 201))),
            interface(4, "other.201", Some((1, 201))),
            interface(5, "outside", None),
        ];
        let ports = [(0, "inside".to_owned()), (1, "gone".to_owned()), (2, "outside".to_owned())];
        let want = BTreeMap::from([
            (2, PortPlace { port: 0, vlan: None }),
            (3, PortPlace { port: 0, vlan: Some(201) }),
            (5, PortPlace { port: 2, vlan: None }),
        ]);
        assert_eq!(places(&all, &ports), want);
    }
}
