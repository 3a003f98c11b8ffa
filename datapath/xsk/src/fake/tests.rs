//! Sockets against the fake kernel: where frames are, what lies buy, and that nothing is lost.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::{Frame, Packet};

const ENTRIES: u32 = 8;

fn setup(frames: u32) -> (Umem, Vec<Frame>, Socket, FarEnd) {
    let (umem, pool) = Umem::new(frames).unwrap();
    let (socket, far) = socket(&umem, ENTRIES).unwrap();
    (umem, pool, socket, far)
}

fn receive(socket: &mut Socket) -> Vec<Packet> {
    let mut packets = Vec::new();
    socket.receive(usize::MAX, |packet| packets.push(packet));
    packets
}

fn address(frame: u32) -> u64 {
    u64::from(frame) * FRAME_SIZE as u64
}

#[test]
fn packet_memory_has_limits_and_issues_each_frame_once() {
    for frames in [0, crate::FRAMES_MAX + 1, u32::MAX] {
        let error = Umem::new(frames).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{frames}");
    }
    let (umem, mut pool) = Umem::new(3).unwrap();
    assert_eq!(umem.frames(), 3);
    assert_eq!(pool.iter().map(Frame::index).collect::<Vec<_>>(), [0, 1, 2]);
    for frame in &mut pool {
        assert!(frame.bytes().iter().all(|byte| *byte == 0));
        let mark = u8::try_from(frame.index() + 1).unwrap();
        frame.bytes_mut().fill(mark);
    }
    for (frame, mark) in pool.iter().zip(1..) {
        assert!(frame.bytes().iter().all(|byte| *byte == mark), "frames overlap");
    }
    // Tokens outlive the handle.
    drop(umem);
    assert_eq!(pool[2].bytes()[FRAME_SIZE - 1], 3);
}

#[test]
fn rings_have_limits() {
    let (umem, _pool) = Umem::new(1).unwrap();
    for entries in [0, 1, 3, 12, (1 << 20) + 1, 1 << 21] {
        let error = socket(&umem, entries).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{entries}");
    }
}

#[test]
fn a_packet_comes_in_and_goes_out_in_the_same_frame() {
    let (umem, mut pool, mut socket, mut far) = setup(2);
    assert!(!far.deliver(b"no frame to receive into"));
    assert_eq!((socket.fill(&mut pool, usize::MAX), pool.len(), umem.lent()), (2, 0, 2));
    assert!(far.deliver(b"fourteen bytes, at least"));
    let mut packets = receive(&mut socket);
    assert_eq!(packets.len(), 1);
    assert_eq!(usize::from(packets[0].start), HEADROOM);
    assert_eq!(packets[0].data(), b"fourteen bytes, at least");
    assert_eq!(umem.lent(), 1);

    packets[0].data_mut()[0] = b'F';
    packets[0].len -= 9;
    assert_eq!((socket.transmit(&mut packets), packets.len(), umem.lent()), (1, 0, 2));
    socket.flush().unwrap();
    assert_eq!(socket.reclaim(&mut pool), 0, "not sent yet");
    let mut sent = Vec::new();
    assert_eq!(far.collect(&mut sent), 1);
    assert_eq!(sent, [b"Fourteen bytes,"]);
    assert_eq!((socket.reclaim(&mut pool), pool.len(), umem.lent()), (1, 1, 1));
    assert_eq!((socket.faults(), socket.misfits()), (0, 0));
    assert!(!socket.is_zerocopy());
}

#[test]
fn the_largest_packet_fits_and_a_larger_one_is_dropped() {
    let (_umem, mut pool, mut socket, mut far) = setup(1);
    socket.fill(&mut pool, usize::MAX);
    assert!(!far.deliver(&[7; FRAME_SIZE - HEADROOM + 1]));
    assert!(far.deliver(&[7; FRAME_SIZE - HEADROOM]));
    assert_eq!(receive(&mut socket)[0].data(), [7; FRAME_SIZE - HEADROOM]);
}

#[test]
fn a_ring_takes_what_it_has_room_for_and_leaves_the_rest() {
    let (_umem, mut pool, mut socket, _far) = setup(20);
    assert_eq!((socket.fill(&mut pool, 3), pool.len()), (3, 17), "and no more than it may");
    assert_eq!((socket.fill(&mut pool, usize::MAX), pool.len()), (5, 12));
    assert_eq!(pool.last().map(Frame::index), Some(11), "from the end");
    assert_eq!((socket.fill(&mut pool, usize::MAX), pool.len()), (0, 12));
    let frames = pool.drain(..);
    let mut packets: Vec<_> = frames.map(|frame| Packet { frame, start: 0, len: 60 }).collect();
    assert_eq!((socket.transmit(&mut packets), packets.len()), (8, 4));
    assert_eq!(packets[0].frame.index(), 8, "from the front");
}

