//! What a verdict costs: two addresses to endpoints, endpoints to labels, labels and service to a
//! run, for tables of a thousand to a million rules.
//!
//! ```text
//!   rule = (source subnet, destination subnet, protocol, port range)      one label per subnet
//!   hosts: endpoints of their own inside the subnets, 100,000 in all      same label as their subnet
//! ```
//!
//! So the same rules can be given to a five-tuple classifier, which must agree. The table stands in large
//! pages, as in the datapath.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_table::{
    Draft, Endpoint, EndpointId, LabelId, NextHop, PeerIndex, Question, RuleIndex, RuleTag, Run,
    Service, Table, Verdict,
};
use bulkhead_xsk::huge::Bytes;
use ipnet::{IpNet, Ipv4Net};

use crate::random::{Random, Zipf};

/// Packets that are asked about at once.
pub const BATCH: usize = 32;

/// Hosts in a company.
const HOSTS: usize = 100_000;

/// A rule as a firewall with five-tuples knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From these addresses.
    pub source: Ipv4Net,
    /// To these.
    pub destination: Ipv4Net,
    /// TCP or UDP.
    pub protocol: u8,
    /// Inclusive.
    pub ports: (u16, u16),
}

impl Rule {
    fn matches(&self, packet: &Question) -> bool {
        let inside = |net: Ipv4Net, ip: IpAddr| IpNet::V4(net).contains(&ip);
        let (first, last) = self.ports;
        inside(self.source, packet.source.to_ip())
            && inside(self.destination, packet.destination.to_ip())
            && packet.service.protocol() == self.protocol
            && (first..=last).contains(&packet.service.port())
    }
}

/// How many subnets and rules a company has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Subnets that sources are in.
    pub sources: usize,
    /// Subnets that destinations are in.
    pub destinations: usize,
    /// Pairs of subnets with rules.
    pub pairs: usize,
    /// Rules of each such pair.
    pub rules_per_pair: usize,
}

impl Shape {
    /// A shape with so many rules: 1,000, 10,000, 100,000 or 1,000,000.
    #[must_use]
    pub fn of(rules: usize) -> Self {
        let (sources, destinations, rules_per_pair) = match rules {
            0..=1_000 => (40, 40, 2),
            1_001..=10_000 => (200, 200, 2),
            10_001..=100_000 => (1_000, 1_000, 2),
            100_001.. => (1_000, 2_000, 4),
        };
        Self { sources, destinations, pairs: rules / rules_per_pair, rules_per_pair }
    }
}

/// A policy in both forms, and who is there to send packets.
pub struct Company {
    /// As Bulkhead's table.
    pub table: Table,
    /// As five-tuples.
    pub rules: Vec<Rule>,
    /// By subnet: sources first.
    hosts: Vec<Vec<Ipv4Addr>>,
    shape: Shape,
}

