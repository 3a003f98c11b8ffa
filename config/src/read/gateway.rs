//! `[gateway]` and `[port.NAME]`: the box and its network devices.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::error::Mistake;
use crate::limits::{self, default};
use crate::reader::{At, Reader};
use crate::section::Section;
use crate::source::Span;
use crate::{Attach, Bind, Gateway, Port, PortKind, counted, keys};

const KIND: &[(&str, PortKind)] =
    &[("wireguard", PortKind::Wireguard), ("segment", PortKind::Segment), ("both", PortKind::Both)];
const ATTACH: &[(&str, Attach)] =
    &[("auto", Attach::Auto), ("native", Attach::Native), ("generic", Attach::Generic)];
const BIND: &[(&str, Bind)] =
    &[("auto", Bind::Auto), ("zerocopy", Bind::ZeroCopy), ("copy", Bind::Copy)];

pub(super) fn ports<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut devices: BTreeMap<&str, Span> = BTreeMap::new();
    for section in reader.named(root, "port", keys::PORT) {
        let wanted = "the name of a Linux network device, for example eth0";
        let device = section.required_text(reader, "device", wanted);
        if let Some(At { value, span }) = &device {
            check_device_name(reader, &section, value, span);
            if let Some(first) = devices.get(value) {
                let what = format!("the device {value} of another port");
                reader.duplicate(span, &section.key("device"), &what, &first.clone());
            } else {
                devices.insert(value, span.clone());
            }
        }
        let kind = section.choice(reader, "kind", KIND);
        // A port of unknown kind may be referred to as any: one mistake is enough.
        if let (Some(kind), Some((_, known))) = (kind, reader.names.ports.get_mut(section.name)) {
            *known = kind;
        }
        if ports.len() == limits::PORTS_MAX {
            let error = reader
                .mistake(&section.span, "port", Mistake::OutOfRange)
                .problem("too many ports")
                .accepted(format!("at most {}", limits::PORTS_MAX));
            reader.report(error);
        }
        ports.push(Port {
            name: section.name.to_owned(),
            place: reader.place(&section.span),
            device: device.map_or("", |device| device.value).to_owned(),
            queues: narrow(section.number(reader, "queues", limits::QUEUES, default::QUEUES).value),
            kind: kind.unwrap_or_default(),
            attach: section.choice(reader, "attach", ATTACH).unwrap_or_default(),
            bind: section.choice(reader, "bind", BIND).unwrap_or_default(),
        });
    }
    ports
}

/// Linux: `dev_valid_name` in net/core/dev.c.
fn check_device_name(reader: &mut Reader<'_>, section: &Section<'_>, name: &str, span: &Span) {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.len() > limits::DEVICE_NAME_MAX
        || matches!(name, "." | "..")
        || name.contains(forbidden)
    {
        let error = reader
            .mistake(span, &section.key("device"), Mistake::BadValue)
            .problem("not the name of a network device")
            .accepted(format!("1 to {} bytes without / : and blanks", limits::DEVICE_NAME_MAX));
        reader.report(error);
    }
}

pub(super) fn gateway<'a>(reader: &mut Reader<'a>, root: &Section<'a>, ports: &[Port]) -> Gateway {
    static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::new);
    let section = match root.table(reader, "gateway", keys::GATEWAY) {
        Some(section) => section,
        None => Section::of(reader, &EMPTY, "gateway".to_owned(), "", 0..0, keys::GATEWAY),
    };
    let name = section.required_if_there(reader, "name", "a name for this box");
    if let Some(At { value, span }) = &name {
        reader.check_name(value, span, &section.key("name"));
    }
    let workers = section.number(reader, "workers", limits::WORKERS, default::WORKERS);
    let ring = section.number(reader, "ring_entries", limits::RING_ENTRIES, default::RING_ENTRIES);
    if !ring.value.is_power_of_two() {
        let error = reader
            .mistake(&ring.span, "gateway.ring_entries", Mistake::BadValue)
            .problem("not a power of two")
            .found(ring.value.to_string())
            .accepted("256, 512, 1024, 2048, 4096 or 8192");
        reader.report(error);
    }
    let frames = section.number(
        reader,
        "frames_per_worker",
        limits::FRAMES_PER_WORKER,
        default::FRAMES_PER_WORKER,
    );
    let peers = section.number(reader, "peers_max", limits::PEERS_MAX, default::PEERS_MAX);
    let sessions =
        section.number(reader, "sessions_max", limits::SESSIONS_MAX, default::SESSIONS_MAX);
    if sessions.value < limits::SESSIONS_PER_PEER * peers.value {
        let error = reader
            .mistake(&sessions.span, "gateway.sessions_max", Mistake::Conflict)
            .problem(format!("too few sessions for {}", counted(peers.value, "peer")))
            .found(sessions.value.to_string())
            .accepted(format!("at least {}", limits::SESSIONS_PER_PEER * peers.value))
            .help("each peer has up to three: the last, the current and the next");
        reader.report(error);
    }
    let effective = effective_workers(reader, &workers, ports);
    check_frames(reader, ports, effective, &ring, &frames);
    let flows = section.number(
        reader,
        "flows_per_worker",
        limits::FLOWS_PER_WORKER,
        default::FLOWS_PER_WORKER,
    );
    Gateway {
        name: name.map_or(default::GATEWAY_NAME, |name| name.value).to_owned(),
        workers: narrow(effective),
        cpus: cpus(reader, &section, effective),
        frames_per_worker: narrow_u32(frames.value),
        ring_entries: narrow_u32(ring.value),
        sessions_max: narrow_u32(sessions.value),
        peers_max: narrow_u32(peers.value),
        flows_per_worker: narrow_u32(flows.value),
    }
}

