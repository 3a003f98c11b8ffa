//! Where frames come from and go to: a queue of a network port, or memory.

use std::collections::VecDeque;

use bulkhead_xsk::{Frame, Packet, Socket};

/// One queue of one network port, as a worker uses it. No method blocks.
pub trait Port {
    /// Calls `take` with each of up to `max` received packets; returns how many.
    fn receive(&mut self, max: usize, take: impl FnMut(Packet)) -> usize;
    /// Takes packets from the front of `packets`, in order, as many as there is room for; returns
    /// how many.
    fn transmit(&mut self, packets: &mut Vec<Packet>) -> usize;
    /// Takes up to `max` empty frames to receive into from the end of `pool`, as many as there is room for;
    /// returns how many.
    fn fill(&mut self, pool: &mut Vec<Frame>, max: usize) -> usize;
    /// Appends the frames whose transmission is over; returns how many.
    fn reclaim(&mut self, frames: &mut Vec<Frame>) -> usize;
    /// Tells the other side, once per turn.
    fn flush(&mut self);
}

impl Port for Socket {
    #[inline]
    fn receive(&mut self, max: usize, take: impl FnMut(Packet)) -> usize {
        Self::receive(self, max, take)
    }

    fn transmit(&mut self, packets: &mut Vec<Packet>) -> usize {
        Self::transmit(self, packets)
    }

    fn fill(&mut self, pool: &mut Vec<Frame>, max: usize) -> usize {
        Self::fill(self, pool, max)
    }

    fn reclaim(&mut self, frames: &mut Vec<Frame>) -> usize {
        Self::reclaim(self, frames)
    }

    fn flush(&mut self) {
        // A port that is gone shows by its ring, which nobody empties any more.
        let _ = Self::flush(self);
    }
}

/// A port in memory: what a test or a bench delivers is received, what is transmitted is kept.
#[derive(Default)]
pub struct MemoryPort {
    arriving: VecDeque<Packet>,
    empty: Vec<Frame>,
    sent: VecDeque<Packet>,
    /// Frames that it holds for reception at most, like a fill ring.
    capacity: usize,
    /// Packets that it takes for transmission at most before they are collected, like a tx ring.
    room: usize,
}

impl MemoryPort {
    /// A port that holds up to `capacity` frames in each direction.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            arriving: VecDeque::with_capacity(capacity),
            empty: Vec::with_capacity(capacity),
            sent: VecDeque::with_capacity(capacity),
            capacity,
            room: capacity,
        }
    }

    /// Puts a copy of `bytes` on the wire, as if it arrived with the kernel's headroom in front.
    /// Returns `false` if no empty frame is there or the packet does not fit, as a driver would
    /// drop it.
    pub fn deliver(&mut self, bytes: &[u8]) -> bool {
        let Some(mut frame) = self.empty.pop() else { return false };
        let start = bulkhead_xsk::HEADROOM;
        let place = frame.bytes_mut().get_mut(start..start + bytes.len());
        let (Some(place), Ok(len)) = (place, u16::try_from(bytes.len())) else {
            self.empty.push(frame);
            return false;
        };
        place.copy_from_slice(bytes);
        // HEADROOM is a small constant.
        let start = u16::try_from(start).unwrap_or(0);
        self.arriving.push_back(Packet { frame, start, len });
        true
    }

    /// Calls `f` with every transmitted packet, in order, and completes it.
    pub fn collect(&mut self, mut f: impl FnMut(&[u8])) {
        for packet in &self.sent {
            f(packet.data());
        }
        self.room = self.capacity;
    }

    /// Frames that the port holds.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.arriving.len() + self.empty.len() + self.sent.len()
    }
}

impl Port for MemoryPort {
    #[inline]
    fn receive(&mut self, max: usize, take: impl FnMut(Packet)) -> usize {
        let count = self.arriving.len().min(max);
        self.arriving.drain(..count).for_each(take);
        count
    }

    fn transmit(&mut self, packets: &mut Vec<Packet>) -> usize {
        let count = packets.len().min(self.room);
        self.sent.extend(packets.drain(..count));
        self.room -= count;
        count
    }

    fn fill(&mut self, pool: &mut Vec<Frame>, max: usize) -> usize {
        let room = self.capacity - self.empty.len().min(self.capacity);
        let count = pool.len().min(max).min(room);
        self.empty.extend(pool.drain(pool.len() - count..));
        count
    }

    fn reclaim(&mut self, frames: &mut Vec<Frame>) -> usize {
        // Only what was collected may be overwritten.
        if self.room != self.capacity {
            return 0;
        }
        let count = self.sent.len();
        frames.extend(self.sent.drain(..).map(|packet| packet.frame));
        count
    }

    fn flush(&mut self) {}
}
