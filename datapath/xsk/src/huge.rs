//! Large tables in pages of 2 MiB.
//!
//! A table that is hit at random has each of its lines on another page. With pages of 4 KiB a lookup then
//! waits for the page's translation as well as for the line, because a core knows a few thousand
//! translations at most.
//!
//! Such pages are a wish: where they are switched off, or none is free, everything is the same and slower.

use std::fmt;
use std::mem::MaybeUninit;
use std::slice;

use rustix::mm::Advice;

/// The smallest page of x86-64, bytes: what advice must be aligned to.
const PAGE: usize = 4_096;

/// Bytes of a large page, which stands at a multiple of them.
const LARGE_LEN: usize = 2 << 20;

/// Room of the size of a large page, and where one may stand.
#[repr(align(0x20_0000))]
#[expect(dead_code, reason = "its size is what is wanted of it")]
struct Large([u8; LARGE_LEN]);

const _: () = assert!(align_of::<Large>() == LARGE_LEN && size_of::<Large>() == LARGE_LEN);

/// A copy of some bytes that begins where a large page does.
///
/// INVARIANT: the first `len` bytes of `room` are initialised.
pub struct Bytes {
    room: Box<[MaybeUninit<Large>]>,
    len: usize,
}

impl Bytes {
    /// Copies `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut room = Box::new_uninit_slice(bytes.len().div_ceil(LARGE_LEN));
        advise(&mut room);
        let to = room.as_mut_ptr().cast::<u8>();
        // SAFETY: the room has at least as many bytes, and is nobody else's; `u8` needs no alignment.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Self { room, len: bytes.len() }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: inside the room, initialised by the invariant, and borrowed with `self`, which
        // nothing changes once it is made.
        unsafe { slice::from_raw_parts(self.room.as_ptr().cast(), self.len) }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len)
    }
}

/// A table of `len` times `value`, for which the kernel is asked to use pages of 2 MiB.
#[must_use]
pub fn table<T: Clone>(len: usize, value: T) -> Box<[T]> {
    let mut room = Vec::with_capacity(len);
    // Before it is touched: what a page is made of is decided then.
    advise(room.spare_capacity_mut());
    room.resize(len, value);
    room.into_boxed_slice()
}

fn advise<T>(room: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(room);
    let start = room.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(PAGE);
    let len = bytes.saturating_sub(skip) / PAGE * PAGE;
    if len > 0 {
        // SAFETY: `len > 0`, so `skip` is less than the bytes of the slice.
        let first = unsafe { start.add(skip) };
        // SAFETY: the range is inside the slice, which we borrow alone, and the advice changes neither
        // what is there nor who may touch it.
        let _ = unsafe { rustix::mm::madvise(first.cast(), len, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of the mapping around an address (proc(5), VmFlags).
    fn flags_at(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let bounds = range.and_then(|(from, to)| {
                let hex = |text| usize::from_str_radix(text, 16).ok();
                Some(hex(from)?..hex(to)?)
            });
            inside = bounds.map_or(inside, |bounds| bounds.contains(&address));
            if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
                return flags.to_owned();
            }
        }
        panic!("no mapping around {address:x}");
    }

    #[test]
    fn a_large_table_may_have_huge_pages_and_is_filled() {
        let table = table(1 << 20, 7_u64);
        assert_eq!((table.len(), table.iter().all(|word| *word == 7)), (1 << 20, true));
        let middle = std::ptr::from_ref(&table[1 << 19]) as usize;
        let flags = flags_at(middle);
        assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
    }

    #[test]
    fn copied_bytes_begin_with_a_large_page_and_may_have_some() {
        for len in [0, 1, PAGE, LARGE_LEN - 1, LARGE_LEN, LARGE_LEN + 1, 5_000_000] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let copy = Bytes::copy_of(&bytes);
            assert!(copy.as_ref() == bytes, "{len} bytes are the same");
            let start = copy.as_ref().as_ptr() as usize;
            assert_eq!(start % LARGE_LEN, 0, "{len} bytes");
            if len > 0 {
                let flags = flags_at(start + len - 1);
                assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{len} bytes: {flags}");
            }
        }
    }

    #[test]
    fn small_and_empty_tables_are_tables_too() {
        for len in [0, 1, 511, 513] {
            assert_eq!(*table(len, 3_u64), vec![3; len]);
        }
    }
}
