//! The policy stage: who sent it, whom is it for, and may it?
//!
//! The source of a packet is the session that authenticated it, or the segment's port; its
//! addresses must agree. [`judge`] is the only function of the datapath that lets a packet pass.

mod ends;

use bulkhead_link::End;
use bulkhead_table::{Denial, EndpointId, LabelId, Log, RuleIndex, RuleTag, Service, Verdict};
use bulkhead_wire::{Fragment, IpPacket, Piece, Transport, icmp};

use self::ends::{Ends, admit, comes_from};
use crate::cache::{Flow, FlowCache, Hashed, Known};
use crate::edition::Law;
use crate::flow::{FlowKey, OpenedBy, Pair, Party, service_of};
use crate::flow_log::{Event, FlowLog, Record};
use crate::fragments::Trains;
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};
use crate::registry::{Met, Opening, Over, Registry, Spot};
use crate::sources::SourceId;
use crate::state::{Input, Side, State};

/// Judges every transit of a batch of at most [`BATCH_MAX`]; what may not pass ends here.
///
/// `now_s` is in seconds of the datapath's clock. Returns whether any ended.
pub fn judge(
    batch: &mut [Transit],
    law: &Law<'_>,
    flows: &mut FlowCache,
    trains: &mut Trains,
    registry: &Registry,
    log: &mut FlowLog,
    now_s: u32,
) -> bool {
    debug_assert!(batch.len() <= BATCH_MAX, "the caller's batches are bounded");
    let (mut live, mut plain) = (0, 0);
    let mut places = [Hashed::default(); BATCH_MAX];
    for ((at, place), transit) in places.iter_mut().enumerate().zip(batch.iter()) {
        if let Some(inner) = transit.inner.as_ref().filter(|_| transit.goes_on()) {
            *place = flows.hash(Pair::of(&FlowKey::of(inner)));
            flows.warm_tags(place);
            live |= 1 << at;
            // Of all others no flow is settled. A fragment is taken for a whole packet here.
            plain |= u64::from(matches!(inner.protocol, TCP | UDP)) << at;
        }
    }
    let known = flows.warm_flows(places.get_mut(..batch.len()).unwrap_or_default(), law.number);
    let (mut ends, unknown) = (Ends::NONE, live & !(known & plain));
    if unknown != 0 {
        ends.look_up(batch, unknown, &law.table);
    }

    let mut ended = false;
    let mut court = Court { law, flows, trains, registry, log, now_s, denied: Question::default() };
    for ((at, transit), place) in batch.iter_mut().enumerate().zip(&places) {
        if !transit.goes_on() {
            continue;
        }
        let Some(inner) = &transit.inner else {
            // There is nothing that could be allowed.
            transit.end = Some(End::DropInnerMalformed);
            ended = true;
            continue;
        };
        // What was judged before has waited since, and is judged by what is allowed now.
        let again = transit.source.0 != EndpointId(0);
        if let Some((rule, (source, destination))) = court.settled(inner, place, transit) {
            (transit.rule, transit.source, transit.destination) = (rule, source, destination);
            debug_assert!(court.agrees(place, again, transit), "its twin");
            continue;
        }
        let admitted = admit(transit, ends.at(at, inner, &law.table), law);
        let Some(inner) = &transit.inner else { continue };
        match admitted.and_then(|()| court.hear(inner, place, again, transit)) {
            Ok(rule) => transit.rule = rule,
            Err(end) => {
                court.count_denial(end, inner);
                transit.end = Some(end);
                ended = true;
            }
        }
    }
    ended
}

const TCP: u8 = Service::tcp(0).protocol();
const UDP: u8 = Service::udp(0).protocol();

/// Whether a packet is an ICMP error, which is judged by the flow that it quotes.
fn error_message(packet: &IpPacket) -> bool {
    match packet.transport {
        Transport::Icmp { kind, .. } => icmp::is_error_v4(kind),
        Transport::Icmpv6 { kind, .. } => icmp::is_error_v6(kind),
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Other => false,
    }
}

