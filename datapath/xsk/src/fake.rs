//! The kernel's end of a socket, played over plain memory, for everyone's tests.
//!
//! [`socket`] makes an ordinary [`Socket`] whose rings end in a [`FarEnd`] instead of a device. The
//! far end moves one packet at a time and holds no frame between calls, except those that
//! [`FarEnd::stall_completions`] keeps from being completed. It can also lie: the `forge` methods
//! write descriptors that a correct kernel would not.
//!
//! Forging is safe: the far end touches the bytes of a frame only while it holds the lock that the
//! socket takes for each of its turns, and only if the holder table says that the frame is with the
//! socket's ring, so that no token of it exists.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::mmap::{Mapping, RingMemory};
use crate::ring::{Consumer, Descriptor, Offsets, Producer, Ring, Shape};
use crate::socket::{Link, Socket, Wire};
use crate::umem::{FRAME_SIZE, HEADROOM, Umem};

/// A socket with `entries` entries in each ring, and what is at the other end of it.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] unless `entries` is a power of two from 2 to 2^20; what mmap(2)
/// says; an error after 32767 sockets of one memory.
pub fn socket(umem: &Umem, entries: u32) -> io::Result<(Socket, FarEnd)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "entries: want a power of two");
    if !(2..=1 << 20).contains(&entries) {
        return Err(invalid());
    }
    let ring = |shape: Shape| {
        let descriptors = usize::try_from(entries).map_err(io::Error::other)? * shape.words() * 8;
        let len = descriptors.saturating_add(192);
        let memory = Arc::new(RingMemory::new(Mapping::anonymous(len)?));
        // A cache line for each.
        let offsets = Offsets { producer: 0, consumer: 64, flags: 128, descriptors: 192 };
        Ring::new(&memory, offsets, entries, shape).ok_or_else(invalid)
    };
    let (fill, completion) = (ring(Shape::Address)?, ring(Shape::Address)?);
    let (rx, tx) = (ring(Shape::Packet)?, ring(Shape::Packet)?);
    let wire = Wire::new()?;
    let near = Socket::assemble(
        Link::Fake(wire.clone()),
        umem,
        Producer::new(fill.clone()),
        Consumer::new(rx.clone()),
        Producer::new(tx.clone()),
        Consumer::new(completion.clone()),
    )?;
    let (receive_side, send_side) = near.sides();
    let far = FarEnd {
        wire,
        umem: umem.clone(),
        fill: Consumer::new(fill),
        rx: Producer::new(rx),
        tx: Consumer::new(tx),
        completion: Producer::new(completion),
        receive_side,
        send_side,
        uncompleted: VecDeque::new(),
        stalled: false,
    };
    Ok((near, far))
}

/// The kernel and the wire behind it.
#[derive(Debug)]
pub struct FarEnd {
    wire: Wire,
    umem: Umem,
    fill: Consumer,
    rx: Producer,
    tx: Consumer,
    completion: Producer,
    receive_side: u16,
    send_side: u16,
    /// Addresses of packets that were sent and not completed yet.
    uncompleted: VecDeque<u64>,
    stalled: bool,
}

impl FarEnd {
    /// A packet arrives. Returns `false`, as a driver drops, if it does not fit behind the
    /// headroom, or no frame is in the fill ring, or the rx ring is full.
    pub fn deliver(&mut self, bytes: &[u8]) -> bool {
        let turn = self.wire.turn();
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        if bytes.len() > FRAME_SIZE - HEADROOM || self.rx.room(1) != Ok(1) {
            return false;
        }
        while self.fill.available(1) == Ok(1) {
            let base = self.fill.pop().address;
            self.fill.release();
            let address = base + HEADROOM as u64;
            // A forged descriptor may have returned this frame already: then it is not ours.
            let Some(place) = self.umem.place_with(address, bytes.len(), self.receive_side) else {
                continue;
            };
            // SAFETY:
            // * `bytes` is readable for its length;
            // * `place` is writable for as many bytes, all in one frame, as `place_with` checked;
            // * no token of the frame exists, since its holder is not user space, and none can be
            //   made while `turn` is held; so no reference overlaps, and `bytes` is not in it;
            // * alignment of `u8` is 1.
            unsafe { place.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            self.rx.push(Descriptor { address, len, options: 0 });
            self.rx.publish();
            turn.ring();
            return true;
        }
        false
    }

    /// Appends a copy of each packet that the socket has sent, in order, and completes them.
    /// Returns how many.
    pub fn collect(&mut self, into: &mut Vec<Vec<u8>>) -> usize {
        let wire = self.wire.clone();
        let _turn = wire.turn();
        let before = into.len();
        while self.tx.available(1) == Ok(1) {
            let Descriptor { address, len, .. } = self.tx.pop();
            self.tx.release();
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            // A forged completion may have returned this frame already: then it is not ours.
            let Some(place) = self.umem.place_with(address, len, self.send_side) else { continue };
            let mut bytes = vec![0; len];
            // SAFETY:
            // * `place` is readable for `len` bytes, all in one frame, as `place_with` checked, and
            //   initialised (anonymous memory);
            // * no token of the frame exists or can be made while the turn is held, so nobody
            //   writes to it;
            // * `bytes` is writable for `len` bytes, newly allocated, so not overlapping;
            // * alignment of `u8` is 1.
            unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(place.as_ptr(), len) };
            into.push(bytes);
            self.uncompleted.push_back(address);
        }
        self.complete();
        into.len() - before
    }

    /// Keeps what is sent from now on uncompleted, or completes it all and goes on.
    pub fn stall_completions(&mut self, stalled: bool) {
        let wire = self.wire.clone();
        let _turn = wire.turn();
        self.stalled = stalled;
        self.complete();
    }

    /// Puts a descriptor into the rx ring that no packet stands behind. Returns `false` if the ring
    /// is full.
    pub fn forge_received(&mut self, address: u64, len: u32, options: u32) -> bool {
        let turn = self.wire.turn();
        if self.rx.room(1) != Ok(1) {
            return false;
        }
        self.rx.push(Descriptor { address, len, options });
        self.rx.publish();
        turn.ring();
        true
    }

    /// Puts an address into the completion ring that no transmission stands behind. Returns `false`
    /// if the ring is full.
    pub fn forge_completed(&mut self, address: u64) -> bool {
        let _turn = self.wire.turn();
        if self.completion.room(1) != Ok(1) {
            return false;
        }
        self.completion.push(Descriptor { address, ..Descriptor::default() });
        self.completion.publish();
        true
    }

    /// Claims that `count` more packets were received than the rx ring has descriptors for, which
    /// is impossible if it is more than its entries. The ring is of no use afterwards.
    pub fn forge_rx_index(&mut self, count: u32) {
        let turn = self.wire.turn();
        self.rx.skip(count);
        self.rx.publish();
        turn.ring();
    }

    fn complete(&mut self) {
        while !self.stalled && self.completion.room(1) == Ok(1) {
            let Some(address) = self.uncompleted.pop_front() else { return };
            self.completion.push(Descriptor { address, ..Descriptor::default() });
            self.completion.publish();
        }
    }
}

#[cfg(test)]
mod tests;
