//! From the wg-quick file of an existing hub to a configuration of ours. Text in, text out.
//!
//! ```text
//!   [Interface] ─▶ [port.outside], [wireguard.NAME] and its client table
//!   [Peer]      ─▶ [device.NAME], named by the comment in front of it
//!   keys        ─▶ files of their own, never the configuration
//!   the rest    ─▶ notes, each with its line: nothing is dropped in silence
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use zeroize::Zeroizing;

/// What came out.
#[derive(Debug, Default)]
pub struct Imported {
    /// The configuration.
    pub toml: String,
    /// Name and content of the key files that it names.
    pub keys: Vec<(String, Zeroizing<String>)>,
    /// What could not be carried over, or was changed, in the order of the file.
    pub notes: Vec<Note>,
    /// Devices that came out.
    pub devices: usize,
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of the wg-quick file, counted from 1.
    pub line: usize,
    /// What it was, and what to do. Never a secret.
    pub text: String,
}

/// A peer that is being read.
#[derive(Default)]
struct Peer {
    line: usize,
    comment: Option<String>,
    public_key: Option<String>,
    preshared: Option<Zeroizing<String>>,
    nets: Vec<IpNet>,
    endpoint: Option<String>,
    keepalive: Option<u16>,
}

#[derive(Default)]
struct Interface {
    private: Option<Zeroizing<String>>,
    listen_port: Option<u16>,
    mtu: Option<u16>,
    dns: Vec<IpAddr>,
    pool: Vec<IpNet>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Interface,
    Peer,
}

struct Reader {
    part: Part,
    interface: Interface,
    peers: Vec<Peer>,
    comment: Option<String>,
    notes: Vec<Note>,
}

/// Reads the text of a wg-quick file. `name` is that of its interface, and becomes the listener's.
#[must_use]
pub fn wg_quick(text: &str, name: &str, device: &str) -> Imported {
    let mut reader = Reader {
        part: Part::None,
        interface: Interface::default(),
        peers: vec![],
        comment: None,
        notes: vec![],
    };
    for (line, content) in (1..).zip(text.lines()) {
        reader.line(line, content.trim());
    }
    reader.finish(name, device)
}