/// What a verdict needs: the law, the memory of this worker, the memory of all, and the time.
struct Court<'a, 'e> {
    law: &'a Law<'e>,
    flows: &'a mut FlowCache,
    trains: &'a mut Trains,
    registry: &'a Registry,
    log: &'a mut FlowLog,
    now_s: u32,
    /// What the law was asked when it last said no.
    denied: Question,
}

/// The labels of the opener and the responder, and what the opener wants.
type Question = ((LabelId, LabelId), Service);

impl Court<'_, '_> {
    /// What the policy denied is a hit of the rule that did, or of none. What failed otherwise is not.
    /// It is logged as well if it wanted to open a flow.
    fn count_denial(&mut self, end: End, packet: &IpPacket) {
        let opens = end == End::DropNoRule || end == End::DropPortNotAllowed;
        if !opens && end != End::DropRevoked {
            return;
        }
        let ((from, to), service) = self.denied;
        let rule = self.law.table.remark(from, to, service);
        self.law.hits.denied(rule, u64::from(packet.len), self.now_s);
        if opens && self.law.table.log(rule) != Log::None {
            let tag = rule.map_or(RuleTag::NONE, |rule| self.law.table.tag(rule));
            self.record(Event::Denied(end), tag, FlowKey::of(packet), service);
        }
    }

    fn record(&mut self, event: Event, tag: RuleTag, key: FlowKey, service: Service) {
        let generation = self.law.table.generation();
        self.log.write(Record { event, at_s: self.now_s, tag, key, service, generation });
    }

    /// The answer to nearly every packet, if it is one that changes nothing of a flow that was allowed between the
    /// same two parties: the rule, sender and receiver. [`admit`] and [`Self::hear`] are the slow twins,
    /// and decide wherever this says `None`.
    #[inline]
    fn settled(
        &self,
        inner: &IpPacket,
        at: &Hashed,
        transit: &Transit,
    ) -> Option<(RuleIndex, (Party, Party))> {
        let asked = match (inner.fragment, inner.transport) {
            (Fragment::Whole, Transport::Tcp { .. } | Transport::Udp { .. }) => {
                Input::of(inner.transport)
            }
            _ => return None,
        };
        let Law { number, table, labels, .. } = self.law;
        let (rule, parties) = self.flows.settled(at, asked, *number, self.now_s)?;
        let ((source, from), (destination, to)) = parties;
        let same = labels.of(source) == from
            && labels.of(destination) == to
            && comes_from(transit, table.endpoint(source)?.next_hop, table);
        same.then_some((rule, parties))
    }

    /// Whether the slow twins say of a transit what [`Self::settled`] has said.
    fn agrees(&mut self, place: &Hashed, again: bool, transit: &mut Transit) -> bool {
        let Some(inner) = transit.inner else { return false };
        let said = (transit.source, transit.destination);
        let addresses = [inner.source, inner.destination];
        let ends = addresses.map(|address| self.law.table.endpoint_at(address));
        if admit(transit, ends, self.law) != Ok(()) || [said.0.0, said.1.0] != ends {
            return false;
        }
        // Control may give an endpoint another label between the two looks.
        said != (transit.source, transit.destination)
            || self.hear(&inner, place, again, transit) == Ok(transit.rule)
    }

    /// The question that a packet of this shape is.
    #[inline(never)]
    fn hear(
        &mut self,
        inner: &IpPacket,
        place: &Hashed,
        again: bool,
        transit: &Transit,
    ) -> Result<RuleIndex, End> {
        match (inner.fragment, error_message(inner)) {
            (Fragment::Whole, false) => self.decide(inner, place, transit),
            (Fragment::Whole, true) => self.decide_error(inner, transit),
            (Fragment::First(piece), false) => {
                self.decide_first(inner, piece, (place, again), transit)
            }
            // Nobody makes errors so long that they must be cut (RFC 1812 §4.3.2.3).
            (Fragment::First(_), true) => Err(End::DropUnmatchedIcmpError),
            (Fragment::Later(piece), _) => self.decide_later(inner, piece, again, transit),
        }
    }