impl Company {
    /// The company of this shape and seed.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let subnets = shape.sources + shape.destinations;
        let subnet = |at: usize| {
            // Scattered over 10/8, so that no two neighbours share a node of a trie by design.
            let scattered = (at as u32).wrapping_mul(40_503) & 0xffff;
            Ipv4Net::new_assert(Ipv4Addr::from_bits(10 << 24 | scattered << 8), 24)
        };
        let label = |at: usize| LabelId(u16::try_from(at + 1).unwrap());
        let mut draft = Draft {
            generation: 1,
            labels: u16::try_from(subnets + 1).unwrap(),
            endpoints: vec![endpoint(LabelId(0), 0)],
            peers: u32::try_from(HOSTS + subnets).unwrap(),
            ..Draft::default()
        };
        let mut add = |label: LabelId, net: Ipv4Net| {
            let id = u32::try_from(draft.endpoints.len()).unwrap();
            draft.endpoints.push(endpoint(label, id - 1));
            draft.prefixes.push((IpNet::V4(net), EndpointId(id)));
        };
        let mut hosts = vec![];
        for at in 0..subnets {
            let net = subnet(at);
            add(label(at), net);
            let mut there = BTreeSet::new();
            while there.len() < (HOSTS / subnets).min(200) {
                there.insert(1 + random.below(254) as u32);
            }
            let there: Vec<_> = there
                .iter()
                .map(|host| Ipv4Addr::from_bits(net.network().to_bits() | host))
                .collect();
            for host in &there {
                add(label(at), Ipv4Net::new_assert(*host, 32));
            }
            hosts.push(there);
        }
        let mut rules = vec![];
        let mut pairs = BTreeSet::new();
        while pairs.len() < shape.pairs {
            pairs.insert((
                random.below(shape.sources),
                shape.sources + random.below(shape.destinations),
            ));
        }
        for (source, destination) in pairs {
            let mut runs: Vec<Run> = vec![];
            while runs.len() < shape.rules_per_pair {
                let protocol = if random.below(3) == 0 { 17 } else { 6 };
                let first = 1 + random.below(60_000) as u16;
                let last =
                    first + if random.below(4) == 0 { random.below(1_000) as u16 } else { 0 };
                let (from, to) = (Service::new(protocol, first), Service::new(protocol, last));
                if runs.iter().any(|run| from <= run.last && run.first <= to) {
                    continue;
                }
                let rule = RuleIndex(u32::try_from(rules.len()).unwrap());
                runs.push(Run { first: from, last: to, rule });
                rules.push(Rule {
                    source: subnet(source),
                    destination: subnet(destination),
                    protocol,
                    ports: (first, last),
                });
            }
            draft.cells.insert((label(source), label(destination)), runs.into());
        }
        draft.rules = u32::try_from(rules.len()).unwrap();
        draft.tags = (1..=rules.len() as u64).map(RuleTag).collect();
        let table = Table::new(Arc::new(Bytes::copy_of(&draft.emit().unwrap()))).unwrap();
        Self { table, rules, hosts, shape }
    }

    /// Holds the table's answers on `packets` against a look at every rule.
    pub fn check(&self, packets: &[Question]) {
        let mut verdicts = vec![Verdict::default(); packets.len()];
        self.table.view().verdicts(packets, &mut verdicts);
        let mut allowed = 0;
        for (packet, verdict) in packets.iter().zip(verdicts) {
            let want = self.rules.iter().position(|rule| rule.matches(packet));
            let got = match verdict {
                Verdict::Allow(rule) => Some(rule.0 as usize),
                Verdict::Deny(_) => None,
            };
            assert_eq!(got, want, "{packet:?}");
            allowed += usize::from(got.is_some());
        }
        assert!(allowed < packets.len(), "some are denied");
    }

    /// `count` packets. Half of them are allowed by a rule.
    #[must_use]
    pub fn traffic(&self, kind: Traffic, count: usize, seed: u64) -> Vec<Question> {
        let mut random = Random::new(seed);
        let zipf = Zipf::new(HOSTS, 1.1);
        (0..count)
            .map(|_| {
                let rule = &self.rules[random.below(self.rules.len())];
                let allowed = random.below(2) == 0;
                let (source, destination) = match kind {
                    Traffic::Uniform | Traffic::Adversarial if allowed => (
                        self.host_in(rule.source, &mut random),
                        self.host_in(rule.destination, &mut random),
                    ),
                    Traffic::Uniform | Traffic::Adversarial => (
                        self.host(random.below(self.shape.sources), &mut random),
                        self.host(
                            self.shape.sources + random.below(self.shape.destinations),
                            &mut random,
                        ),
                    ),
                    Traffic::Zipf => {
                        (self.nth(zipf.draw(&mut random)), self.nth(zipf.draw(&mut random)))
                    }
                };
                let port = match (kind, allowed) {
                    // Just behind a run: the bisection goes all the way.
                    (Traffic::Adversarial, _) => rule.ports.1 + 1,
                    (_, true) => rule.ports.0,
                    (_, false) => random.below(65_536) as u16,
                };
                Question {
                    source: source.into(),
                    destination: destination.into(),
                    service: Service::new(rule.protocol, port),
                }
            })
            .collect()
    }

    fn host_in(&self, net: Ipv4Net, random: &mut Random) -> Ipv4Addr {
        let at = self.hosts.iter().position(|hosts| net.contains(&hosts[0])).unwrap();
        self.host(at, random)
    }

    fn host(&self, subnet: usize, random: &mut Random) -> Ipv4Addr {
        let hosts = &self.hosts[subnet];
        hosts[random.below(hosts.len())]
    }

    fn nth(&self, rank: usize) -> Ipv4Addr {
        // Popular hosts are spread over the subnets.
        let subnet = rank % self.hosts.len();
        let hosts = &self.hosts[subnet];
        hosts[rank / self.hosts.len() % hosts.len()]
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every host and every rule as often as any other.
    Uniform,
    /// A few hosts most of the time (exponent 1.1).
    Zipf,
    /// As uniform, but always pairs with rules, and a service just behind one of them.
    Adversarial,
}

const fn endpoint(label: LabelId, peer: u32) -> Endpoint {
    Endpoint { label, next_hop: NextHop::Peer(PeerIndex(peer)) }
}

/// Nanoseconds per packet to answer `packets` in batches, median of `rounds`.
#[must_use]
pub fn measure(table: &Table, packets: &[Question], rounds: usize) -> f64 {
    let mut verdicts = [Verdict::default(); BATCH];
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let view = table.view();
            let start = now();
            for batch in packets.chunks_exact(BATCH) {
                view.verdicts(batch, &mut verdicts);
                std::hint::black_box(&verdicts);
            }
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2].as_secs_f64() * 1e9 / packets.len() as f64
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
