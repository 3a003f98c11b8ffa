//! The program in the kernel against its twin, and both against tables of frames.
//!
//! These tests need CAP_BPF and CAP_NET_ADMIN. Without them they fail: a steering program that was
//! not run is not tested.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const OWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 1, 7));
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9));
const LISTENER: u16 = 51820;

fn config(segment: bool) -> SteerConfig {
    SteerConfig { listeners: vec![LISTENER, 443], addresses: vec![OWN_V4, OWN_V6], segment }
}

fn trial(config: &SteerConfig) -> Steering {
    Steering::load_for_trial(config).unwrap_or_else(|error| {
        panic!("bpf(2) refused the program ({error}); run the tests with CAP_BPF and CAP_NET_ADMIN")
    })
}

/// A frame, in the words of its headers.
#[derive(Clone, Debug)]
struct Sketch {
    mac: u8,
    vlans: usize,
    to: IpAddr,
    protocol: u8,
    port: u16,
    /// IPv4 only: 32-bit words of options.
    options: usize,
    /// IPv4 only: flags and offset.
    fragment: u16,
    payload: usize,
}

impl Sketch {
    fn to(to: IpAddr) -> Self {
        let (mac, protocol, port) = (0x02, 17, LISTENER);
        Self { mac, vlans: 0, to, protocol, port, options: 0, fragment: 0, payload: 32 }
    }

    fn draw(&self) -> Vec<u8> {
        let mut frame = vec![self.mac, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        for _ in 0..self.vlans {
            frame.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let transport_len = 8 + self.payload;
        match self.to {
            IpAddr::V4(to) => {
                let header_len = 20 + 4 * self.options;
                frame.extend([0x08, 0x00, 0x40 | u8::try_from(header_len / 4).unwrap(), 0]);
                frame.extend(u16::try_from(header_len + transport_len).unwrap().to_be_bytes());
                frame.extend([0, 0]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0, 10, 20, 1, 9]);
                frame.extend(to.octets());
                frame.resize(frame.len() + 4 * self.options, 1); // no operation
            }
            IpAddr::V6(to) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(u16::try_from(transport_len).unwrap().to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 5).octets());
                frame.extend(to.octets());
            }
        }
        frame.extend(40000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend(u16::try_from(transport_len).unwrap().to_be_bytes());
        frame.resize(frame.len() + 2 + self.payload, 4);
        frame
    }
}

