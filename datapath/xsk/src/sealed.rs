//! A table from another process, as bytes that cannot change.
//!
//! A shared mapping is sound as `&[u8]` only if nobody can write to or shorten the file behind it.
//! The seals of a memfd promise that for good: they cannot be taken off, and the kernel refuses
//! F_SEAL_WRITE while a writable mapping exists (fcntl(2)).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SealFlags;

use crate::mmap::Mapping;

/// A sealed memfd, mapped readable.
#[derive(Debug)]
pub struct SealedMap(Mapping);

impl SealedMap {
    /// Maps all of `fd`. The descriptor may be closed afterwards.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if it is no memfd, is not sealed against writing, growing
    /// and shrinking, or is empty; what fstat(2) and mmap(2) say.
    pub fn new(fd: impl AsFd) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| invalid("not a memfd"))?;
        if !seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK) {
            return Err(invalid("memfd is not sealed against write, grow and shrink"));
        }
        // After the seals were seen, so that the size is final.
        let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(io::Error::other)?;
        if len == 0 {
            return Err(invalid("memfd is empty"));
        }
        Ok(Self(Mapping::read_only(fd.as_fd(), len)?))
    }
}

impl AsRef<[u8]> for SealedMap {
    fn as_ref(&self) -> &[u8] {
        // SAFETY:
        // * mapped and readable for `len` bytes as long as `self.0` lives, which is borrowed;
        // * backed by the file in full length, so no access faults: its size was read after it was
        //   sealed against shrinking;
        // * initialised: a file reads as zeros where nothing was written;
        // * not written meanwhile: sealed against writing, and the mapping is read-only;
        // * at most isize::MAX bytes: mmap made it; alignment of `u8` is 1.
        unsafe { std::slice::from_raw_parts(self.0.base().as_ptr(), self.0.len()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    const ALL: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK);

    fn memfd(content: &[u8], seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("bulkhead-test", flags).unwrap());
        file.write_all(content).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file.into()
    }

    #[test]
    fn a_sealed_memfd_is_its_bytes_also_after_the_descriptor_is_closed() {
        let content = (0..=250).cycle().take(10_000).collect::<Vec<u8>>();
        let map = SealedMap::new(memfd(&content, ALL)).unwrap();
        assert_eq!(map.as_ref(), content);
        let map = SealedMap::new(memfd(b"x", ALL | SealFlags::SEAL)).unwrap();
        assert_eq!(std::thread::spawn(move || map.as_ref().to_vec()).join().unwrap(), b"x");
    }

    #[test]
    fn anything_less_is_refused() {
        for missing in [SealFlags::WRITE, SealFlags::GROW, SealFlags::SHRINK] {
            let mut seals = ALL - missing;
            if missing == SealFlags::WRITE {
                // Only forbids new writers; those that exist may go on.
                seals |= SealFlags::FUTURE_WRITE;
            }
            let error = SealedMap::new(memfd(b"table", seals)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{missing:?}: {error}");
        }
        let empty = SealedMap::new(memfd(b"", ALL)).unwrap_err();
        assert_eq!(empty.to_string(), "memfd is empty");
        let file = SealedMap::new(File::open("/proc/self/exe").unwrap()).unwrap_err();
        assert_eq!(file.to_string(), "not a memfd");
    }
}
