//! Large tables in pages of 2 MiB.
//!
//! A table that is hit at random has each of its lines on another page. With pages of 4 KiB a lookup then
//! waits for the page's translation as well as for the line, because a core knows a few thousand
//! translations at most.

use std::mem::MaybeUninit;

use rustix::mm::Advice;

/// The smallest page of x86-64, bytes: what advice must be aligned to.
const PAGE: usize = 4_096;

/// A table of `len` times `value`, for which the kernel is asked to use pages of 2 MiB. It is a wish: where
/// they are switched off, or none is free, the table is the same and slower.
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
    fn small_and_empty_tables_are_tables_too() {
        for len in [0, 1, 511, 513] {
            assert_eq!(*table(len, 3_u64), vec![3; len]);
        }
    }
}
