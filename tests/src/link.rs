//! Cables of a world: veth pairs with as many queues as the scenario needs.

use crate::namespace::Namespace;
use crate::wait::{Deadline, Look, until};
use crate::{Failure, World};

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is plugged in.
    pub namespace: &'a Namespace,
    /// What the device is called there, at most 15 bytes.
    pub device: &'a str,
    /// Its addresses with prefix length; may be empty.
    pub addresses: &'a [&'a str],
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Hardware address of the first end.
    pub left: [u8; 6],
    /// Hardware address of the second end.
    pub right: [u8; 6],
}

impl World {
    /// Joins two namespaces by a veth pair with `queues` transmit and receive queues on both ends.
    ///
    /// Hardware addresses are given, not random. Offloads are off on both ends: with them a veth
    /// hands over frames without checksums and larger than the MTU, which no cable does and which a
    /// driver-mode XDP program would see (`tx` off also gives every frame a right UDP checksum).
    ///
    /// # Errors
    ///
    /// If a device cannot be made or does not come up.
    pub fn link(&self, left: End<'_>, right: End<'_>, queues: u16) -> Result<Link, Failure> {
        let number = self.next_link();
        let link = Link { left: hardware_address(number, 0), right: hardware_address(number, 1) };
        left.namespace.ip(&format!(
            "link add {} address {} numtxqueues {queues} numrxqueues {queues} type veth \
             peer name {} address {} numtxqueues {queues} numrxqueues {queues} netns {}",
            left.device,
            text(link.left),
            right.device,
            text(link.right),
            right.namespace.full_name(),
        ))?;
        for end in [left, right] {
            prepare(end)?;
        }
        for end in [left, right] {
            wait_for_carrier(end)?;
        }
        Ok(link)
    }

    /// Makes `namespace` an Ethernet switch between these of its devices, which carry no addresses
    /// of their own.
    ///
    /// # Errors
    ///
    /// If the bridge cannot be made.
    pub fn switch(&self, namespace: &Namespace, devices: &[&str]) -> Result<(), Failure> {
        // No multicast snooping: it would hold back neighbour discovery until it has listened. No
        // forwarding delay: ports forward at once.
        namespace.ip("link add switch type bridge mcast_snooping 0 forward_delay 0 stp_state 0")?;
        for device in devices {
            namespace.ip(&format!("link set {device} master switch"))?;
        }
        namespace.ip("link set switch up")?;
        Ok(())
    }
}

fn prepare(end: End<'_>) -> Result<(), Failure> {
    let End { namespace, device, addresses } = end;
    let offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
    let mut command = vec!["ethtool", "-K", device];
    command.extend(offloads);
    namespace.exec(&command)?;
    for address in addresses {
        let quick = if address.contains(':') { "nodad" } else { "" };
        namespace.ip(&format!("address add {address} dev {device} {quick}"))?;
    }
    namespace.ip(&format!("link set {device} up"))?;
    Ok(())
}

fn wait_for_carrier(end: End<'_>) -> Result<(), Failure> {
    let what = format!("{} of {} to come up", end.device, end.namespace.name());
    until(Deadline::seconds(10), what, || {
        let shown = end.namespace.ip(&format!("-o link show dev {}", end.device))?;
        Ok(if shown.contains("LOWER_UP") { Look::Ready(()) } else { Look::NotYet(shown) })
    })
}

/// A locally administered unicast address that tells its cable and end: `02:b4:00:00:12:01`.
fn hardware_address(number: u16, end: u8) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0xb4, 0x00, high, low, end]
}

/// A hardware address as `ip` reads it.
pub(crate) fn text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_unicast_and_differ() {
        let left = hardware_address(0x0102, 0);
        assert_eq!(text(left), "02:b4:00:01:02:00");
        assert_ne!(left, hardware_address(0x0102, 1));
        assert_ne!(left, hardware_address(0x0103, 0));
    }
}
