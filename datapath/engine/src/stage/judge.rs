//! The policy stage: who sent it, whom is it for, and may it?
//!
//! The source of a packet is the session that authenticated it, or the segment's port; its
//! addresses must agree. [`judge`] is the only function of the datapath that lets a packet pass.

use bulkhead_link::End;
use bulkhead_table::{Denial, EndpointId, LabelId, NextHop, Service, Verdict, View};
use bulkhead_wire::{Address, Fragment, IpPacket, Transport, icmp};

use crate::flow::{FlowCache, FlowKey, Known, service_of};
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};
use crate::registry::Registry;

/// Judges every transit of a batch of at most [`BATCH_MAX`]; what may not pass ends here.
///
/// `now_s` is in seconds of the datapath's clock.
pub fn judge(
    batch: &mut [Transit],
    table: &View<'_>,
    flows: &mut FlowCache,
    registry: &Registry,
    now_s: u32,
) {
    debug_assert!(batch.len() <= BATCH_MAX, "the caller's batches are bounded");
    // All addresses first: the lookups of a batch overlap their cache misses.
    let mut addresses = [Address::default(); 2 * BATCH_MAX];
    let mut endpoints = [EndpointId::default(); 2 * BATCH_MAX];
    let count = 2 * batch.len().min(BATCH_MAX);
    for (pair, transit) in addresses.chunks_exact_mut(2).zip(batch.iter()) {
        if let ([source, destination], Some(inner)) = (pair, &transit.inner) {
            (*source, *destination) = (inner.source, inner.destination);
        }
    }
    if let (Some(addresses), Some(endpoints)) = (addresses.get(..count), endpoints.get_mut(..count))
    {
        table.endpoints_at(addresses, endpoints);
    }

    for (transit, pair) in batch.iter_mut().zip(endpoints.chunks_exact(2)) {
        let (Some(inner), &[source, destination], true) = (transit.inner, pair, transit.goes_on())
        else {
            continue;
        };
        transit.end = admit(transit, &inner, source, destination, table)
            .and_then(|()| {
                let labels = (transit.source.1, transit.destination.1);
                let mut court = Court { table, flows, registry, now_s };
                match error_message(&inner) {
                    false => court.decide(&inner, labels),
                    true => court.decide_error(&inner, transit.bytes()),
                }
            })
            .err();
    }
}

/// Both ends are known, and the sender is who its address says.
fn admit(
    transit: &mut Transit,
    inner: &IpPacket,
    source: EndpointId,
    destination: EndpointId,
    table: &View<'_>,
) -> Result<(), End> {
    if inner.fragment != Fragment::Whole {
        return Err(End::DropFragment);
    }
    let from = table.endpoint(source).ok_or(End::DropUnknownSource)?;
    let genuine = match (transit.course, from.next_hop) {
        (Course::Tunnel { peer, .. }, NextHop::Peer(owner)) => peer == Some(owner),
        (Course::Plain { vlan, .. }, NextHop::Segment(id)) => table
            .segment(id)
            .is_some_and(|segment| segment.port.0 == transit.port && segment.vlan == vlan),
        // A device's address without its key, or a segment's address inside a tunnel.
        (Course::Tunnel { .. } | Course::Plain { .. } | Course::Own | Course::Unknown, _) => false,
    };
    if !genuine {
        return Err(End::DropSpoofedSource);
    }
    let to = table.endpoint(destination).ok_or(End::DropUnknownDestination)?;
    transit.source = (source, from.label);
    transit.destination = (destination, to.label);
    Ok(())
}

/// Whether a packet is an ICMP error, which is judged by the flow that it quotes.
fn error_message(packet: &IpPacket) -> bool {
    match packet.transport {
        Transport::Icmp { kind, .. } => icmp::is_error_v4(kind),
        Transport::Icmpv6 { kind, .. } => icmp::is_error_v6(kind),
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Other => false,
    }
}

/// What a verdict needs: the law, the memory of this worker, the memory of all, and the time.
struct Court<'a, 'b> {
    table: &'a View<'b>,
    flows: &'a mut FlowCache,
    registry: &'a Registry,
    now_s: u32,
}

