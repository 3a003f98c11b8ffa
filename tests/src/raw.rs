//! A device of a world seen as bytes: frames are sent and received as they are, past the kernel's
//! stack. For what no well-behaved socket would send, and to prove that nothing came back.

use std::io;
use std::time::Duration;

use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};

use crate::wait::Deadline;
use crate::{During, Failure, Namespace};

/// How long one read may block; the caller's deadline is looked at in between.
const READ_SLICE: Duration = Duration::from_millis(20);

/// One device, for frames from the first byte of the Ethernet header.
pub struct RawPort {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    own: [u8; 6],
    name: String,
}

impl RawPort {
    /// Opens a device. Frames that arrived before are not seen.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self, Failure> {
        let name = format!("{device} of {}", namespace.name());
        let (channel, interface) = namespace.run(|| open_here(device))??;
        let Channel::Ethernet(sender, receiver) = channel else {
            return Err(Failure::new(format!("{name} is not an Ethernet device")));
        };
        let own = interface.mac.map(|mac| mac.octets()).unwrap_or_default();
        Ok(Self { sender, receiver, own, name })
    }

    /// Its hardware address.
    #[must_use]
    pub fn address(&self) -> [u8; 6] {
        self.own
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// If the device refuses it, for instance because it is longer than the MTU allows.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let Self { sender, name, .. } = self;
        let sent = sender.send_to(frame, None).unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
        sent.during(|| format!("sending {} bytes on {name}", frame.len()))
    }

    /// The next frame from the cable; `None` when the deadline passes. What this machine sends is
    /// left out, whether by this port or by its kernel.
    ///
    /// # Errors
    ///
    /// If the device is gone.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let over = deadline.is_over();
            match self.receiver.next() {
                Ok(frame) if frame.get(6..12) == Some(&self.own) => {}
                Ok(frame) => return Ok(Some(frame.to_vec())),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if over {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).during(|| format!("receiving on {}", self.name)),
            }
        }
    }

    /// All frames from the cable until `deadline` that `wanted` picks.
    ///
    /// # Errors
    ///
    /// If the device is gone.
    pub fn collect(
        &mut self,
        deadline: Deadline,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let mut found = Vec::new();
        while !deadline.is_over() {
            if let Some(frame) = self.receive(deadline)?
                && wanted(&frame)
            {
                found.push(frame);
            }
        }
        Ok(found)
    }
}

/// Opens a device of the namespace that the calling thread is in.
fn open_here(device: &str) -> Result<(Channel, NetworkInterface), Failure> {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == device)
        .ok_or_else(|| Failure::new(format!("there is no device {device}")))?;
    let config = Config {
        read_timeout: Some(READ_SLICE),
        write_timeout: Some(Duration::from_secs(1)),
        ..Config::default()
    };
    let channel = pnet_datalink::channel(&interface, config)
        .during(|| format!("opening a packet socket on {device}"))?;
    Ok((channel, interface))
}
