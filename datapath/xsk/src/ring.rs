//! One ring, two roles. The kernel takes the other role; in tests our own fake does.
//!
//! ```text
//!   producer index ─┐            descriptors[index & (entries - 1)]
//!   ... free │ published │ free ...
//!            └─ consumer index           indices only grow, and wrap at 2^32
//! ```
//!
//! Either side writes its own index and reads the other's. What the other side writes is not
//! trusted: an index that claims more than the ring holds is [`Nonsense`] and moves nothing. A
//! descriptor is only a pair of numbers here; what it may buy is decided in umem.rs.
//!
//! Layout and memory order: net/xdp/xsk_queue.h in the kernel.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mmap::RingMemory;

/// The other side's index is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense;

/// `struct xdp_desc`, or an address alone in the fill and completion rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

/// Whether a ring's descriptors have a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `u64`: fill and completion.
    Address,
    /// `struct xdp_desc`: rx and tx.
    Packet,
}

impl Shape {
    /// 64-bit words of a descriptor.
    pub(crate) const fn words(self) -> usize {
        match self {
            Self::Address => 1,
            Self::Packet => 2,
        }
    }
}

/// Where the parts of a ring are in its memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets {
    pub(crate) producer: u64,
    pub(crate) consumer: u64,
    pub(crate) flags: u64,
    pub(crate) descriptors: u64,
}

/// The end that puts descriptors in: ours of fill and tx.
#[derive(Debug)]
pub(crate) struct Producer(End);

impl Producer {
    pub(crate) fn new(ring: Ring) -> Self {
        Self(End { ring, ours: 0, theirs: 0 })
    }

    /// How many descriptors fit, at most `want`. Looks at the other side's index only if the last
    /// look does not suffice.
    #[inline]
    pub(crate) fn room(&mut self, want: usize) -> Result<usize, Nonsense> {
        let want = u32::try_from(want).unwrap_or(u32::MAX).min(self.0.ring.entries);
        let free = |end: &End| end.ring.entries.saturating_sub(end.ours.wrapping_sub(end.theirs));
        if free(&self.0) < want {
            // Acquire: the other side has read the descriptors before we overwrite them.
            let theirs = self.0.ring.consumer().load(Ordering::Acquire);
            if self.0.ours.wrapping_sub(theirs) > self.0.ring.entries {
                return Err(Nonsense);
            }
            self.0.theirs = theirs;
        }
        Ok(free(&self.0).min(want) as usize)
    }

    /// Writes the next descriptor. There must be [`Self::room`]; the other side sees it after
    /// [`Self::publish`].
    #[inline]
    pub(crate) fn push(&mut self, descriptor: Descriptor) {
        debug_assert!(self.0.ours.wrapping_sub(self.0.theirs) < self.0.ring.entries);
        self.0.ring.write(self.0.ours, descriptor);
        self.0.ours = self.0.ours.wrapping_add(1);
    }

    /// Moves the index without writing descriptors: the fake's way to lie.
    pub(crate) fn skip(&mut self, count: u32) {
        self.0.ours = self.0.ours.wrapping_add(count);
    }

    /// Shows the other side what was pushed.
    #[inline]
    pub(crate) fn publish(&self) {
        // Release: the descriptors, and the bytes that they name, are written before.
        self.0.ring.producer().store(self.0.ours, Ordering::Release);
    }

    /// Descriptors that the other side has not taken yet. If its index is nonsense, all.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        let theirs = self.0.ring.consumer().load(Ordering::Relaxed);
        self.0.ours.wrapping_sub(theirs).min(self.0.ring.entries)
    }

    /// Whether the kernel asks to be told (XDP_RING_NEED_WAKEUP).
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.0.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The end that takes descriptors out: ours of rx and completion.
#[derive(Debug)]
pub(crate) struct Consumer(End);

impl Consumer {
    pub(crate) fn new(ring: Ring) -> Self {
        Self(End { ring, ours: 0, theirs: 0 })
    }

    /// How many descriptors are there, at most `max`. Looks at the other side's index only if
    /// nothing is left from the last look.
    #[inline]
    pub(crate) fn available(&mut self, max: usize) -> Result<usize, Nonsense> {
        if self.0.theirs == self.0.ours {
            // Acquire: we read what the other side wrote before it published.
            let theirs = self.0.ring.producer().load(Ordering::Acquire);
            if theirs.wrapping_sub(self.0.ours) > self.0.ring.entries {
                return Err(Nonsense);
            }
            self.0.theirs = theirs;
        }
        Ok(max.min(self.0.theirs.wrapping_sub(self.0.ours) as usize))
    }

