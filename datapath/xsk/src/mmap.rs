//! Mappings with a lifetime. A [`Mapping`] owns its address range and nothing of what it means: who
//! may touch the bytes, and how, is said by the types that wrap it.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// An address range that is mapped until it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range belongs to the process, not to a thread; `Mapping` itself never reads or
// writes it.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods on `&self` only report the range.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed private memory, present from the start. It is left out of core dumps, because it
    /// holds other people's packets, and out of child processes, because the kernel's pins follow
    /// the parent only.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: no address is asked for (null, no FIXED), so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap_anonymous(null_mut(), len, protection, flags | MapFlags::POPULATE)
        }?;
        let mapping = Self::own(base.cast(), len)?;
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is the whole of a mapping made above, and neither advice changes
            // what this process sees in it.
            unsafe { rustix::mm::madvise(base, len, advice) }?;
        }
        Ok(mapping)
    }

    /// `len` bytes of `fd` from `offset`, shared, readable and writable.
    pub(crate) fn shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: no address is asked for (null, no FIXED), so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap(null_mut(), len, protection, flags | MapFlags::POPULATE, fd, offset)
        }?;
        Self::own(base.cast(), len)
    }

    /// The first `len` bytes of `fd`, shared, readable only.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: no address is asked for (null, no FIXED), so no existing mapping is replaced.
        let base = unsafe { rustix::mm::mmap(null_mut(), len, ProtFlags::READ, flags, fd, 0) }?;
        Self::own(base.cast(), len)
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn own(base: *mut u8, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was returned by mmap with this length, is unmapped once (`drop` runs
        // once, there is no `Clone`), and every reference into it borrows from a type that owns
        // this `Mapping`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

/// Memory shared with another party that writes when it likes. It is touched by atomics only, so a
/// value may be nonsense but never a data race.
#[derive(Debug)]
pub(crate) struct RingMemory(Mapping);

impl RingMemory {
    /// Takes a readable and writable mapping over.
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self(mapping)
    }

    /// The 32-bit word at byte `offset`; `None` if it is not inside or not aligned.
    pub(crate) fn word(&self, offset: u64) -> Option<NonNull<AtomicU32>> {
        self.inside(offset, 1, size_of::<AtomicU32>()).map(NonNull::cast)
    }

    /// The `count` 64-bit words from byte `offset`; `None` if they are not inside or not aligned.
    pub(crate) fn words(&self, offset: u64, count: usize) -> Option<NonNull<[AtomicU64]>> {
        let first = self.inside(offset, count, size_of::<AtomicU64>())?;
        Some(NonNull::slice_from_raw_parts(first.cast(), count))
    }

    /// The address of `count` items of `size` bytes from `offset`, which is aligned to `size`
    /// because mappings are aligned to pages.
    fn inside(&self, offset: u64, count: usize, size: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = count.checked_mul(size)?.checked_add(offset)?;
        if offset.checked_rem(size)? != 0 || end > self.0.len() {
            return None;
        }
        NonNull::new(self.0.base().as_ptr().wrapping_add(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_or_unaligned_has_an_address() {
        let memory = RingMemory::new(Mapping::anonymous(4096).unwrap());
        assert!(memory.word(0).is_some() && memory.word(4092).is_some());
        assert!(memory.words(0, 512).is_some() && memory.words(4088, 1).is_some());
        for offset in [2, 4093, 4096, u64::MAX, u64::MAX - 3] {
            assert_eq!(memory.word(offset), None, "{offset}");
        }
        for (offset, count) in
            [(4, 1), (0, 513), (8, 512), (4096, 1), (8, usize::MAX), (0, 1 << 61)]
        {
            assert_eq!(memory.words(offset, count), None, "{offset} {count}");
        }
    }

    #[test]
    fn anonymous_memory_is_not_inherited_and_not_dumped() {
        let mapping = Mapping::anonymous(8192).unwrap();
        let at = mapping.base().as_ptr().addr();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some(hex(start)?..hex(end)?)
        };
        // It may have been merged with a neighbour that has the same flags.
        let ours = |line: &&str| range(line).is_some_and(|range| range.contains(&at));
        let flags = smaps.lines().skip_while(|line| !ours(line)).find(|l| l.starts_with("VmFlags"));
        let flags = flags.unwrap();
        assert!(flags.contains(" dc") && flags.contains(" dd"), "{flags}");
    }
}