#[test]
fn frames_go_where_the_table_says() {
    use Verdict::{Pass, Redirect};
    let v4 = || Sketch::to(OWN_V4);
    let v6 = || Sketch::to(OWN_V6);
    let host = |address: &str| Sketch::to(address.parse().unwrap());
    // On a segment port; without the segment, whatever is for others passes.
    let table: Vec<(&str, Sketch, Verdict)> = vec![
        ("wireguard v4", v4(), Redirect),
        ("wireguard v6", v6(), Redirect),
        ("second listener", Sketch { port: 443, ..v4() }, Redirect),
        ("tagged v4", Sketch { vlans: 1, ..v4() }, Redirect),
        ("tagged v6", Sketch { vlans: 1, ..v6() }, Redirect),
        ("two tags", Sketch { vlans: 2, ..v4() }, Pass),
        ("one option word", Sketch { options: 1, ..v4() }, Pass),
        ("all options", Sketch { options: 10, ..v4() }, Pass),
        ("other port", Sketch { port: 22, ..v4() }, Pass),
        ("byte-swapped port", Sketch { port: LISTENER.swap_bytes(), ..v6() }, Pass),
        ("TCP to the listener's port", Sketch { protocol: 6, ..v4() }, Pass),
        ("TCP to the listener's port, v6", Sketch { protocol: 6, ..v6() }, Pass),
        ("first fragment", Sketch { fragment: 0x2000, ..v4() }, Pass),
        ("later fragment", Sketch { fragment: 0x0001, ..v4() }, Pass),
        ("last fragment, high offset", Sketch { fragment: 0x1fff, ..v4() }, Pass),
        ("do not fragment", Sketch { fragment: 0x4000, ..v4() }, Redirect),
        ("group MAC", Sketch { mac: 0x01, ..v4() }, Pass),
        ("broadcast MAC", Sketch { mac: 0xff, ..host("10.20.1.7") }, Pass),
        ("segment v4", Sketch { port: 22, ..host("10.20.1.7") }, Redirect),
        ("segment v6", Sketch { port: 22, ..host("2001:db8:7::9") }, Redirect),
        ("segment, tagged", Sketch { vlans: 1, ..host("10.20.1.7") }, Redirect),
        ("segment, options", Sketch { options: 3, ..host("10.20.1.7") }, Redirect),
        ("segment, fragment", Sketch { fragment: 0x2001, ..host("10.20.1.7") }, Redirect),
        ("segment, any protocol", Sketch { protocol: 132, ..host("10.20.1.7") }, Redirect),
        ("segment, TCP v6", Sketch { protocol: 6, ..host("2001:db8:7::9") }, Redirect),
        ("multicast v4", host("224.0.0.251"), Pass),
        ("below multicast v4", host("223.255.255.255"), Redirect),
        ("reserved v4", host("240.0.0.1"), Pass),
        ("broadcast v4", host("255.255.255.255"), Pass),
        ("loopback v4", host("127.0.0.1"), Pass),
        ("above loopback v4", host("128.0.0.1"), Redirect),
        ("this network v4", host("0.1.2.3"), Pass),
        ("first routable v4", host("1.0.0.0"), Redirect),
        ("link-local v4", host("169.254.1.1"), Pass),
        ("beside link-local v4", host("169.253.255.255"), Redirect),
        ("above link-local v4", host("169.255.0.0"), Redirect),
        ("multicast v6", host("ff02::1"), Pass),
        ("link-local v6", host("fe80::1"), Pass),
        ("end of link-local v6", host("febf:ffff::1"), Pass),
        ("above link-local v6", host("fec0::1"), Redirect),
        ("below link-local v6", host("fe7f::1"), Redirect),
        ("unique local v6", host("fd00::1"), Redirect),
        ("loopback v6", host("::1"), Pass),
        ("unspecified v6", host("::"), Pass),
        ("mapped v6", host("::ffff:10.20.1.7"), Pass),
        ("our own v4, mapped into v6", host("::ffff:192.0.2.1"), Pass),
    ];
    for segment in [true, false] {
        let config = config(segment);
        let steering = trial(&config);
        for (name, sketch, want) in &table {
            let for_us = [OWN_V4, OWN_V6].contains(&sketch.to);
            let want = if segment || for_us { *want } else { Pass };
            let frame = sketch.draw();
            assert_eq!(twin(&config, &frame), want, "twin: {name}, segment {segment}");
            assert_eq!(steering.test_run(&frame).unwrap(), want, "{name}, segment {segment}");
        }
    }
}

/// Goal: wherever a frame is cut, program and twin agree, and the shortest that is redirected is
/// as long as its headers without options.
#[test]
fn a_frame_that_is_cut_short_passes() {
    let config = config(true);
    let steering = trial(&config);
    let needed = [
        (Sketch::to(OWN_V4), 14 + 20 + 8),
        (Sketch { vlans: 1, ..Sketch::to(OWN_V6) }, 18 + 40 + 8),
        (Sketch::to(HOST_V4), 14 + 20),
        (Sketch { options: 10, ..Sketch::to(HOST_V4) }, 14 + 20),
        (Sketch { vlans: 1, ..Sketch::to(HOST_V6) }, 18 + 40),
    ];
    for (sketch, needed) in needed {
        let frame = sketch.draw();
        for len in 0..=frame.len() {
            let cut = &frame[..len];
            let want = if len >= needed { Verdict::Redirect } else { Verdict::Pass };
            assert_eq!(twin(&config, cut), want, "twin: {len} bytes of {sketch:?}");
            // The kernel runs no program on less than an Ethernet header.
            if len >= 14 {
                assert_eq!(steering.test_run(cut).unwrap(), want, "{len} bytes of {sketch:?}");
            }
        }
    }
}

