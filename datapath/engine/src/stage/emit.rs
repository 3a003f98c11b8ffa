//! The last stage of a plain packet: its Ethernet header.

use bulkhead_link::End;
use bulkhead_wire::{Ethernet, Mac, ethernet, ip};

use crate::packet::{Course, Hop, Transit};
use crate::setup::Setup;

/// Writes the Ethernet header of every plain transit. Afterwards its bytes are the frame to send.
pub fn emit(batch: &mut [Transit], setup: &Setup) {
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        if let Some(Hop::Segment { port, vlan, mac: Some(mac) }) = transit.hop
            && emit_one(transit, setup, port, vlan, mac).is_none()
        {
            transit.end = Some(End::DropTransmitFull);
        }
    }
}

fn emit_one(
    transit: &mut Transit,
    setup: &Setup,
    port: u8,
    vlan: Option<u16>,
    mac: [u8; 6],
) -> Option<()> {
    if !matches!(transit.course, Course::Own) {
        ip::decrement_hop_limit(transit.bytes_mut());
    }
    let version = transit.bytes().first()? >> 4;
    let header = Ethernet {
        destination: Mac(mac),
        source: setup.ports.get(usize::from(port))?.mac,
        vlan,
        ether_type: if version == 4 { ethernet::ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 },
        len: if vlan.is_some() { 18 } else { 14 },
    };
    let start = usize::from(transit.start);
    let frame_start = start.checked_sub(header.len)?;
    header.write(transit.frame.bytes_mut().get_mut(frame_start..start)?);
    transit.leaves = Some(port);
    transit.len += transit.start - u16::try_from(frame_start).ok()?;
    transit.start = u16::try_from(frame_start).ok()?;
    Some(())
}
