//! bpf(2): maps, programs, links, trial runs. Only what steering needs.
//!
//! Each `attr` struct is the prefix of `union bpf_attr` (include/uapi/linux/bpf.h) that its command
//! reads. They have no padding, so every byte that the kernel sees was written by us.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes for the verifier's account of a refusal.
const LOG_SIZE: usize = 64 << 10;

/// A BPF map whose keys have `KEY` bytes and whose values are `u32`.
#[derive(Debug)]
pub(crate) struct Map<const KEY: usize>(OwnedFd);

/// What a map is for.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum MapKind {
    /// BPF_MAP_TYPE_HASH.
    Hash = 1,
    /// BPF_MAP_TYPE_XSKMAP.
    Xsk = 17,
}

impl<const KEY: usize> Map<KEY> {
    /// An empty map for up to `entries` entries.
    pub(crate) fn new(kind: MapKind, entries: u32, name: &CStr) -> io::Result<Self> {
        let mut attr = MapCreate {
            map_type: kind as u32,
            key_size: const { small(KEY) },
            value_size: const { small(size_of::<u32>()) },
            max_entries: entries,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            name: object_name(name),
        };
        // SAFETY: BPF_MAP_CREATE reads no memory but `attr`, and returns a new descriptor.
        Ok(Self(unsafe { create(Command::MapCreate, &mut attr) }?))
    }

    /// Sets the value at `key`.
    pub(crate) fn set(&self, key: &[u8; KEY], value: u32) -> io::Result<()> {
        let mut attr = self.element(key, Some(&value));
        // SAFETY: BPF_MAP_UPDATE_ELEM reads KEY bytes at `key` and 4 at `value`, the sizes that the
        // map was made with; both outlive the call.
        unsafe { bpf(Command::MapUpdate, &mut attr) }.map(drop)
    }

    /// Removes `key`. ENOENT if it is not there.
    pub(crate) fn remove(&self, key: &[u8; KEY]) -> io::Result<()> {
        let mut attr = self.element(key, None);
        // SAFETY: BPF_MAP_DELETE_ELEM reads KEY bytes at `key`, the size that the map was made
        // with; it outlives the call.
        unsafe { bpf(Command::MapDelete, &mut attr) }.map(drop)
    }

    fn element(&self, key: &[u8; KEY], value: Option<&u32>) -> MapElement {
        MapElement {
            map_fd: number(self.as_fd()),
            _unused: 0,
            key: address(key.as_ptr()),
            value: value.map_or(0, |value| address(value)),
            flags: 0,
        }
    }
}