/// Every worker needs a queue of every port, or it could not send there.
fn effective_workers(reader: &mut Reader<'_>, asked: &At<u64>, ports: &[Port]) -> u64 {
    let Some(least) = ports.iter().min_by_key(|port| port.queues) else {
        return asked.value.max(1);
    };
    let queues = u64::from(least.queues);
    if asked.value > queues {
        let error = reader
            .mistake(&asked.span, "gateway.workers", Mistake::Conflict)
            .problem(format!("port {} has only {}", least.name, counted(queues, "queue")))
            .found(asked.value.to_string())
            .accepted(format!("0 to {queues}"))
            .help(format!(
                "each worker needs a queue of every port; raise port.{}.queues, line {}",
                least.name, least.place.line
            ));
        reader.report(error);
    }
    match asked.value {
        0 => queues.min(*limits::WORKERS.end()),
        asked => asked,
    }
}

/// The packet memory must cover the fill ring of every queue that a worker serves, and as much
/// again as one ring for what is on its way through and out.
fn check_frames(
    reader: &mut Reader<'_>,
    ports: &[Port],
    workers: u64,
    ring: &At<u64>,
    frames: &At<u64>,
) {
    let queues: u64 = ports.iter().map(|port| u64::from(port.queues).div_ceil(workers)).sum();
    let need = (queues + 1) * ring.value;
    if frames.value < need {
        let error = reader
            .mistake(&frames.span, "gateway.frames_per_worker", Mistake::Conflict)
            .problem(format!(
                "too few frames for {} of {} ring entries per worker",
                counted(queues, "queue"),
                ring.value
            ))
            .found(frames.value.to_string())
            .accepted(format!("at least {need}"))
            .help("raise gateway.frames_per_worker, or lower gateway.ring_entries");
        reader.report(error);
    }
}

fn cpus<'a>(reader: &mut Reader<'a>, section: &Section<'a>, workers: u64) -> Vec<u16> {
    let cpus = section.numbers(reader, "cpus", &(0..=u64::from(u16::MAX)));
    let mut first_use: BTreeMap<u64, Span> = BTreeMap::new();
    for cpu in &cpus {
        if let Some(first) = first_use.get(&cpu.value).cloned() {
            let what = format!("CPU {}", cpu.value);
            reader.duplicate(&cpu.span, "gateway.cpus", &what, &first);
        } else {
            first_use.insert(cpu.value, cpu.span.clone());
        }
    }
    if let (false, Some(value)) = (cpus.is_empty(), section.value("cpus"))
        && cpus.len() as u64 != workers
    {
        let error = reader
            .mistake(&value.span(), "gateway.cpus", Mistake::Conflict)
            .problem(format!("{} for {}", counted(cpus.len(), "CPU"), counted(workers, "worker")))
            .accepted("one CPU for each worker, or [] to pin none");
        reader.report(error);
    }
    cpus.into_iter().map(|cpu| narrow(cpu.value)).collect()
}

/// Every device is a peer.
pub(super) fn room_for<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    gateway: &Gateway,
    devices: usize,
) {
    if devices as u64 > u64::from(gateway.peers_max) {
        let table = root.value("gateway");
        let key = table
            .and_then(|value| value.get_ref().as_table())
            .and_then(|table| table.get("peers_max"))
            .or(table);
        let span = key.map_or(0..0, toml::Spanned::span);
        let error = reader
            .mistake(&span, "gateway.peers_max", Mistake::Conflict)
            .problem(format!("this file has {devices} devices"))
            .found(gateway.peers_max.to_string())
            .accepted(format!("at least {devices}"));
        reader.report(error);
    }
}

/// The reader has checked the limits, which are within the type; should a limit ever be raised
/// beyond it, the largest value is still a limit.
fn narrow(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// As [`narrow`].
fn narrow_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