#[test]
fn a_packet_that_cannot_be_sent_gives_its_frame_back() {
    let (umem, mut pool, mut socket, mut far) = setup(4);
    let (_other, mut foreign) = Umem::new(1).unwrap();
    let mut packets = Vec::new();
    for (start, len) in [(0, 13), (2000, 49), (u16::MAX, u16::MAX), (2034, 14)] {
        packets.push(Packet { frame: pool.pop().unwrap(), start, len });
    }
    assert!(packets[1].data().is_empty() && packets[2].data_mut().is_empty());
    packets.push(Packet { frame: foreign.pop().unwrap(), start: 0, len: 60 });
    assert_eq!(socket.transmit(&mut packets), 5);
    let mut sent = Vec::new();
    assert_eq!(far.collect(&mut sent), 1, "the last fits exactly");
    assert_eq!((socket.reclaim(&mut pool), pool.len()), (5, 5));
    assert_eq!((socket.misfits(), socket.faults(), umem.lent()), (4, 0, 0));
    // The frame of other memory is not given to this kernel by `fill` either.
    assert_eq!((socket.fill(&mut pool, usize::MAX), umem.lent(), socket.misfits()), (5, 4, 5));
    assert_eq!((socket.reclaim(&mut pool), pool.len()), (1, 1));
}

/// Goal: every kind of lie is counted and buys nothing.
#[test]
fn descriptors_that_the_kernel_invents_are_counted_and_not_believed() {
    let (umem, mut pool, mut socket, mut far) = setup(4);
    let (mut other, _other_far) = super::socket(&umem, ENTRIES).unwrap();
    pool.sort_by_key(Frame::index);
    // 3 with the other socket, 2 with this one's rx side, 1 with its tx side, 0 with us.
    other.fill(&mut vec![pool.pop().unwrap()], usize::MAX);
    socket.fill(&mut vec![pool.pop().unwrap()], usize::MAX);
    socket.transmit(&mut vec![Packet { frame: pool.pop().unwrap(), start: 0, len: 60 }]);

    let received: &[(u64, u32, u32, &str)] = &[
        (address(4), 60, 0, "behind the memory"),
        (u64::MAX, 60, 0, "far behind the memory"),
        (1 << 48 | address(2), 60, 0, "an unaligned-mode address"),
        (address(0), 60, 0, "a frame that we own"),
        (address(1), 60, 0, "a frame that is being sent"),
        (address(3), 60, 0, "a frame of another socket"),
        (address(2), 2049, 0, "longer than a frame"),
        (address(2) + 256, 1793, 0, "over the end of the frame"),
        (address(2), u32::MAX, 0, "4 GiB"),
        (address(2), 60, libc::XDP_PKT_CONTD, "a piece of a packet"),
    ];
    for (count, (address, len, options, what)) in (1..).zip(received) {
        assert!(far.forge_received(*address, *len, *options));
        assert!(receive(&mut socket).is_empty(), "{what}");
        assert_eq!(socket.faults(), count, "{what}");
    }
    let completed = [address(0), address(2), address(3), address(4), u64::MAX];
    for (count, address) in (11..).zip(completed) {
        assert!(far.forge_completed(address));
        assert_eq!(socket.reclaim(&mut pool), 0, "{address:#x}");
        assert_eq!(socket.faults(), count, "{address:#x}");
    }
    assert_eq!(umem.lent(), 3, "no frame moved");

    // The true ones still work, once each.
    assert!(far.deliver(&[1; 60]));
    assert_eq!(receive(&mut socket).len(), 1);
    assert!(far.forge_received(address(2), 60, 0));
    assert!(receive(&mut socket).is_empty(), "spent already");
    assert_eq!(far.collect(&mut Vec::new()), 1);
    assert!(far.forge_completed(address(1)));
    assert_eq!((socket.reclaim(&mut pool), socket.faults()), (1, 17));
}

