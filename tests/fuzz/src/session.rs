//! Tunnel data: a stranger's, and a session's with everything that the wire can do to it.

use std::collections::BTreeSet;

use bulkhead_engine::rig::{self, INSIDE, OUTSIDE, Rig};
use bulkhead_table::Service;

use crate::input::Input;

/// A gateway that allows peer 0 to reach the segment, with one session.
fn world() -> (Rig, rig::RigPeer) {
    let mut rig = Rig::new(1, 1);
    let rules = [(1, 2, Service::udp(53), Service::udp(53))];
    rig.publish(&rig::draft(1, 1, &rules));
    rig.neighbour(1);
    let peer = rig.session(0, 0, false, false);
    (rig, peer)
}

/// A UDP payload from the address of a peer: nothing of it reaches the segment, nothing is sent to
/// anyone, and the genuine packet after it does pass.
pub fn data(bytes: &[u8]) {
    let (mut rig, mut peer) = world();
    if bytes.len() > 1_400 {
        return;
    }
    rig.deliver(0, OUTSIDE, &peer.datagram(bytes, 0));
    rig.run();
    assert!(rig.sent(INSIDE).is_empty(), "forged data reached the segment");
    assert!(rig.sent(OUTSIDE).is_empty(), "a stranger got an answer");
    let _ = rig.status();
    let inner = rig::udp(rig::peer_address(0, false), rig::host_address(1, false), (1, 53), 8);
    rig.deliver(0, OUTSIDE, &peer.seal(&inner));
    rig.run();
    assert_eq!(rig.sent(INSIDE).len(), 1, "the genuine packet does not pass any more");
}

/// A session against its model: a set of seen counters. The bytes are steps: seal a packet under a
/// counter, damage it or not, let time pass. Each packet comes out once, at most.
pub fn session(bytes: &[u8]) {
    const REACH: u64 = bulkhead_wg::replay::REACH;
    const LIMIT: u64 = bulkhead_wg::limits::REJECT_AFTER_MESSAGES;
    let (mut rig, peer) = world();
    let (mut input, mut seen, mut steps) = (Input(bytes), BTreeSet::<u64>::new(), 0);
    let from = rig::peer_address(0, false);
    let inner = rig::udp(from, rig::host_address(1, false), (1, 53), 8);
    let mut age_ms = 0;
    while !input.is_empty() && steps < 64 {
        steps += 1;
        let greatest = seen.last().copied().unwrap_or(0);
        let counter = match input.byte() % 5 {
            0 => greatest.saturating_add(1),
            1 => greatest.saturating_sub(u64::from(input.byte())),
            2 => greatest.saturating_sub(REACH - 2 + u64::from(input.byte() % 4)),
            3 => greatest.saturating_add(u64::from(input.byte()) << (input.byte() % 16)),
            _ => input.word(),
        };
        let mut frame = peer.seal_as(&inner, counter, 0);
        let change = input.byte();
        // The tag and the text are the last bytes of the frame, behind the header of 16.
        let sealed = frame.len() - inner.len().next_multiple_of(16) - 16;
        if change >= 0xc0 {
            let at = sealed + usize::from(change - 0xc0) % (frame.len() - sealed);
            frame[at] ^= input.byte() | 1;
        }
        let pause = u64::from(input.byte()) << 4;
        rig.pass(pause);
        age_ms += pause;
        rig.deliver(0, OUTSIDE, &frame);
        rig.run();
        let fresh = counter < LIMIT
            && greatest.saturating_sub(counter) <= REACH
            && !seen.contains(&counter);
        let want = change < 0xc0 && fresh && age_ms < 180_000;
        assert_eq!(rig.sent(INSIDE).len(), usize::from(want), "counter {counter}, step {steps}");
        if want {
            seen.insert(counter);
        }
        assert!(rig.sent(OUTSIDE).is_empty());
    }
    let _ = rig.status();
}