impl Reader {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push(Note { line, text: text.into() });
    }

    fn line(&mut self, line: usize, text: &str) {
        if let Some(comment) = text.strip_prefix('#') {
            let comment = comment.trim().to_owned();
            // Behind [Peer] and before its first key a comment names it as well as in front.
            if let (Part::Peer, Some(peer)) = (self.part, self.peers.last_mut())
                && peer.comment.is_none()
                && peer.public_key.is_none()
                && peer.nets.is_empty()
            {
                peer.comment = Some(comment);
            } else if self.comment.is_none() {
                self.comment = Some(comment);
            }
            return;
        }
        // wg ignores what follows a # in any line.
        let text = text.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            // A comment set apart by an empty line is about something else.
            self.comment = None;
        } else if text.eq_ignore_ascii_case("[interface]") {
            (self.part, self.comment) = (Part::Interface, None);
        } else if text.eq_ignore_ascii_case("[peer]") {
            let comment = self.comment.take();
            self.peers.push(Peer { line, comment, ..Peer::default() });
            self.part = Part::Peer;
        } else if let Some((key, value)) = text.split_once('=') {
            self.comment = None;
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match self.part {
                Part::Interface => self.interface_key(line, &key, value),
                Part::Peer => self.peer_key(line, &key, value),
                Part::None => self.note(line, "left out: it stands in front of every section"),
            }
        } else {
            self.note(line, "left out: neither a section nor KEY = VALUE");
        }
    }

    fn interface_key(&mut self, line: usize, key: &str, value: &str) {
        let own = &mut self.interface;
        let problem = match key {
            "privatekey" => {
                own.private = Some(Zeroizing::new(value.to_owned()));
                None
            }
            "listenport" => number(value, &mut own.listen_port, "ListenPort"),
            "mtu" => number(value, &mut own.mtu, "MTU"),
            "address" => return self.addresses(line, value),
            "dns" => {
                for one in items(value) {
                    match one.parse() {
                        Ok(server) => self.interface.dns.push(server),
                        Err(_) => self.note(line, format!(
                            "DNS {one}: a search domain, which devices' files do not get; add it on \
                             the devices"
                        )),
                    }
                }
                return;
            }
            "preup" | "postup" | "predown" | "postdown" => Some(format!(
                "{} was not carried over: Bulkhead runs no commands. Forwarding needs none; write \
                 firewall rules as [[rule]], and do NAT elsewhere",
                match key {
                    "preup" => "PreUp",
                    "postup" => "PostUp",
                    "predown" => "PreDown",
                    _ => "PostDown",
                }
            )),
            "table" => Some(
                "Table was not carried over: Bulkhead routes by itself, not by the kernel's tables"
                    .to_owned(),
            ),
            "saveconfig" => Some(
                "SaveConfig was not carried over: the configuration file is only changed by people \
                 and by bulkhead device and key"
                    .to_owned(),
            ),
            "fwmark" => Some(
                "FwMark was not carried over: outer packets do not pass the kernel's routing"
                    .to_owned(),
            ),
            other => Some(format!("{other} is not a key of [Interface]; left out")),
        };
        if let Some(problem) = problem {
            self.note(line, problem);
        }
    }

    /// The hub's own addresses do not exist any more; their networks are where devices live.
    fn addresses(&mut self, line: usize, value: &str) {
        for one in items(value) {
            match net(one) {
                Some(net) if net.prefix_len() < net.max_prefix_len() => {
                    self.interface.pool.push(net.trunc());
                    self.note(line, format!(
                        "Address {one}: the gateway has no address inside the tunnel; {} became the \
                         pool for new devices, and {} is free for one",
                        net.trunc(),
                        net.addr()
                    ));
                }
                Some(_) => self.note(
                    line,
                    format!(
                        "Address {one}: the gateway has no address inside the tunnel; left out"
                    ),
                ),
                None => self.note(line, format!("Address {one}: not an address; left out")),
            }
        }
    }

    fn peer_key(&mut self, line: usize, key: &str, value: &str) {
        let Some(peer) = self.peers.last_mut() else { return };
        let problem = match key {
            "publickey" => {
                peer.public_key = Some(value.to_owned());
                None
            }
            "presharedkey" => {
                peer.preshared = Some(Zeroizing::new(value.to_owned()));
                None
            }
            "allowedips" => return self.allowed_ips(line, value),
            "endpoint" if is_endpoint(value) => {
                peer.endpoint = Some(value.to_owned());
                None
            }
            "endpoint" => Some(format!("Endpoint {value}: not HOST:PORT; left out")),
            "persistentkeepalive" if value == "off" || value == "0" => None,
            "persistentkeepalive" => number(value, &mut peer.keepalive, "PersistentKeepalive"),
            other => Some(format!("{other} is not a key of [Peer]; left out")),
        };
        if let Some(problem) = problem {
            self.note(line, problem);
        }
    }

    fn allowed_ips(&mut self, line: usize, value: &str) {
        for one in items(value) {
            match net(one) {
                Some(net) if net.prefix_len() == 0 => self.note(line, format!(
                    "AllowedIPs {one} was not carried over: no single device may be everybody; write \
                     the networks behind it"
                )),
                Some(net) => {
                    if net != net.trunc() {
                        self.note(line, format!("AllowedIPs {one}: became {}", net.trunc()));
                    }
                    if let Some(peer) = self.peers.last_mut()
                        && !peer.nets.contains(&net.trunc())
                    {
                        peer.nets.push(net.trunc());
                    }
                }
                None => self.note(line, format!("AllowedIPs {one}: not a network; left out")),
            }
        }
    }

    /// wg gives a prefix to the last peer that asks for it.
    fn settle_prefixes(&mut self) {
        let mut owners: BTreeMap<IpNet, usize> = BTreeMap::new();
        for (at, peer) in self.peers.iter().enumerate() {
            owners.extend(peer.nets.iter().map(|net| (*net, at)));
        }
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let line = peer.line;
            peer.nets.retain(|net| {
                let kept = owners.get(net) == Some(&at);
                if !kept {
                    let text = format!(
                        "AllowedIPs {net}: a later peer has it too, and wg gives it to the last; left \
                         out here"
                    );
                    self.notes.push(Note { line, text });
                }
                kept
            });
        }
    }

    fn finish(mut self, name: &str, device: &str) -> Imported {
        self.settle_prefixes();
        let mut out = Imported::default();
        let own = std::mem::take(&mut self.interface);
        // Writing to a String does not fail.
        let _ = self.write_listener(&mut out, &own, name, device);
        let mut names = BTreeSet::new();
        for (number, peer) in (1..).zip(std::mem::take(&mut self.peers)) {
            let name = unique(&mut names, peer.comment.as_deref(), number);
            self.device(&mut out, peer, &name);
        }
        self.notes.sort_by_key(|note| note.line);
        out.notes = self.notes;
        out
    }

    fn write_listener(
        &mut self,
        out: &mut Imported,
        own: &Interface,
        name: &str,
        device: &str,
    ) -> std::fmt::Result {
        let toml = &mut out.toml;
        writeln!(toml, "# Imported from the wg-quick file of {name}. Nothing is allowed yet: see")?;
        writeln!(toml, "# [[rule]] in the manual. Then: bulkhead check, bulkhead apply.")?;
        writeln!(toml, "schema = 1\n\n# The network device that the devices' packets arrive on.")?;
        writeln!(toml, "[port.outside]\ndevice = \"{device}\"\n")?;
        writeln!(toml, "[wireguard.{name}]\nport = \"outside\"")?;
        match own.listen_port {
            Some(port) => writeln!(toml, "listen_port = {port}")?,
            None => {
                self.note(1, "no ListenPort: wg takes a random one; this gateway listens on 51820")
            }
        }
        writeln!(toml, "private_key_file = \"{name}.key\"")?;
        match &own.private {
            Some(key) => out.keys.push((format!("{name}.key"), key.clone())),
            None => self.note(1, format!("no PrivateKey: put the hub's key into {name}.key")),
        }
        match own.mtu {
            Some(mtu @ 1_280..=1_500) => writeln!(out.toml, "mtu = {mtu}")?,
            Some(mtu) => self.note(1, format!("MTU {mtu}: outside 1280 to 1500; left out")),
            None => {}
        }
        if !own.dns.is_empty() || !own.pool.is_empty() {
            writeln!(out.toml, "\n[wireguard.{name}.client]")?;
            for (key, list) in [("dns", quoted(&own.dns)), ("pool", quoted(&own.pool))] {
                if list != "[]" {
                    writeln!(out.toml, "{key} = {list}")?;
                }
            }
        }
        Ok(())
    }

    fn device(&mut self, out: &mut Imported, peer: Peer, name: &str) {
        let Some(public) = &peer.public_key else {
            return self.note(peer.line, "a [Peer] without PublicKey; left out");
        };
        if peer.nets.is_empty() {
            let text = "a [Peer] without AllowedIPs of its own could send nothing; left out";
            return self.note(peer.line, text);
        }
        if public.parse::<bulkhead_wg::PublicKey>().is_err() {
            // Not quoted: whoever pastes the wrong key pastes the private one.
            return self.note(peer.line, "its PublicKey is not a WireGuard key; left out");
        }
        let mut entry = format!("\n[device.{name}]\npublic_key = \"{public}\"\n");
        if let Some(key) = peer.preshared {
            entry += &format!("preshared_key_file = \"{name}.psk\"\n");
            out.keys.push((format!("{name}.psk"), key));
        }
        entry += &format!("addresses = {}\n", quoted(&peer.nets));
        if let Some(endpoint) = peer.endpoint {
            entry += &format!("endpoint = \"{endpoint}\"\n");
        }
        if let Some(keepalive) = peer.keepalive {
            entry += &format!("keepalive = \"{keepalive}s\"\n");
        }
        out.toml += &entry;
        out.devices += 1;
    }
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// An address or a host's name, and a port.
fn is_endpoint(value: &str) -> bool {
    let named = value.rsplit_once(':').is_some_and(|(host, port)| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        !host.is_empty()
            && host.bytes().all(letters)
            && port.parse().is_ok_and(|port: u16| port > 0)
    });
    value.parse::<SocketAddr>().is_ok() || named
}

