//! The task that asks and hears the kernel about devices, addresses and neighbours. The logic is in
//! [`crate::neighbour`] and [`crate::interface`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::interface::{addresses, interfaces, places};
use crate::neighbour::{Change, Neighbours, Observation, observation};
use crate::state::Watch;

/// How often stale entries are used on behalf of the datapath. The kernel calls an entry stale some
/// 30 s after its last confirmation.
const REFRESH_INTERVAL: Duration = Duration::from_secs(15);

/// Something for the task to do.
#[derive(Debug)]
pub enum Command {
    /// Mirror these ports from now on.
    Watch(Watch),
    /// Make the kernel resolve a neighbour.
    Resolve(u8, IpAddr),
}

/// Something that the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A neighbour came, changed or went.
    Neighbour(Change),
    /// Some device has other addresses than before: ask again.
    Addresses,
}

/// The box's own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// By network port; a port without any may be missing.
    pub ports: BTreeMap<u8, Vec<IpAddr>>,
    /// Devices that do not exist.
    pub missing: Vec<String>,
}

impl OwnAddresses {
    /// Of all ports, sorted, each once.
    #[must_use]
    pub fn all(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> = self.ports.values().flatten().copied().collect();
        all.into_iter().collect()
    }

    /// Of one port.
    #[must_use]
    pub fn of_port(&self, port: u8) -> &[IpAddr] {
        self.ports.get(&port).map_or(&[], Vec::as_slice)
    }
}

/// Reads the addresses of all ports.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub async fn own_addresses(ports: &[(u8, String)]) -> Result<OwnAddresses, rtnetlink::Error> {
    let (connection, handle, _) = new_connection().map_err(|_| rtnetlink::Error::RequestFailed)?;
    let task = tokio::spawn(connection);
    let found = interfaces(&handle).await?;
    let places = places(&found, ports);
    let mut devices: BTreeMap<u8, BTreeSet<u32>> = BTreeMap::new();
    for (index, place) in &places {
        devices.entry(place.port).or_default().insert(*index);
    }
    let missing = ports
        .iter()
        .map(|(_, device)| device)
        .filter(|device| !found.iter().any(|interface| interface.name == **device))
        .cloned()
        .collect();
    let mut own = OwnAddresses { ports: BTreeMap::new(), missing };
    for (port, devices) in devices {
        own.ports.insert(port, addresses(&handle, &devices).await?);
    }
    task.abort();
    Ok(own)
}

/// Mirrors until `commands` or `heard` is closed.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub async fn run(
    mut commands: UnboundedReceiver<Command>,
    heard: UnboundedSender<Heard>,
) -> io::Result<()> {
    let groups = [
        MulticastGroup::Neigh,
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, mut messages) = new_multicast_connection(&groups)?;
    let task = tokio::spawn(connection);
    // What changed between the start and this moment was not heard.
    if heard.send(Heard::Addresses).is_err() {
        return Ok(());
    }
    let mut neighbours = Neighbours::default();
    let mut refresh = interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let found = tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Watch(watch)) => {
                    neighbours.watch(watch);
                    synchronise(&handle, &mut neighbours).await
                }
                Some(Command::Resolve(port, address)) => {
                    match neighbours.device_for(port, address) {
                        Some(device) => make_use(&handle, device, address).await,
                        None => debug!(port, %address, "no device for this neighbour"),
                    }
                    vec![]
                }
                None => break,
            },
            message = messages.next() => match message.map(|(message, _)| message.payload) {
                Some(NetlinkPayload::InnerMessage(message)) => {
                    notified(&handle, &mut neighbours, &message).await
                }
                // Notifications were lost: only a new dump tells what is true now.
                Some(NetlinkPayload::Overrun(_)) => synchronise(&handle, &mut neighbours).await,
                Some(_) => vec![],
                None => return Err(io::Error::other("the kernel closed the netlink socket")),
            },
            _ = refresh.tick() => {
                for (device, address) in neighbours.stale() {
                    make_use(&handle, device, address).await;
                }
                vec![]
            }
        };
        if found.into_iter().any(|change| heard.send(change).is_err()) {
            break;
        }
    }
    task.abort();
    Ok(())
}

async fn notified(
    handle: &Handle,
    neighbours: &mut Neighbours,
    message: &RouteNetlinkMessage,
) -> Vec<Heard> {
    if let RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) = message {
        return vec![Heard::Addresses];
    }
    if let RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) = message {
        return match devices(handle, neighbours).await {
            true => synchronise(handle, neighbours).await,
            false => vec![],
        };
    }
    let seen = if let RouteNetlinkMessage::NewNeighbour(message) = message {
        observation(message, false)
    } else if let RouteNetlinkMessage::DelNeighbour(message) = message {
        observation(message, true)
    } else {
        None
    };
    seen.and_then(|seen| neighbours.observed(seen)).map(Heard::Neighbour).into_iter().collect()
}

/// Reads devices and neighbours anew.
async fn synchronise(handle: &Handle, neighbours: &mut Neighbours) -> Vec<Heard> {
    devices(handle, neighbours).await;
    match dump(handle).await {
        Ok(all) => neighbours.dump(&all).into_iter().map(Heard::Neighbour).collect(),
        Err(error) => {
            warn!(%error, "the kernel's neighbours cannot be read");
            vec![]
        }
    }
}

/// Reads the devices anew; `true` if ours are others than before.
async fn devices(handle: &Handle, neighbours: &mut Neighbours) -> bool {
    match interfaces(handle).await {
        Ok(found) => neighbours.devices(places(&found, &neighbours.watched().ports)),
        Err(error) => {
            warn!(%error, "the network devices cannot be read");
            false
        }
    }
}

async fn dump(handle: &Handle) -> Result<Vec<Observation>, rtnetlink::Error> {
    let all: Vec<NeighbourMessage> = handle.neighbours().get().execute().try_collect().await?;
    Ok(all.iter().filter_map(|message| observation(message, false)).collect())
}

/// As if the kernel itself had sent a packet: it resolves an unknown neighbour and probes a stale
/// one (`NTF_USE`, net/core/neighbour.c::neigh_add).
async fn make_use(handle: &Handle, device: u32, address: IpAddr) {
    let request = handle
        .neighbours()
        .add(device, address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if let Err(error) = request.execute().await {
        debug!(%error, device, %address, "the kernel does not resolve");
    }
}
