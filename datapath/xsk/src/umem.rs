//! Packet memory, and the one place where a frame becomes a slice.
//!
//! A [`Frame`] is a token: not `Clone`, made only here, and carrying its own address and memory, so
//! a token of one [`Umem`] cannot be spent on another. To hand a frame to the kernel is to give the
//! token away; only a descriptor from the ring that it was given to buys it back.
//!
//! INVARIANT: for every frame, either its holder is 0 and there is at most one token, or its holder
//! is not 0 and there is none. (At most: a token that is dropped is gone.)
//!
//! INVARIANT: every token, and every frame with a holder that is a live ring pair, accounts for one
//! strong reference to the [`Memory`].

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::mmap::Mapping;

/// Bytes of a frame. With the kernel's [`HEADROOM`] it holds an Ethernet frame of up to 1792 bytes.
pub const FRAME_SIZE: usize = 2048;

/// Bytes that the kernel leaves free in front of a received packet (XDP_PACKET_HEADROOM,
/// include/uapi/linux/bpf.h).
pub const HEADROOM: usize = 256;

/// Most frames of one [`Umem`] (2 GiB).
pub const FRAMES_MAX: u32 = 1 << 20;

/// The holder of a frame that a token exists for.
const USER: u16 = 0;

/// The holder of a frame whose socket was dropped.
const ABANDONED: u16 = u16::MAX;

/// Packet memory that any number of sockets share. A clone is another handle to the same memory.
#[derive(Clone, Debug)]
pub struct Umem(Arc<Memory>);

impl Umem {
    /// Maps memory for `frames` frames and issues their tokens, in the order of their indices.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] unless `frames` is from 1 to [`FRAMES_MAX`]; otherwise what
    /// mmap(2) says, usually that there is not enough memory.
    pub fn new(frames: u32) -> io::Result<(Self, Vec<Frame>)> {
        if !(1..=FRAMES_MAX).contains(&frames) {
            let message = format!("{frames} frames; want 1 to {FRAMES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // At most 2^20, so it is a usize, and 2^31 bytes are one too on the 64-bit machines that
        // this is for.
        let count = usize::try_from(frames).map_err(io::Error::other)?;
        let memory = Arc::new(Memory {
            mapping: Mapping::anonymous(count * FRAME_SIZE)?,
            holders: (0..count).map(|_| AtomicU16::new(USER)).collect(),
            next_holder: AtomicU32::new(1),
        });
        let tokens = (0..count).filter_map(|index| memory.frame_at(index)).collect();
        Ok((Self(memory), tokens))
    }

    /// Frames in all.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.0.holders.len()
    }

    /// Frames that are with the kernel now: given to a ring of a live socket and not bought back.
    /// Scans the table; for tests and housekeeping.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.count(|holder| holder != USER && holder != ABANDONED)
    }

    /// Frames that were with the kernel when their socket was dropped. They are not used again.
    /// Scans the table; for tests and housekeeping.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.count(|holder| holder == ABANDONED)
    }

    /// Tells whether the memory still exists, without keeping it.
    #[cfg(test)]
    pub(crate) fn watch(&self) -> impl Fn() -> bool + use<> {
        let memory = Arc::downgrade(&self.0);
        move || memory.strong_count() > 0
    }

    fn count(&self, wanted: impl Fn(u16) -> bool) -> usize {
        self.0.holders.iter().filter(|holder| wanted(holder.load(Ordering::Relaxed))).count()
    }

    /// Address and length for XDP_UMEM_REG.
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.0.mapping.base(), self.0.mapping.len())
    }

    /// Whether both are handles to the same memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A new holder, which nobody else has or will have.
    ///
    /// # Errors
    ///
    /// After 65534 of them: an id that is used again could be mistaken for its predecessor.
    pub(crate) fn new_holder(&self) -> io::Result<Holder> {
        let id = self.0.next_holder.fetch_add(1, Ordering::Relaxed);
        match u16::try_from(id) {
            Ok(id) if id != USER && id != ABANDONED => Ok(Holder(id)),
            Ok(_) | Err(_) => {
                // Far from wrapping around even if somebody tries all day.
                self.0.next_holder.fetch_sub(1, Ordering::Relaxed);
                Err(io::Error::other("this packet memory has had too many sockets"))
            }
        }
    }

    /// Spends a token: the frame is with `holder` from now on. Returns its address for a
    /// descriptor, or the token if it is one of another memory.
    #[inline]
    pub(crate) fn give(&self, frame: Frame, holder: &Holder) -> Result<u64, Frame> {
        let offset = frame.offset();
        match self.0.holders.get(offset / FRAME_SIZE) {
            Some(cell) if Arc::ptr_eq(&self.0, &frame.memory) => {
                // Relaxed: see `take`.
                cell.store(holder.0, Ordering::Relaxed);
                // The reference stays behind for the frame; `take` or `abandon` picks it up.
                let _ = Arc::into_raw(frame.memory);
                // An offset in at most 2^31 bytes.
                Ok(offset as u64)
            }
            Some(_) | None => Err(frame),
        }
    }

    /// Buys the token back that belongs to the frame around `address`, and says how far into the
    /// frame `address` is. `None` if there is no such frame or it is not with `holder`: then
    /// nothing has changed.
    ///
    /// # Safety
    ///
    /// `address` must have been read from the ring through which the other party returns what was
    /// given to `holder`: an invented one would be believed while the kernel still uses the frame.
    #[inline]
    pub(crate) unsafe fn take(&self, address: u64, holder: &mut Holder) -> Option<(Frame, usize)> {
        let offset = usize::try_from(address).ok()?;
        let cell = self.0.holders.get(offset / FRAME_SIZE)?;
        // Relaxed, and no read-modify-write, because only the owner of a `Holder`, which is not
        // `Clone` and borrowed mutably here, changes a cell with this id in it. A cell that last
        // had our id, as far as this thread can see, was not given to another since: for that we
        // must have taken it, and a thread sees its own stores in order (across threads, the move
        // of the socket orders them).
        if cell.load(Ordering::Relaxed) != holder.0 {
            return None;
        }
        cell.store(USER, Ordering::Relaxed);
        // SAFETY:
        // * the pointer came from an `Arc<Memory>` of the same allocation (`self.0`);
        // * there is a strong reference to own: `give` left one when it wrote our id, and the id
        //   has just been replaced, so it is picked up once.
        let memory = unsafe { Arc::from_raw(Arc::as_ptr(&self.0)) };
        let start = memory.frame_start(offset / FRAME_SIZE)?;
        Some((Frame { memory, start }, offset % FRAME_SIZE))
    }

    /// Gives up on what is with `holder`: no token will exist for it again.
    pub(crate) fn abandon(&self, holder: &mut Holder) {
        for cell in &self.0.holders {
            if cell.load(Ordering::Relaxed) == holder.0 {
                cell.store(ABANDONED, Ordering::Relaxed);
                // SAFETY:
                // * the pointer came from an `Arc<Memory>` of the same allocation;
                // * there is a strong reference to drop: `give` left one when it wrote our id, and
                //   the id has just been replaced, so it is dropped once. It is not the last:
                //   `self.0` is another.
                unsafe { Arc::decrement_strong_count(Arc::as_ptr(&self.0)) };
            }
        }
    }

    /// Where `len` bytes at `address` are, if they are inside one frame and that is with `holder`.
    /// For the fake kernel.
    pub(crate) fn place_with(&self, address: u64, len: usize, holder: u16) -> Option<NonNull<u8>> {
        let offset = usize::try_from(address).ok()?;
        let cell = self.0.holders.get(offset / FRAME_SIZE)?;
        let inside = (offset % FRAME_SIZE).checked_add(len)? <= FRAME_SIZE;
        (inside && cell.load(Ordering::Relaxed) == holder)
            .then(|| NonNull::new(self.0.mapping.base().as_ptr().wrapping_add(offset)))?
    }
}