    /// The whole decision for one packet that opens, continues or answers a flow.
    fn decide(
        &mut self,
        packet: &IpPacket,
        at: &Hashed,
        transit: &Transit,
    ) -> Result<RuleIndex, End> {
        let input = Input::of(packet.transport);
        let parties = (transit.source, transit.destination);
        if let Some(known) = self.flows.find(at, self.now_s) {
            if let Some(rule) = self.goes_on(known, at, input, parties)? {
                return Ok(rule);
            }
            // The registry does not have it any more: it is a flow like any other.
            self.flows.remove(known);
        }
        match self.meet(at, (input, uncounted(packet, transit)), parties) {
            Some(met) => self.join(at, met, parties),
            None => self.open(packet, at, input, transit),
        }
    }

    /// The first fragment of a datagram: a packet like any other, whose rest may follow.
    fn decide_first(
        &mut self,
        packet: &IpPacket,
        piece: Piece,
        (at, again): (&Hashed, bool),
        transit: &Transit,
    ) -> Result<RuleIndex, End> {
        if again {
            return self.decide(packet, at, transit);
        }
        self.trains.first(packet, piece, self.now_s)?;
        let rule = self.decide(packet, at, transit)?;
        self.trains.begin(packet, piece, self.now_s);
        Ok(rule)
    }

    /// A later fragment: a packet of the flow that its first belonged to, as long as there is one.
    fn decide_later(
        &mut self,
        packet: &IpPacket,
        piece: Piece,
        again: bool,
        transit: &Transit,
    ) -> Result<RuleIndex, End> {
        let key = match again {
            true => self.trains.again(packet, piece, self.now_s).ok_or(End::DropFragment)?,
            false => self.trains.later(packet, piece, self.now_s)?,
        };
        let at = self.flows.hash(Pair::of(&key));
        let parties = (transit.source, transit.destination);
        if let Some(known) = self.flows.find(&at, self.now_s) {
            if let Some(rule) = self.goes_on(known, &at, Input::Plain, parties)? {
                return Ok(rule);
            }
            self.flows.remove(known);
        }
        match self.meet(&at, (Input::Plain, uncounted(packet, transit)), parties) {
            Some(met) => self.join(&at, met, parties),
            None => Err(End::DropFragment),
        }
    }

