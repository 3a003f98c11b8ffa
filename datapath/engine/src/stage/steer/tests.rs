//! The fast way into a tunnel against its slow twin.

use bulkhead_xsk::{Frame, HEADROOM, Packet, Umem};
use proptest::prelude::*;

use super::*;
use crate::place::{Origin, Place};
use crate::rig::{LISTEN, OWN_MAC, PUBLIC_KEY, datagram, outer_place, own_address};
use crate::setup::PortFacts;
use bulkhead_link::{Dscp, Listener, OnRevoke, Terms, Timers};
use bulkhead_wire::{Mac, checksum};
use std::sync::Arc;

fn setup() -> Setup {
    let port = |segment| PortFacts { segment, mac: Mac(OWN_MAC), mtu: 1_500 };
    Setup {
        worker: 0,
        workers: 1,
        frames: 2,
        addresses: vec![own_address(false), own_address(true)],
        ports: vec![port(false), port(true)],
        sessions: 4,
        flows: 16,
        on_revoke: OnRevoke::Drop,
    }
}

fn listeners() -> Arc<Listeners> {
    Listeners::new(&[Listener {
        port: LISTEN,
        public_key: PUBLIC_KEY,
        dark: false,
        terms: Terms { tunnel_mtu: 1_420, timers: Timers::default(), dscp: Dscp::Clear },
    }])
}

fn transit(frame: &mut Option<Frame>, bytes: &[u8], port: u8) -> Transit {
    let mut frame = frame.take().unwrap();
    frame.bytes_mut()[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
    let (start, len) = (u16::try_from(HEADROOM).unwrap(), u16::try_from(bytes.len()).unwrap());
    Transit::received(Packet { frame, start, len }, port)
}

fn told(transit: &Transit) -> String {
    format!("{:?} {}+{} {:?}", transit.course, transit.start, transit.len, transit.inner)
}

/// Data for us, changed a little; half the time the header checksum is right afterwards.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let value =
        prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 2, 4, 0x40, 0x45, 17, 255])];
    let changes = prop::collection::vec((0usize..64, value), 0..3);
    let message =
        (prop::sample::select(vec![4, 4, 4, 0, 1]), 20..120usize).prop_map(|(kind, len)| {
            let mut message = vec![0xaa; len];
            message.iter_mut().zip([kind, 0, 0, 0, 9, 8, 7, 6]).for_each(|(to, from)| *to = from);
            message
        });
    (message, changes, any::<bool>(), 0..6usize, any::<bool>()).prop_map(
        |(message, changes, sign, cut, v6)| {
            let mut frame = datagram(&outer_place(3, v6), &message, 1);
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if sign {
                frame[24..26].fill(0);
                let sum = checksum::of(&frame[14..34]).to_be_bytes();
                frame[24..26].copy_from_slice(&sum);
            }
            match cut {
                0 => frame.extend([0; 9]),
                1 => frame.truncate(frame.len() - 1),
                _ => {}
            }
            frame
        },
    )
}

#[test]
fn the_fast_way_says_what_the_slow_twin_says() {
    let (setup, listeners) = (setup(), listeners());
    let (mut fast, mut slow) = (0, 0);
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000));
    let counts = std::cell::RefCell::new((&mut fast, &mut slow));
    runner
        .run(&(frames(), 0..3u8), |(bytes, port)| {
            let (_umem, frames) = Umem::new(2).unwrap();
            let [one, other] = <[Frame; 2]>::try_from(frames).unwrap();
            let mut quick = transit(&mut Some(one), &bytes, port);
            let mut twin = transit(&mut Some(other), &bytes, port);
            let before = told(&quick);
            let decided = steer_one(&mut twin, &setup, &listeners);
            if plain_data(&mut quick, &setup, &listeners).is_some() {
                prop_assert_eq!(decided, Ok(()));
                prop_assert_eq!(told(&quick), told(&twin));
                let tunnel = matches!(quick.course, Course::Tunnel { .. });
                prop_assert!(tunnel);
                let place = Place::of_frame(quick.outer(), port).unwrap();
                let origin = Origin::of_frame(quick.outer(), port);
                prop_assert_eq!(origin, Some(Origin::from(&place)));
                prop_assert!(Origin::from(&place).is_of_frame(quick.outer(), port));
                *counts.borrow_mut().0 += 1;
            } else {
                prop_assert_eq!(told(&quick), before, "nothing has changed");
                *counts.borrow_mut().1 += usize::from(decided.is_ok());
            }
            Ok(())
        })
        .unwrap();
    assert!(fast > 500 && slow > 500, "{fast} went the fast way, {slow} were for the slow one");
}