    /// Reads the next descriptor, which must be [`Self::available`].
    #[inline]
    pub(crate) fn pop(&mut self) -> Descriptor {
        debug_assert_ne!(self.0.theirs, self.0.ours);
        let descriptor = self.0.ring.read(self.0.ours);
        self.0.ours = self.0.ours.wrapping_add(1);
        descriptor
    }

    /// Gives the places of what was popped back to the other side.
    #[inline]
    pub(crate) fn release(&self) {
        // Release: we have read the descriptors before.
        self.0.ring.consumer().store(self.0.ours, Ordering::Release);
    }
}

#[derive(Debug)]
struct End {
    ring: Ring,
    /// Our index.
    ours: u32,
    /// The other side's index when we last looked; never more than `entries` away from ours.
    theirs: u32,
}

/// The parts of a ring, found and checked once.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    descriptors: NonNull<[AtomicU64]>,
    entries: u32,
    shape: Shape,
    /// Keeps the pointers good. Never read.
    _memory: Arc<RingMemory>,
}

// SAFETY: the pointers are to atomics, which any thread may use, in memory that any thread may
// reach and that the `Arc` keeps mapped.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// The ring at `offsets` of `memory`. `None` unless `entries` is a power of two and everything
    /// is inside the memory and aligned.
    pub(crate) fn new(
        memory: &Arc<RingMemory>,
        offsets: Offsets,
        entries: u32,
        shape: Shape,
    ) -> Option<Self> {
        if !entries.is_power_of_two() {
            return None;
        }
        let words = usize::try_from(entries).ok()?.checked_mul(shape.words())?;
        Some(Self {
            producer: memory.word(offsets.producer)?,
            consumer: memory.word(offsets.consumer)?,
            flags: memory.word(offsets.flags)?,
            descriptors: memory.words(offsets.descriptors, words)?,
            entries,
            shape,
            _memory: Arc::clone(memory),
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned and inside memory that `_memory` keeps mapped and initialised (zeroed by
        // the kernel), as `RingMemory::word` checked; shared with others through atomics only.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn descriptors(&self) -> &[AtomicU64] {
        // SAFETY: as in `producer`, for all words of the slice, as `RingMemory::words` checked.
        unsafe { self.descriptors.as_ref() }
    }

    /// The words of the descriptor at `index`, masked.
    #[inline]
    fn place(&self, index: u32) -> &[AtomicU64] {
        let first = (index & (self.entries - 1)) as usize * self.shape.words();
        // Always there, by the mask; the empty slice is for the compiler.
        self.descriptors().get(first..first + self.shape.words()).unwrap_or(&[])
    }

    #[inline]
    fn write(&self, index: u32, descriptor: Descriptor) {
        let rest = u64::from(descriptor.len) | u64::from(descriptor.options) << 32;
        for (word, value) in self.place(index).iter().zip([descriptor.address, rest]) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn read(&self, index: u32) -> Descriptor {
        let mut values = [0; 2];
        for (word, value) in self.place(index).iter().zip(&mut values) {
            *value = word.load(Ordering::Relaxed);
        }
        let [address, rest] = values;
        // The halves of the second word.
        let len = u32::try_from(rest & u64::from(u32::MAX)).unwrap_or(0);
        let options = u32::try_from(rest >> 32).unwrap_or(0);
        Descriptor { address, len, options }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::mmap::Mapping;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, descriptors: 192 };

    fn ring(entries: u32, shape: Shape) -> Ring {
        let memory = Arc::new(RingMemory::new(Mapping::anonymous(4096).unwrap()));
        Ring::new(&memory, OFFSETS, entries, shape).unwrap()
    }

    /// Both ends, as if the ring had already been used `at` times.
    fn ends(entries: u32, shape: Shape, at: u32) -> (Producer, Consumer) {
        let ring = ring(entries, shape);
        ring.producer().store(at, Ordering::Relaxed);
        ring.consumer().store(at, Ordering::Relaxed);
        let end = || End { ring: ring.clone(), ours: at, theirs: at };
        (Producer(end()), Consumer(end()))
    }

    #[test]
    fn a_ring_that_does_not_fit_is_refused() {
        let memory = Arc::new(RingMemory::new(Mapping::anonymous(4096).unwrap()));
        let new = |offsets, entries, shape| Ring::new(&memory, offsets, entries, shape).is_some();
        assert!(new(OFFSETS, 128, Shape::Packet));
        assert!(!new(OFFSETS, 256, Shape::Packet), "4096 bytes of descriptors after 192");
        assert!(new(OFFSETS, 256, Shape::Address));
        assert!(!new(OFFSETS, 0, Shape::Address) && !new(OFFSETS, 48, Shape::Address));
        assert!(!new(Offsets { producer: 2, ..OFFSETS }, 4, Shape::Packet));
        assert!(!new(Offsets { consumer: 4096, ..OFFSETS }, 4, Shape::Packet));
        assert!(!new(Offsets { flags: u64::MAX, ..OFFSETS }, 4, Shape::Packet));
        assert!(!new(Offsets { descriptors: 4, ..OFFSETS }, 4, Shape::Packet));
    }

    #[test]
    fn impossible_indices_are_nonsense_and_move_nothing() {
        for lie in [9, 1 << 20, u32::MAX] {
            let (mut producer, mut consumer) = ends(8, Shape::Packet, 0);
            producer.0.ring.producer().store(lie, Ordering::Relaxed);
            assert_eq!(consumer.available(64), Err(Nonsense), "{lie}");
            producer.0.ring.producer().store(1, Ordering::Relaxed);
            assert_eq!(consumer.available(64), Ok(1), "recovers once the index makes sense");

            for _ in 0..producer.room(8).unwrap() {
                producer.push(Descriptor::default());
            }
            producer.0.ring.consumer().store(lie, Ordering::Relaxed);
            assert_eq!(producer.room(1), Err(Nonsense), "{lie}");
            assert!(producer.pending() <= 8);
        }
    }

    #[test]
    fn the_kernel_asks_for_a_wakeup_by_bit_0() {
        let (producer, _) = ends(4, Shape::Packet, 0);
        for (flags, asks) in [(0, false), (1, true), (2, false), (3, true)] {
            producer.0.ring.flags().store(flags, Ordering::Relaxed);
            assert_eq!(producer.needs_wakeup(), asks, "{flags}");
        }
    }

    #[test]
    fn two_threads_pass_descriptors_in_order() {
        const COUNT: u64 = 100_000;
        let (mut producer, mut consumer) = ends(64, Shape::Packet, u32::MAX - 1000);
        let sender = std::thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                let room = producer.room(16).unwrap() as u64;
                for _ in 0..room.min(COUNT - next) {
                    let half = u32::try_from(next).unwrap();
                    producer.push(Descriptor { address: next, len: half, options: !half });
                    next += 1;
                }
                producer.publish();
                std::thread::yield_now();
            }
        });
        let mut want = 0;
        while want < COUNT {
            for _ in 0..consumer.available(32).unwrap() {
                let half = u32::try_from(want).unwrap();
                let expected = Descriptor { address: want, len: half, options: !half };
                assert_eq!(consumer.pop(), expected);
                want += 1;
            }
            consumer.release();
            std::thread::yield_now();
        }
        sender.join().unwrap();
    }

    proptest! {
        /// Whatever the ends do, and wherever the indices wrap, it is a bounded queue.
        #[test]
        fn a_ring_is_a_bounded_queue(
            log2 in 0_u32..6,
            packet in any::<bool>(),
            before_wrap in 0_u32..100,
            steps in proptest::collection::vec((any::<bool>(), 0_usize..40), 1..200),
        ) {
            let entries = 1 << log2;
            let shape = if packet { Shape::Packet } else { Shape::Address };
            let (mut producer, mut consumer) = ends(entries, shape, 0_u32.wrapping_sub(before_wrap));
            let (mut model, mut next) = (VecDeque::new(), 0_u32);
            for (produce, count) in steps {
                if produce {
                    let free = entries as usize - model.len();
                    let room = producer.room(count).unwrap();
                    prop_assert_eq!(room, count.min(free));
                    for _ in 0..room {
                        let (len, options) = if packet { (next * 3, next * 5) } else { (0, 0) };
                        let descriptor = Descriptor { address: u64::from(next) << 20, len, options };
                        producer.push(descriptor);
                        model.push_back(descriptor);
                        next += 1;
                    }
                    producer.publish();
                } else {
                    // Leftovers of an earlier look come first, so it may be fewer than there are,
                    // but never none while there are some.
                    let available = consumer.available(count).unwrap();
                    prop_assert!(available <= count.min(model.len()));
                    prop_assert_eq!(available == 0, count == 0 || model.is_empty());
                    for _ in 0..available {
                        prop_assert_eq!(Some(consumer.pop()), model.pop_front());
                    }
                    consumer.release();
                }
                prop_assert_eq!(producer.pending() as usize, model.len());
            }
        }
    }
}
