//! What a network interface is, as the kernel says: index, MAC, MTU, queues.
//!
//! Asked by ioctl(2) on a socket, so the answer is about the network namespace of the calling
//! thread; sysfs shows the one in which it was mounted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A network interface at the moment it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// Its index in the network namespace.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Queues that frames arrive on; a socket is needed for each.
    pub rx_queues: u32,
    /// Queues that frames leave by.
    pub tx_queues: u32,
}

impl Interface {
    /// Asks about the interface called `name`.
    ///
    /// # Errors
    ///
    /// ENODEV if there is none; [`io::ErrorKind::InvalidInput`] if the name cannot be one (empty, over
    /// 15 bytes, NUL), or the interface is not Ethernet. The message has the name.
    pub fn by_name(name: &str) -> io::Result<Self> {
        Self::ask(name).map_err(|error| {
            io::Error::new(error.kind(), format!("network interface {name:?}: {error}"))
        })
    }

    fn ask(name: &str) -> io::Result<Self> {
        let kind = SocketType::DGRAM;
        let fd = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
        let index = get(&fd, name, libc::SIOCGIFINDEX)?;
        // SAFETY: SIOCGIFINDEX answers in this field, and all bytes of the union are initialised.
        let index = unsafe { index.ifr_ifru.ifru_ifindex };
        let mtu = get(&fd, name, libc::SIOCGIFMTU)?;
        // SAFETY: SIOCGIFMTU answers in this field, and all bytes of the union are initialised.
        let mtu = unsafe { mtu.ifr_ifru.ifru_mtu };
        let hardware = get(&fd, name, libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR answers in this field, and all bytes of the union are initialised.
        let hardware = unsafe { hardware.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(invalid("not Ethernet"));
        }
        let mut mac = [0; 6];
        for (byte, from) in mac.iter_mut().zip(hardware.sa_data) {
            // A `char`, which is signed on some machines and not on others.
            *byte = u8::from_ne_bytes(from.to_ne_bytes());
        }
        let channels = channels(&fd, name)?;
        Ok(Self {
            name: name.to_owned(),
            index: u32::try_from(index).map_err(io::Error::other)?,
            mac,
            mtu: u32::try_from(mtu).map_err(io::Error::other)?,
            rx_queues: channels.rx_count.saturating_add(channels.combined_count),
            tx_queues: channels.tx_count.saturating_add(channels.combined_count),
        })
    }
}

/// `struct ethtool_channels` of include/uapi/linux/ethtool.h.
#[derive(Default)]
#[repr(C)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// ETHTOOL_GCHANNELS of include/uapi/linux/ethtool.h.
const GET_CHANNELS: u32 = 0x3c;

/// How many queues there are. A driver that does not say has one.
fn channels(fd: &OwnedFd, name: &str) -> io::Result<Channels> {
    let mut channels = Channels { cmd: GET_CHANNELS, ..Channels::default() };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: SIOCETHTOOL with ETHTOOL_GCHANNELS reads `request`, whose name ends in NUL, and reads
    // and writes one `struct ethtool_channels` at `ifru_data`, which is `channels`: both are live
    // and borrowed by nothing else.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer >= 0 {
        return Ok(channels);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Ok(Channels { combined_count: 1, ..Channels::default() }),
        Some(_) | None => Err(error),
    }
}

/// One of the SIOCGIF requests, which answer in place.
fn get(fd: &OwnedFd, name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let mut request = request(name)?;
    // SAFETY: the SIOCGIF requests read and write one `struct ifreq`, whose name ends in NUL;
    // `request` is live and borrowed by nothing else.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
}

/// A request about `name`, zeros otherwise.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a C struct of integers, arrays and pointers, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let place = &mut request.ifr_name;
    // One less, so that the last is NUL.
    if name.is_empty() || name.len() >= place.len() || name.contains('\0') {
        return Err(invalid("a name has 1 to 15 bytes"));
    }
    for (place, byte) in place.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes(byte.to_ne_bytes());
    }
    Ok(request)
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        for name in ["", "sixteen-bytes-ab", "a\0b"] {
            let error = Interface::by_name(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        let error = Interface::by_name("bhxsk-none").unwrap_err();
        assert!(error.to_string().contains("\"bhxsk-none\": No such device"), "{error}");
        // The loopback interface has an index and no Ethernet address.
        let error = Interface::by_name("lo").unwrap_err();
        assert_eq!(error.to_string(), "network interface \"lo\": not Ethernet");
    }
}