/// A network, or an address as a network of one.
fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn number(value: &str, into: &mut Option<u16>, key: &str) -> Option<String> {
    *into = value.parse().ok().filter(|number| *number > 0);
    into.is_none().then(|| format!("{key} {value}: not a number from 1 to 65535; left out"))
}

fn quoted<T: ToString>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(|one| format!("\"{}\"", one.to_string())).collect();
    format!("[{}]", all.join(", "))
}

/// A name from a comment, in the letters that names have, and like no other.
fn unique(taken: &mut BTreeSet<String>, comment: Option<&str>, number: usize) -> String {
    // "# Name = anna" and "### Client anna" are what generators write.
    let comment = comment.unwrap_or("").trim_matches(|c: char| c == '#' || c.is_whitespace());
    let comment = ["Name =", "Name:", "name =", "name:", "Client "]
        .iter()
        .find_map(|prefix| comment.strip_prefix(prefix))
        .unwrap_or(comment);
    let mut name: String = comment
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(60)
        .collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    let name = name.trim_matches(['-', '_']).to_owned();
    let name = if name.is_empty() { format!("peer-{number}") } else { name };
    let mut free = name.clone();
    let mut count = 1;
    while !taken.insert(free.clone()) {
        count += 1;
        free = format!("{name}-{count}");
    }
    free
}

#[cfg(test)]
mod tests;