#[test]
fn an_impossible_ring_index_is_a_fault_and_yields_nothing() {
    let (_umem, mut pool, mut socket, mut far) = setup(4);
    socket.fill(&mut pool, usize::MAX);
    far.forge_rx_index(ENTRIES + 1);
    assert!(receive(&mut socket).is_empty());
    assert!(socket.faults() > 0);
}

/// Goal: a descriptor for a frame that the fake kernel has not taken yet makes no second owner.
#[test]
fn the_fake_does_not_touch_a_frame_that_its_lie_gave_away() {
    let (_umem, mut pool, mut socket, mut far) = setup(1);
    socket.fill(&mut pool, usize::MAX);
    assert!(far.forge_received(address(0), 14, 0));
    let packets = receive(&mut socket);
    assert_eq!(packets.len(), 1, "with this ring, so it is believed");
    assert!(!far.deliver(&[9; 20]), "the entry in the fill ring is void");
    assert_eq!(packets[0].data(), [0; 14]);
}

#[test]
fn a_socket_that_is_dropped_abandons_what_it_held_and_frees_the_memory_in_the_end() {
    let (umem, mut pool, mut socket, mut far) = setup(8);
    let mut three = pool.split_off(5);
    socket.fill(&mut three, usize::MAX);
    socket.transmit(&mut vec![Packet { frame: pool.pop().unwrap(), start: 0, len: 60 }]);
    drop(socket);
    assert_eq!((umem.lent(), umem.abandoned(), pool.len()), (0, 4, 4));
    assert!(!far.deliver(&[1; 60]), "nobody is there");
    assert_eq!(far.collect(&mut Vec::new()), 0);

    let exists = umem.watch();
    drop((umem, far));
    assert!(exists(), "tokens keep the memory");
    drop(pool);
    assert!(!exists(), "the last token frees it, the abandoned do not keep it");
}

#[test]
fn waiting_ends_when_a_packet_comes_and_not_before() {
    let (umem, mut pool, mut quiet, _quiet_far) = setup(4);
    let (mut socket, mut far) = socket(&umem, ENTRIES).unwrap();
    socket.fill(&mut pool, usize::MAX);
    quiet.fill(&mut pool, usize::MAX);
    let soon = Duration::from_millis(1);
    assert!(!Socket::wait(&[&quiet, &socket], soon).unwrap());
    let sender = std::thread::spawn(move || {
        assert!(far.deliver(&[1; 60]) && far.deliver(&[2; 60]));
        far
    });
    assert!(Socket::wait(&[&quiet, &socket], Duration::from_secs(60)).unwrap());
    let mut far = sender.join().unwrap();
    let mut packets = Vec::new();
    assert_eq!(socket.receive(1, |packet| packets.push(packet)), 1);
    assert!(Socket::wait(&[&socket], soon).unwrap(), "one is left");
    assert_eq!(socket.receive(1, |packet| packets.push(packet)), 1);
    assert!(!Socket::wait(&[&socket], soon).unwrap());
    assert!(far.deliver(&[3; 60]));
    assert!(Socket::wait(&[&socket], soon).unwrap());
}