impl Court<'_, '_> {
    /// The whole decision for one packet that opens, continues or answers a flow.
    fn decide(&mut self, packet: &IpPacket, labels: (LabelId, LabelId)) -> Result<(), End> {
        let key = FlowKey::of(packet);
        let closing = matches!(packet.transport, Transport::Tcp { flags, .. } if flags.closes());
        let known = match self.flows.find(&key, self.now_s) {
            Some(known) => self.still_allowed(known, labels)?,
            None => self.first_of_its_flow(&key, service_of(packet), labels)?,
        };
        if let Some(flow) = known.and_then(|known| self.flows.get_mut(known))
            && flow.touch(closing, self.now_s)
        {
            let ((opening, idle_s), service) = (flow.opening(), flow.service);
            self.registry.touch(&opening, service, idle_s, self.now_s);
        }
        Ok(())
    }

    /// A flow that passed before: only a newer table makes it a question again.
    fn still_allowed(
        &mut self,
        known: Known,
        labels: (LabelId, LabelId),
    ) -> Result<Option<Known>, End> {
        let generation = low_half(self.table.generation());
        let Some(flow) = self.flows.get_mut(known) else { return Err(End::DropNoRule) };
        if flow.generation == generation {
            return Ok(Some(known));
        }
        let opening = if flow.reply { (labels.1, labels.0) } else { labels };
        if let Verdict::Allow(_) = self.table.judge(opening.0, opening.1, flow.service) {
            flow.generation = generation;
            return Ok(Some(known));
        }
        let (opening, _) = flow.opening();
        self.registry.remove(&opening);
        self.flows.remove(known);
        Err(End::DropRevoked)
    }

    /// A packet of a flow that this worker does not know: allowed by a rule, or the answer to a
    /// packet that a rule allows.
    fn first_of_its_flow(
        &mut self,
        key: &FlowKey,
        service: Service,
        labels: (LabelId, LabelId),
    ) -> Result<Option<Known>, End> {
        let generation = low_half(self.table.generation());
        let denial = match self.table.judge(labels.0, labels.1, service) {
            Verdict::Allow(_) => {
                self.registry.touch(key, service, key.idle_seconds(), self.now_s);
                return Ok(self.flows.insert(*key, false, service, generation, self.now_s));
            }
            Verdict::Deny(denial) => denial,
        };
        if let Some(asked) = self.registry.find(&key.reversed(), self.now_s) {
            if let Verdict::Allow(_) = self.table.judge(labels.1, labels.0, asked) {
                return Ok(self.flows.insert(*key, true, asked, generation, self.now_s));
            }
            self.registry.remove(&key.reversed());
            return Err(End::DropRevoked);
        }
        Err(end_of(denial))
    }

    /// An ICMP error passes if it quotes a packet of a flow that is open and still allowed, and
    /// goes to the sender of that packet.
    fn decide_error(&self, packet: &IpPacket, bytes: &[u8]) -> Result<(), End> {
        let quote = bytes
            .get(usize::from(packet.transport_at) + icmp::HEADER_LEN..)
            .and_then(|quote| icmp::quoted(quote).ok())
            .filter(|quote| quote.source == packet.destination)
            .ok_or(End::DropUnmatchedIcmpError)?;
        let key = FlowKey::of(&quote);
        let (opening, asked) = [key, key.reversed()]
            .into_iter()
            .find_map(|key| Some((key, self.registry.find(&key, self.now_s)?)))
            .ok_or(End::DropUnmatchedIcmpError)?;
        let label = |address| {
            self.table.endpoint(self.table.endpoint_at(address)).map_or(LabelId(0), |end| end.label)
        };
        match self.table.judge(label(opening.source), label(opening.destination), asked) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(_) => Err(End::DropRevoked),
        }
    }
}

fn end_of(denial: Denial) -> End {
    match denial {
        Denial::NoRuleForPair => End::DropNoRule,
        Denial::PortNotAllowed => End::DropPortNotAllowed,
    }
}

/// The part of a generation that a flow remembers. Equal halves of different generations would
/// need four thousand million applies within the life of one flow.
fn low_half(generation: u64) -> u32 {
    u32::try_from(generation & u64::from(u32::MAX)).unwrap_or(0)
}