/// Goal: every version and header length is met. Method: all values of the first byte of the IP
/// header, on frames with room for the longest.
#[test]
fn version_and_header_length_are_checked() {
    let config = config(true);
    let steering = trial(&config);
    for to in [OWN_V4, OWN_V6, HOST_V4, HOST_V6] {
        let mut frame = Sketch { payload: 60, ..Sketch::to(to) }.draw();
        for first in 0..=u8::MAX {
            frame[14] = first;
            let want = match (first / 16, first % 16) {
                // With options a datagram for us is left to the kernel.
                (4, 5) if to == OWN_V4 => Verdict::Redirect,
                (4, 5..) if to == HOST_V4 => Verdict::Redirect,
                (6, _) if to.is_ipv6() => Verdict::Redirect,
                (_, _) => Verdict::Pass,
            };
            assert_eq!(twin(&config, &frame), want, "twin: {first:#x} to {to}");
            assert_eq!(steering.test_run(&frame).unwrap(), want, "{first:#x} to {to}");
        }
    }
}

#[test]
fn without_a_socket_a_redirect_passes() {
    let steering = Steering::load(&config(true)).unwrap();
    for to in [OWN_V4, OWN_V6, HOST_V4, HOST_V6] {
        assert_eq!(steering.test_run(&Sketch::to(to).draw()).unwrap(), Verdict::Pass, "{to}");
    }
}

/// Goal: what the trial program judges is what the real one does.
#[test]
fn the_trial_differs_in_what_a_miss_does_and_in_nothing_else() {
    let sockets = Map::<4>::new(MapKind::Xsk, 1, c"t").unwrap();
    let addresses = Map::<16>::new(MapKind::Hash, 1, c"t").unwrap();
    let maps = Maps { sockets: sockets.as_fd(), addresses: addresses.as_fd() };
    let real = assemble(&config(true), maps, Miss::Pass).unwrap();
    let trial = assemble(&config(true), maps, Miss::Show).unwrap();
    let differing: Vec<_> = real.iter().zip(&trial).filter(|(a, b)| a != b).collect();
    // r3 = 2 against r3 = 3
    assert_eq!(differing, [(&0x0000_0002_0000_03b7, &0x0000_0003_0000_03b7)]);
    assert_eq!(real.len(), trial.len());
}

