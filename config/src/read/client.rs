//! `[wireguard.NAME.client]`: what devices are told of a listener when their files are written.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::error::Mistake;
use crate::prefix::network;
use crate::reader::{At, Reader};
use crate::section::Section;
use crate::{ClientSide, keys};

const ENDPOINT_ACCEPTED: &str =
    "a host name or an address, and a port: vpn.example.com:51820, [2001:db8::7]:51820";

/// The table below a listener, or nothing at all.
pub(super) fn client<'a>(reader: &mut Reader<'a>, listener: &Section<'a>) -> ClientSide {
    let Some(section) = listener.table(reader, "client", keys::CLIENT) else {
        return ClientSide::default();
    };
    ClientSide {
        endpoint: endpoint(reader, &section),
        allowed_ips: allowed_ips(reader, &section),
        dns: dns(reader, &section),
        keepalive: section.keepalive(reader),
        pool: pool(reader, &section),
    }
}

/// Devices resolve the name, we do not, so it is only looked at.
fn endpoint<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<String> {
    let found = section.required_if_there(reader, "endpoint", ENDPOINT_ACCEPTED)?;
    if names_a_place(found.value) {
        return Some(found.value.to_owned());
    }
    let error = reader
        .mistake(&found.span, &section.key("endpoint"), Mistake::BadValue)
        .problem("not a place that devices could send to")
        .found(found.value)
        .accepted(ENDPOINT_ACCEPTED);
    reader.report(error);
    None
}

/// What wg accepts as an Endpoint: a host and a port, the host of IPv6 in brackets.
fn names_a_place(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_good = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            let labels =
                host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            labels && !host.is_empty() && !host.starts_with(['-', '.'])
        }
    };
    port_is_good && host_is_good
}

/// Unlike a device's addresses these may be everything there is.
fn allowed_ips<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Vec<IpNet> {
    let key = section.key("allowed_ips");
    let all = |text: &At<&str>| {
        text.value
            .parse::<IpNet>()
            .ok()
            .filter(|net| net.prefix_len() == 0 && net.addr() == net.network())
    };
    let mut nets = Vec::new();
    for text in section.texts(reader, "allowed_ips") {
        nets.extend(all(&text).or_else(|| network(reader, &key, &text).map(|net| net.value)));
    }
    nets
}

fn dns<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for text in section.texts(reader, "dns") {
        if let Ok(server) = text.value.parse() {
            servers.push(server);
        } else {
            let error = reader
                .mistake(&text.span, &section.key("dns"), Mistake::BadValue)
                .problem("not an address")
                .found(text.value)
                .accepted("addresses of name servers, for example [\"10.20.1.53\"]");
            reader.report(error);
        }
    }
    servers
}

fn pool<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Vec<IpNet> {
    let key = section.key("pool");
    let mut nets = Vec::new();
    for text in section.texts(reader, "pool") {
        nets.extend(network(reader, &key, &text).map(|net| net.value));
    }
    nets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_port() {
        for good in [
            "vpn.example.com:51820",
            "gw:1",
            "203.0.113.7:65535",
            "[2001:db8::7]:51820",
            "a-b_c.d:5",
        ] {
            assert!(names_a_place(good), "{good}");
        }
        for bad in [
            "",
            "vpn.example.com",
            ":51820",
            "vpn:0",
            "vpn:65536",
            "vpn:+5",
            "vpn:",
            "2001:db8::7:51820",
            "[2001:db8::7]",
            "[vpn]:51820",
            "a b:51820",
            "a\nb:51820",
            "-a:51820",
            "a#b:51820",
        ] {
            assert!(!names_a_place(bad), "{bad}");
        }
    }
}