    /// A flow that passed before. Only a newer table or another label makes it a question again.
    /// The rule that lets it; `None`: the registry must be asked, or does not know it.
    fn goes_on(
        &mut self,
        known: Known,
        at: &Hashed,
        input: Input,
        parties: (Party, Party),
    ) -> Result<Option<RuleIndex>, End> {
        let edition = self.law.number;
        let Some(flow) = self.flows.get_mut(known) else { return Ok(None) };
        let side = flow.side(at.from_low);
        let (opener, responder) = side.order(parties);
        let labels = (opener.1, responder.1);
        let revoked = flow.state == State::Revoked;
        if flow.edition != edition || flow.labels != labels || revoked {
            let service = flow.pair.service(flow.opened);
            let Verdict::Allow(rule) = self.law.table.judge(labels.0, labels.1, service) else {
                self.denied = (labels, service);
                if !revoked {
                    self.registry.remove(&at.pair, over(self.log, self.law, self.now_s));
                    (flow.state, flow.seen_s) = (State::Revoked, self.now_s);
                } else if input == Input::Syn {
                    // Not what was revoked: a new connection, which was never allowed.
                    return Ok(None);
                }
                return Err(End::DropRevoked);
            };
            // What is counted is no longer answered here.
            if revoked || self.law.table.log(Some(rule)) == Log::All {
                return Ok(None);
            }
            (flow.edition, flow.labels, flow.rule) = (edition, labels, rule);
            flow.endpoints = (opener.0, responder.0);
        }
        let same_state = flow.state.after(side, input) == flow.state;
        let stale = self.registry.timeouts().stale(flow.state, flow.seen_s, self.now_s);
        if same_state && !stale && !input.signals() {
            return Ok(Some(flow.rule));
        }
        let ends = (&at.pair, at.from_low);
        match self.registry.meet(ends, flow.spot, (input, None), self.now_s, |met, _| met == side) {
            // What is counted is not this flow any more, but a later one between the same ports.
            Some(met) if met.side == side && !met.counted => {
                (flow.state, flow.spot, flow.seen_s) = (met.state, met.spot, self.now_s);
                Ok(Some(flow.rule))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Asks the registry about a flow that this worker does not know, and the law about what opened it: the
    /// rule that lets it go on, if one does.
    fn meet(
        &self,
        at: &Hashed,
        packet: (Input, Option<u16>),
        parties: (Party, Party),
    ) -> Option<(Met, Option<RuleIndex>)> {
        let (ends, mut rule) = ((&at.pair, at.from_low), None);
        let allows = |side: Side, service| {
            let (opener, responder) = side.order(parties);
            if let Verdict::Allow(found) = self.law.table.judge(opener.1, responder.1, service) {
                rule = Some(found);
            }
            rule.is_some()
        };
        let met = self.registry.meet(ends, Spot::default(), packet, self.now_s, allows)?;
        Some((met, rule))
    }

    /// A packet of a flow that was opened, but that this worker does not know: allowed if the
    /// packet that opened it is.
    fn join(
        &mut self,
        at: &Hashed,
        (met, rule): (Met, Option<RuleIndex>),
        parties: (Party, Party),
    ) -> Result<RuleIndex, End> {
        let (opener, responder) = met.side.order(parties);
        let Some(rule) = rule else {
            self.denied = ((opener.1, responder.1), met.service);
            self.registry.remove(&at.pair, over(self.log, self.law, self.now_s));
            let revoked = Met { state: State::Revoked, ..met };
            self.remember(at, revoked, RuleIndex::default(), (opener, responder));
            return Err(End::DropRevoked);
        };
        self.keep(at, met, rule, (opener, responder));
        Ok(rule)
    }

    /// A packet of no flow: a rule must allow it, and there must be room for what it opens.
    fn open(
        &mut self,
        packet: &IpPacket,
        at: &Hashed,
        input: Input,
        transit: &Transit,
    ) -> Result<RuleIndex, End> {
        let labels = (transit.source.1, transit.destination.1);
        let service = service_of(packet);
        let rule = match self.law.table.judge(labels.0, labels.1, service) {
            Verdict::Allow(rule) => rule,
            Verdict::Deny(denial) => {
                self.denied = (labels, service);
                return Err(end_of(denial));
            }
        };
        let log = self.law.table.log(Some(rule));
        let name = self.law.table.tag(rule);
        let tag = if log == Log::All { name } else { RuleTag::NONE };
        let opening = Opening {
            protocol: packet.protocol,
            input,
            service,
            source: self.source_of(packet, transit),
            tag,
            bytes: packet.len,
        };
        let ends = (&at.pair, at.from_low);
        let over = over(self.log, self.law, self.now_s);
        let (state, spot) = self.registry.open(ends, &opening, self.now_s, over)?;
        self.law.hits.opened(rule, self.now_s);
        if log != Log::None {
            self.record(Event::Opened, name, FlowKey::of(packet), service);
        }
        // A shadow rule that would deny it: nothing else has a remark on what is allowed.
        if let Some(would_deny) = self.law.table.remark(labels.0, labels.1, service) {
            self.law.hits.opened(would_deny, self.now_s);
        }
        let counted = tag != RuleTag::NONE;
        let met = Met { side: Side::Opener, service, state, spot, counted };
        self.keep(at, met, rule, (transit.source, transit.destination));
        Ok(rule)
    }

    /// Remembers a flow that is allowed, unless it is counted, or may be: a rule that counts must find none of
    /// its flows in a cache, or the packets of the next one between the same ports would not be.
    fn keep(&mut self, at: &Hashed, met: Met, rule: RuleIndex, ends: (Party, Party)) {
        if !met.counted && self.law.table.log(Some(rule)) != Log::All {
            self.remember(at, met, rule, ends);
        }
    }

    /// `ends` are opener and responder.
    fn remember(&mut self, at: &Hashed, met: Met, rule: RuleIndex, ends: (Party, Party)) {
        let (opener, responder) = ends;
        let low_opened = at.from_low == (met.side == Side::Opener);
        let flow = Flow {
            pair: at.pair,
            rule,
            edition: self.law.number,
            seen_s: self.now_s,
            endpoints: (opener.0, responder.0),
            labels: (opener.1, responder.1),
            state: met.state,
            spot: met.spot,
            opened: OpenedBy::of(low_opened, &at.pair, met.service),
        };
        self.flows.insert(at, flow, self.now_s);
    }

    /// Whose allowance of new flows it costs.
    fn source_of(&self, packet: &IpPacket, transit: &Transit) -> SourceId {
        match transit.course {
            Course::Tunnel { peer: Some(peer), .. } => self.registry.sources().of_peer(peer),
            Course::Tunnel { peer: None, .. }
            | Course::Plain { .. }
            | Course::Own
            | Course::Unknown
            | Course::Handshake
            | Course::Answer => self.registry.sources().of_address(packet.source),
        }
    }

    /// An ICMP error passes if it quotes a packet of a flow that is open and still allowed, goes to
    /// the sender of that packet, and comes from behind the peer or segment that the packet went
    /// to: another device cannot know of the flow, and must not disturb it.
    fn decide_error(&mut self, packet: &IpPacket, transit: &Transit) -> Result<RuleIndex, End> {
        let quote = transit
            .bytes()
            .get(usize::from(packet.transport_at) + icmp::HEADER_LEN..)
            .and_then(|quote| icmp::quoted(quote).ok())
            .filter(|quote| quote.source == packet.destination)
            .ok_or(End::DropUnmatchedIcmpError)?;
        let next_hop = |id| self.law.table.endpoint(id).map(|endpoint| endpoint.next_hop);
        let [from, to] =
            [quote.source, quote.destination].map(|address| self.law.table.endpoint_at(address));
        if next_hop(to).is_none() || next_hop(transit.source.0) != next_hop(to) {
            return Err(End::DropUnmatchedIcmpError);
        }
        let (pair, from_low) = Pair::of(&FlowKey::of(&quote));
        let (side, service) =
            self.registry.peek(&pair, from_low, self.now_s).ok_or(End::DropUnmatchedIcmpError)?;
        let (opener, responder) = side.order((self.law.labels.of(from), self.law.labels.of(to)));
        match self.law.table.judge(opener, responder, service) {
            Verdict::Allow(rule) => Ok(rule),
            Verdict::Deny(_) => {
                self.denied = ((opener, responder), service);
                Err(End::DropRevoked)
            }
        }
    }
}

/// The length of a packet, unless it was judged before, and so counted, and has waited since: then it has
/// its way out.
fn uncounted(packet: &IpPacket, transit: &Transit) -> Option<u16> {
    transit.hop.is_none().then_some(packet.len)
}

/// Logs a flow that is over.
fn over(log: &mut FlowLog, law: &Law<'_>, now_s: u32) -> impl FnMut(Over) {
    let generation = law.table.generation();
    move |gone| log.write(gone.record(now_s, generation))
}

fn end_of(denial: Denial) -> End {
    match denial {
        Denial::NoRuleForPair => End::DropNoRule,
        Denial::PortNotAllowed => End::DropPortNotAllowed,
    }
}