#[derive(Clone, Debug)]
enum Step {
    Fill(usize),
    Deliver(usize),
    Receive(usize, usize),
    Forward(usize, usize),
    Collect(usize),
    Stall(usize, bool),
    Reclaim(usize),
    ForgeReceived(usize, u32),
    ForgeCompleted(usize, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..2).prop_map(Step::Fill),
        6 => (0_usize..2).prop_map(Step::Deliver),
        4 => (0_usize..2, 0_usize..6).prop_map(|(socket, max)| Step::Receive(socket, max)),
        4 => (0_usize..2, 0_usize..6).prop_map(|(socket, max)| Step::Forward(socket, max)),
        3 => (0_usize..2).prop_map(Step::Collect),
        1 => (0_usize..2, any::<bool>()).prop_map(|(socket, stalled)| Step::Stall(socket, stalled)),
        3 => (0_usize..2).prop_map(Step::Reclaim),
        1 => (0_usize..2, 0_u32..26).prop_map(|(socket, frame)| Step::ForgeReceived(socket, frame)),
        1 => (0_usize..2, 0_u32..26).prop_map(|(socket, frame)| Step::ForgeCompleted(socket, frame)),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Goal: two ports on one memory, a kernel that lies now and then: after each step every frame is in
/// exactly one place, and without lies what arrives is what was sent, once.
/// Method: random steps against a count of tokens. The run fails if it never forwarded, never filled
/// a ring, or never caught a lie.
#[test]
fn no_frame_is_lost_or_doubled() {
    let met = Cell::new((0, 0, 0));
    TestRunner::new(Config { cases: 1000, ..Config::default() })
        .run(&(steps(), any::<bool>()), |(steps, lies)| {
            let mut world = World::new();
            let mut refused = 0;
            for step in steps {
                refused += world.step(step, lies)?;
                world.check_frames()?;
            }
            let faults = world.ends.iter().map(|(socket, _)| socket.faults()).sum::<u64>();
            let ids: BTreeSet<_> = world.sent.iter().map(|bytes| id(bytes)).collect();
            if !lies {
                prop_assert_eq!(faults, 0);
                prop_assert_eq!(ids.len(), world.sent.len(), "sent twice");
                prop_assert!(ids.is_subset(&world.arrived), "sent and never received");
                prop_assert!(world.sent.iter().all(|bytes| bytes[8..] == [bytes[0]; 52]));
            }
            let (forwarded, full, caught) = met.get();
            met.set((forwarded + world.sent.len(), full + refused, caught + faults));
            Ok(())
        })
        .unwrap();
    let (forwarded, full, caught) = met.get();
    assert!(forwarded > 1000 && full > 100 && caught > 100, "{:?}", met.get());
}

/// Two ports and a worker that forwards whatever it has.
struct World {
    umem: Umem,
    pool: Vec<Frame>,
    ends: [(Socket, FarEnd); 2],
    held: Vec<Packet>,
    delivered: u64,
    arrived: BTreeSet<u64>,
    sent: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let (umem, pool) = Umem::new(24).unwrap();
        let ends = [0, 1].map(|_| socket(&umem, ENTRIES).unwrap());
        let (held, arrived, sent) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { umem, pool, ends, held, delivered: 0, arrived, sent }
    }

    /// Returns how many times a ring had no room.
    fn step(&mut self, step: Step, lies: bool) -> Result<usize, TestCaseError> {
        match step {
            Step::Fill(port) => {
                self.ends[port].0.fill(&mut self.pool, usize::MAX);
                return Ok(usize::from(!self.pool.is_empty()));
            }
            Step::Deliver(port) => {
                let mut bytes = [self.delivered.to_le_bytes()[0]; 60];
                bytes[..8].copy_from_slice(&self.delivered.to_le_bytes());
                self.delivered += u64::from(self.ends[port].1.deliver(&bytes));
            }
            Step::Receive(port, max) => {
                let before = self.held.len();
                let count = self.ends[port].0.receive(max, |packet| self.held.push(packet));
                prop_assert_eq!(self.held.len() - before, count);
                prop_assert!(count <= max);
                for packet in self.held.iter().skip(before).filter(|_| !lies) {
                    let id = id(packet.data());
                    prop_assert!(id < self.delivered && self.arrived.insert(id), "{} twice", id);
                }
            }
            Step::Forward(port, max) => {
                let count = self.held.len().min(max);
                let mut batch: Vec<_> = self.held.drain(..count).collect();
                self.ends[port].0.transmit(&mut batch);
                let refused = batch.len();
                batch.append(&mut self.held);
                self.held = batch;
                return Ok(refused);
            }
            Step::Collect(port) => {
                self.ends[port].1.collect(&mut self.sent);
            }
            Step::Stall(port, stalled) => self.ends[port].1.stall_completions(stalled),
            Step::Reclaim(port) => {
                self.ends[port].0.reclaim(&mut self.pool);
            }
            Step::ForgeReceived(port, frame) if lies => {
                self.ends[port].1.forge_received(address(frame) + 256, 60, 0);
            }
            Step::ForgeCompleted(port, frame) if lies => {
                self.ends[port].1.forge_completed(address(frame));
            }
            Step::ForgeReceived(..) | Step::ForgeCompleted(..) => {}
        }
        Ok(0)
    }

    fn check_frames(&self) -> Result<(), TestCaseError> {
        let tokens = self.pool.iter().chain(self.held.iter().map(|packet| &packet.frame));
        let indices: BTreeSet<_> = tokens.map(Frame::index).collect();
        let count = self.pool.len() + self.held.len();
        prop_assert_eq!(indices.len(), count, "a frame has two tokens");
        prop_assert_eq!(count + self.umem.lent(), self.umem.frames(), "a frame is nowhere");
        Ok(())
    }
}

fn id(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