#[test]
fn own_addresses_come_and_go() {
    let steering = trial(&config(true));
    let frame = Sketch { port: 22, ..Sketch::to(HOST_V4) }.draw();
    assert_eq!(steering.test_run(&frame).unwrap(), Verdict::Redirect);
    steering.insert_address(HOST_V4).unwrap();
    assert_eq!(steering.test_run(&frame).unwrap(), Verdict::Pass);
    steering.remove_address(HOST_V4).unwrap();
    assert_eq!(steering.test_run(&frame).unwrap(), Verdict::Redirect);
    let error = steering.remove_address(HOST_V4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_limits_hold_and_what_is_beyond_is_refused() {
    let listeners: Vec<u16> = (1..).take(LISTENERS_MAX).collect();
    let mut config = SteerConfig { listeners, ..config(false) };
    let steering = trial(&config);
    for (port, want) in [(1, Verdict::Redirect), (64, Verdict::Redirect), (65, Verdict::Pass)] {
        let frame = Sketch { port, ..Sketch::to(OWN_V6) }.draw();
        assert_eq!(steering.test_run(&frame).unwrap(), want, "{port}");
    }
    config.listeners.push(9);
    assert_eq!(Steering::load(&config).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    config.listeners.clear();
    let nobody = trial(&config).test_run(&Sketch::to(OWN_V4).draw()).unwrap();
    assert_eq!(nobody, Verdict::Pass, "no listener, no WireGuard");
    config.addresses = vec![OWN_V4; ADDRESSES_MAX as usize + 1];
    assert_eq!(Steering::load(&config).unwrap_err().kind(), io::ErrorKind::InvalidInput);

    let (umem, _frames) = crate::Umem::new(1).unwrap();
    let (fake, _far) = crate::fake::socket(&umem, 2).unwrap();
    let error = steering.set_socket(0, &fake).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Flip(usize, u32),
    Cut(usize),
    Append(Vec<u8>),
}

impl Damage {
    fn apply(&self, frame: &mut Vec<u8>) {
        let len = frame.len();
        match self {
            Self::Set(at, value) => frame[at % len] = *value,
            Self::Flip(at, bit) => frame[at % len] ^= 1 << bit,
            Self::Cut(to) => frame.truncate(14 + to % len),
            Self::Append(bytes) => frame.extend(bytes),
        }
    }
}

fn sketches() -> impl Strategy<Value = Sketch> {
    let others = [HOST_V4, HOST_V6, "224.0.0.5".parse().unwrap(), "169.254.0.9".parse().unwrap()];
    let unroutable = ["fe80::5", "ff0e::5", "::1", "127.0.0.9"].map(|ip| ip.parse().unwrap());
    let to = prop_oneof![
        4 => Just(OWN_V4),
        4 => Just(OWN_V6),
        4 => proptest::sample::select(others.to_vec()),
        1 => proptest::sample::select(unroutable.to_vec()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
    ];
    let mac = prop_oneof![9 => Just(0x02), 1 => any::<u8>()];
    let vlans = prop_oneof![6 => Just(0), 3 => Just(1), 1 => Just(2)];
    let protocol = prop_oneof![5 => Just(17), 1 => Just(6), 1 => Just(58), 1 => any::<u8>()];
    let port = prop_oneof![5 => Just(LISTENER), 2 => Just(443), 1 => any::<u16>()];
    let options = prop_oneof![3 => Just(0_usize), 1 => 1_usize..=10];
    let fragment = prop_oneof![6 => Just(0_u16), 2 => Just(0x4000), 1 => any::<u16>()];
    (mac, vlans, to, protocol, port, options, fragment, 0_usize..100).prop_map(
        |(mac, vlans, to, protocol, port, options, fragment, payload)| Sketch {
            mac,
            vlans,
            to,
            protocol,
            port,
            options,
            fragment,
            payload,
        },
    )
}

/// Goal: program and twin agree on frames as they occur and on the damaged.
/// Method: sketch a frame, damage it up to four times mostly in its headers, ask both. The run
/// counts what it met and fails if an outcome is missing.
#[test]
fn the_program_and_its_twin_agree_on_damaged_frames() {
    let configs = [config(true), config(false)];
    let steerings = configs.each_ref().map(trial);
    let at = || prop_oneof![4 => 0_usize..80, 1 => 0_usize..200];
    let damage = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        (at(), 0_u32..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (0_usize..120).prop_map(Damage::Cut),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(Damage::Append),
    ];
    let input = (sketches(), proptest::collection::vec(damage, 0..4), 0_usize..2);
    let met = std::cell::RefCell::new(BTreeMap::<_, u32>::new());

    TestRunner::new(Config { cases: 20_000, ..Config::default() })
        .run(&input, |(sketch, damages, which)| {
            let mut frame = sketch.draw();
            damages.iter().for_each(|damage| damage.apply(&mut frame));
            let want = twin(&configs[which], &frame);
            prop_assert_eq!(steerings[which].test_run(&frame).unwrap(), want, "{:02x?}", frame);
            let kind = if damages.is_empty() {
                let for_us = [OWN_V4, OWN_V6].contains(&sketch.to);
                (if for_us { "wireguard" } else { "segment" }, sketch.to.is_ipv4())
            } else {
                ("damaged", false)
            };
            *met.borrow_mut().entry((kind, want == Verdict::Redirect)).or_default() += 1;
            Ok(())
        })
        .unwrap();

    let met = met.into_inner();
    for kind in ["wireguard", "segment"].into_iter().flat_map(|k| [(k, true), (k, false)]) {
        for redirect in [true, false] {
            assert!(met.get(&(kind, redirect)) > Some(&50), "{kind:?} {redirect}: {met:?}");
        }
    }
    for redirect in [true, false] {
        assert!(met.get(&(("damaged", false), redirect)) > Some(&1000), "{redirect}: {met:?}");
    }
}
