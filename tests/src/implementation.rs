//! Whose WireGuard a scenario is played with, and the machine that it runs on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Engine, Failure, Guest, Namespace, Office, Outer, Tunnel, TunnelSettings};

/// Last digits of the outer addresses of the office's server.
const SERVER_HOST: u8 = 12;
/// The same of the guest, which stands beside it.
const GUEST_HOST: u8 = 13;

/// One of the four implementations, on a machine of an [`Office`].
#[derive(Clone, Debug)]
pub enum Implementation {
    /// A program, on the office's server.
    Program(Engine, Namespace),
    /// The Linux kernel, in a guest beside it.
    Kernel(Guest),
}

impl Implementation {
    /// A program on the server of this office.
    #[must_use]
    pub fn program(office: &Office, engine: Engine) -> Self {
        Self::Program(engine, office.server.clone())
    }

    /// The kernel of a guest that is booted for this.
    ///
    /// # Errors
    ///
    /// As [`Guest::boot`].
    pub fn kernel(office: &Office) -> Result<Self, Failure> {
        let addresses = ["192.0.2.13/24", "2001:db8::13/64"];
        Guest::boot(&office.internet, &addresses).map(Self::Kernel)
    }

    /// Where the machine is in the office's internet.
    #[must_use]
    pub fn outer_address(&self, outer: Outer) -> IpAddr {
        let host = match self {
            Self::Program(..) => SERVER_HOST,
            Self::Kernel(_) => GUEST_HOST,
        };
        Self::outer_address_of(host, outer)
    }

    fn outer_address_of(host: u8, outer: Outer) -> IpAddr {
        match outer {
            Outer::V4 => Ipv4Addr::new(192, 0, 2, host).into(),
            // The office writes the same decimal digits behind the colons.
            Outer::V6 => {
                let digits = u16::from(host / 10) * 16 + u16::from(host % 10);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits).into()
            }
        }
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::start`] or [`Tunnel::in_kernel`].
    pub fn tunnel(&self, settings: &TunnelSettings<'_>) -> Result<Tunnel, Failure> {
        match self {
            Self::Program(engine, namespace) => Tunnel::start(namespace, *engine, settings),
            Self::Kernel(guest) => Tunnel::in_kernel(guest, settings),
        }
    }
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(engine, _) => engine.fmt(f),
            Self::Kernel(_) => f.write_str("Linux"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_office() {
        let address = Implementation::outer_address_of;
        assert_eq!(address(12, Outer::V4), IpAddr::from([192, 0, 2, 12]));
        assert_eq!(address(13, Outer::V6), "2001:db8::13".parse::<IpAddr>().unwrap());
    }
}
