//! Whom a packet is from and for: its two endpoints, and whether it came from where its source is.

use bulkhead_link::End;
use bulkhead_table::{EndpointId, NextHop, View};
use bulkhead_wire::{Address, IpPacket};

use crate::edition::Law;
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};

/// Whose the addresses of a batch are, as far as the flows of its packets do not tell.
pub(super) struct Ends {
    endpoints: [[EndpointId; 2]; BATCH_MAX],
    /// A bit for each transit, the first the lowest.
    known: u64,
}

const _: () = assert!(BATCH_MAX <= 64, "a bit for each");

impl Ends {
    pub(super) const NONE: Self = Self { endpoints: [[EndpointId(0); 2]; BATCH_MAX], known: 0 };

    /// Those of the transits in `which`, a bit for each; all at once, so that the lookups overlap their cache
    /// misses.
    #[inline(never)]
    pub(super) fn look_up(&mut self, batch: &[Transit], which: u64, table: &View<'_>) {
        self.known = which;
        let wanted = |at: usize| which >> at & 1 == 1;
        let mut addresses = [[Address::default(); 2]; BATCH_MAX];
        let mut found = [[EndpointId::default(); 2]; BATCH_MAX];
        let mut count = 0;
        for (_, transit) in batch.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            if let (Some(pair), Some(inner)) = (addresses.get_mut(count), &transit.inner) {
                *pair = [inner.source, inner.destination];
                count += 1;
            }
        }
        let addresses = addresses.get(..count).unwrap_or_default().as_flattened();
        table.endpoints_at(addresses, found.as_flattened_mut());
        let places = self.endpoints.iter_mut().enumerate().filter(|(at, _)| wanted(*at));
        for ((_, place), found) in places.zip(&found) {
            *place = *found;
        }
    }

    /// Those of one packet, the transit with this number.
    pub(super) fn at(&self, at: usize, inner: &IpPacket, table: &View<'_>) -> [EndpointId; 2] {
        match self.endpoints.get(at) {
            Some(found) if self.known >> at & 1 == 1 => *found,
            Some(_) | None => {
                [inner.source, inner.destination].map(|address| table.endpoint_at(address))
            }
        }
    }
}

/// Both ends are known, and the sender is who its address says.
pub(super) fn admit(
    transit: &mut Transit,
    [source, destination]: [EndpointId; 2],
    law: &Law<'_>,
) -> Result<(), End> {
    let (table, labels) = (&law.table, law.labels);
    let from = table.endpoint(source).ok_or(End::DropUnknownSource)?;
    if !comes_from(transit, from.next_hop, table) {
        return Err(End::DropSpoofedSource);
    }
    table.endpoint(destination).ok_or(End::DropUnknownDestination)?;
    transit.source = (source, labels.of(source));
    transit.destination = (destination, labels.of(destination));
    Ok(())
}

/// Whether a packet came from where this way leads.
#[inline]
pub(super) fn comes_from(transit: &Transit, way: NextHop, table: &View<'_>) -> bool {
    match (transit.course, way) {
        (Course::Tunnel { peer, .. }, NextHop::Peer(owner)) => peer == Some(owner),
        (Course::Plain { vlan, .. }, NextHop::Segment(id)) => table
            .segment(id)
            .is_some_and(|segment| segment.port.0 == transit.port && segment.vlan == vlan),
        // A device's address without its key, or a segment's address inside a tunnel.
        (
            Course::Tunnel { .. }
            | Course::Plain { .. }
            | Course::Own
            | Course::Unknown
            | Course::Handshake
            | Course::Answer,
            _,
        ) => false,
    }
}