impl<const KEY: usize> AsFd for Map<KEY> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An XDP program in the kernel.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Has `instructions` verified and loaded. They refer to maps by descriptor; the program keeps
    /// the maps.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the verifier's account if it has one.
    pub(crate) fn load(instructions: &[u64], name: &CStr) -> io::Result<Self> {
        let attempt = |log: &mut [u8]| {
            let mut attr = ProgramLoad {
                prog_type: 6, // BPF_PROG_TYPE_XDP
                insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
                insns: address(instructions.as_ptr()),
                license: address(c"Apache-2.0".as_ptr()),
                log_level: u32::from(!log.is_empty()),
                log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
                log_buf: if log.is_empty() { 0 } else { address(log.as_mut_ptr()) },
                kern_version: 0,
                prog_flags: 0,
                name: object_name(name),
                ifindex: 0,
                expected_attach_type: BPF_XDP,
            };
            // SAFETY: BPF_PROG_LOAD reads `insn_cnt` instructions at `insns` and the string at
            // `license`, and writes up to `log_size` bytes at `log_buf`; all outlive the call, and
            // the log is borrowed mutably. It returns a new descriptor.
            unsafe { create(Command::ProgramLoad, &mut attr) }
        };
        // The log costs time and can itself fail (ENOSPC), so it is asked for on a refusal only.
        attempt(&mut []).map(Self).map_err(|refusal| {
            let mut log = vec![0; LOG_SIZE];
            let _ = attempt(&mut log);
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let account = String::from_utf8_lossy(log.get(..end).unwrap_or(&[])).into_owned();
            io::Error::new(refusal.kind(), format!("BPF program: {refusal}; {}", account.trim()))
        })
    }

    /// Attaches to `ifindex`, until the returned descriptor is closed.
    pub(crate) fn attach(&self, ifindex: u32, driver: DriverMode) -> io::Result<OwnedFd> {
        let mut attr = LinkCreate {
            prog_fd: number(self.0.as_fd()),
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: driver as u32,
        };
        // SAFETY: BPF_LINK_CREATE for XDP reads no memory but `attr`, and returns a new descriptor.
        unsafe { create(Command::LinkCreate, &mut attr) }
    }

    /// What the program returns for `frame`, which must have at least 14 bytes (EINVAL). Nothing is
    /// sent anywhere.
    pub(crate) fn run(&self, frame: &[u8]) -> io::Result<u32> {
        let mut attr = TestRun {
            prog_fd: number(self.0.as_fd()),
            retval: 0,
            data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
            data_size_out: 0,
            data_in: address(frame.as_ptr()),
            data_out: 0,
            repeat: 1,
            duration: 0,
        };
        // SAFETY: BPF_PROG_TEST_RUN reads `data_size_in` bytes at `data_in`, which outlive the
        // call; there is no output buffer, so it writes only to `attr`.
        unsafe { bpf(Command::TestRun, &mut attr) }?;
        Ok(attr.retval)
    }
}

/// Where an XDP program runs: XDP_FLAGS_* of include/uapi/linux/if_link.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum DriverMode {
    /// In the kernel's stack, for any device.
    Generic = 1 << 1,
    /// In the driver.
    Native = 1 << 2,
}

/// BPF_XDP of `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;

/// `enum bpf_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    MapUpdate = 2,
    MapDelete = 3,
    ProgramLoad = 5,
    TestRun = 10,
    LinkCreate = 28,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    map_fd: u32,
    _unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

// No padding: the sizes are the sums of the fields.
const _: () = assert!(size_of::<MapCreate>() == 7 * 4 + 16);
const _: () = assert!(size_of::<MapElement>() == 2 * 4 + 3 * 8);
const _: () = assert!(size_of::<ProgramLoad>() == 2 * 4 + 2 * 8 + 2 * 4 + 8 + 2 * 4 + 16 + 2 * 4);
const _: () = assert!(size_of::<LinkCreate>() == 4 * 4);
const _: () = assert!(size_of::<TestRun>() == 4 * 4 + 2 * 8 + 2 * 4);

/// Runs a command that makes a descriptor, and owns that.
///
/// # Safety
///
/// As [`bpf`]; and the command must return a new descriptor.
unsafe fn create<T>(command: Command, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: new, by the contract of this function, so open and owned by nobody else; not -1,
    // which `bpf` makes an error.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
///
/// `T` must be the prefix of `union bpf_attr` that `command` reads, without padding, and what it
/// points to must be readable or writable as the command wants.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    let (attr, size): (*mut T, _) = (attr, size_of::<T>());
    // SAFETY: `attr` is readable and writable for `size` bytes; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, attr, size) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A pointer as the kernel wants it in an `attr`.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// A descriptor as the kernel wants it in an `attr` or an instruction.
pub(crate) fn number(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// Up to 15 bytes of `name`, and zeros.
fn object_name(name: &CStr) -> [u8; 16] {
    let mut out = [0; 16];
    for (place, byte) in out.iter_mut().take(15).zip(name.to_bytes()) {
        *place = *byte;
    }
    out
}

const fn small(size: usize) -> u32 {
    assert!(size <= 64);
    #[expect(clippy::cast_possible_truncation, reason = "at most 64, and `try_from` is not const")]
    let size = size as u32;
    size
}