/// Exclusive ownership of [`FRAME_SIZE`] bytes of a [`Umem`].
///
/// A token that is dropped takes its frame out of use for good; hand it back to a pool instead.
pub struct Frame {
    memory: Arc<Memory>,
    start: NonNull<u8>,
}

// SAFETY: the token is the only way to the bytes (first invariant above), whichever thread has it.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` gives only `&[u8]`.
unsafe impl Sync for Frame {}

impl Frame {
    /// Which frame of its memory this is, from 0.
    #[inline]
    #[must_use]
    pub fn index(&self) -> u32 {
        // At most FRAMES_MAX - 1, so nothing is cut off.
        u32::try_from(self.offset() / FRAME_SIZE).unwrap_or(u32::MAX)
    }

    /// The bytes of the frame.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8; FRAME_SIZE] {
        // SAFETY:
        // * in bounds and mapped: `start` came from `frame_start`, and `self.memory` keeps the
        //   mapping;
        // * initialised: anonymous memory starts as zeros;
        // * aligned: `[u8; N]` has alignment 1;
        // * not written meanwhile: this token is the only one, it is borrowed, and the kernel
        //   writes only to frames that were given to it.
        unsafe { self.start.cast().as_ref() }
    }

    /// The bytes of the frame, to change them.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8; FRAME_SIZE] {
        // SAFETY: as in `bytes`; and exclusive, because the only token is borrowed mutably.
        unsafe { self.start.cast().as_mut() }
    }

    /// How far into the memory the frame begins.
    #[inline]
    fn offset(&self) -> usize {
        self.start.addr().get() - self.memory.mapping.base().addr().get()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({})", self.index())
    }
}

/// A frame and the part of it that is an Ethernet frame. The fields may say anything; what is not
/// inside the frame reads as empty and is not sent.
#[derive(Debug)]
pub struct Packet {
    /// The memory.
    pub frame: Frame,
    /// Where the Ethernet header begins, in bytes from the start of the frame.
    pub start: u16,
    /// Bytes from there, without the frame check sequence.
    pub len: u16,
}

impl Packet {
    /// The bytes; empty if `start` and `len` do not lie inside the frame.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let start = usize::from(self.start);
        self.frame.bytes().get(start..start + usize::from(self.len)).unwrap_or(&[])
    }

    /// The bytes, to change them; empty if `start` and `len` do not lie inside the frame.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let start = usize::from(self.start);
        let end = start + usize::from(self.len);
        self.frame.bytes_mut().get_mut(start..end).unwrap_or(&mut [])
    }
}

/// The right to hold frames: one for each direction of a socket. Not `Clone`.
#[derive(Debug)]
pub(crate) struct Holder(u16);

impl Holder {
    /// The id in the table.
    pub(crate) fn id(&self) -> u16 {
        self.0
    }
}

#[derive(Debug)]
struct Memory {
    mapping: Mapping,
    /// One for each frame: [`USER`], [`ABANDONED`], or the id of a [`Holder`].
    holders: Box<[AtomicU16]>,
    next_holder: AtomicU32,
}

impl Memory {
    /// A token. Private to this module, which upholds that there is no other.
    fn frame_at(self: &Arc<Self>, index: usize) -> Option<Frame> {
        let start = self.frame_start(index)?;
        Some(Frame { memory: Arc::clone(self), start })
    }

    #[inline]
    fn frame_start(&self, index: usize) -> Option<NonNull<u8>> {
        if index >= self.holders.len() {
            return None;
        }
        NonNull::new(self.mapping.base().as_ptr().wrapping_add(index * FRAME_SIZE))
    }
}
