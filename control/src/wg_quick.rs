//! The file that a device's own WireGuard reads (`man wg-quick`), written from the configuration.

use std::fmt::Write;

use bulkhead_config::{Config, Device, Listener};
use bulkhead_wg::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::api::{Refusal, RefusalKind};
use crate::key_file::text_of;

/// What a device needs. It holds secrets, so it is wiped.
///
/// # Errors
///
/// If the configuration does not say where devices find the listener or what they send to it, or if
/// the private key is not the device's.
pub fn export(
    config: &Config,
    device: &Device,
    listener: &Listener,
    private: Option<&PrivateKey>,
) -> Result<Zeroizing<String>, Refusal> {
    let (name, client) = (&listener.name, &listener.client);
    let missing = |key: &str, what: &str| {
        let why = format!(
            "{}:{}: wireguard.{name}.client.{key} is missing: {what}",
            config.path, listener.place.line
        );
        Refusal::new(RefusalKind::Invalid, why)
    };
    let endpoint = client.endpoint.as_deref().ok_or_else(|| {
        let what = "devices must know where the gateway is; write for example\n  \
                    [wireguard.NAME.client]\n  endpoint = \"vpn.example.com:51820\"";
        missing("endpoint", &what.replace("NAME", name))
    })?;
    let allowed = allowed_ips(config, listener);
    if allowed.is_empty() {
        let what = "there is no segment and no pool, so nothing would go into the tunnel; write \
                    what devices should reach, for example [\"10.44.0.0/16\"]";
        return Err(missing("allowed_ips", what));
    }
    if let Some(private) = private
        && private.public_key().0 != device.public_key.0
    {
        let why = format!(
            "the private key is not that of device {}: its public key is {}, the configuration \
             says {}",
            device.name,
            private.public_key(),
            PublicKey(device.public_key.0)
        );
        return Err(Refusal::new(RefusalKind::Refused, why));
    }
    // Never grows: growing would leave a copy of the keys behind.
    let room = 4_096 + 64 * (device.addresses.len() + allowed.len() + client.dns.len());
    let mut text = Zeroizing::new(String::with_capacity(room));
    // Writing to a String does not fail.
    let _ = write(&mut text, config, (device, listener, endpoint), &allowed, private);
    Ok(text)
}

fn write(
    out: &mut String,
    config: &Config,
    (device, listener, endpoint): (&Device, &Listener, &str),
    allowed: &[String],
    private: Option<&PrivateKey>,
) -> std::fmt::Result {
    writeln!(out, "# Device {} of gateway {}", device.name, config.gateway.name)?;
    writeln!(out, "[Interface]")?;
    match private {
        Some(key) => writeln!(out, "PrivateKey = {}", text_of(key.expose()).as_str())?,
        None => writeln!(out, "# PrivateKey = the device's own, which the gateway does not have")?,
    }
    // Networks behind a site are routed to it; they are not addresses of its interface.
    let own = device.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
    let own: Vec<_> = own.map(ToString::to_string).collect();
    if !own.is_empty() {
        writeln!(out, "Address = {}", own.join(", "))?;
    }
    if !listener.client.dns.is_empty() {
        let dns: Vec<_> = listener.client.dns.iter().map(ToString::to_string).collect();
        writeln!(out, "DNS = {}", dns.join(", "))?;
    }
    writeln!(out, "MTU = {}", listener.mtu)?;
    writeln!(out, "\n[Peer]")?;
    writeln!(out, "PublicKey = {}", listener.public_key)?;
    if let Some(psk) = &device.preshared_key {
        writeln!(out, "PresharedKey = {}", text_of(psk.expose()).as_str())?;
    }
    writeln!(out, "Endpoint = {endpoint}")?;
    writeln!(out, "AllowedIPs = {}", allowed.join(", "))?;
    if let Some(keepalive) = listener.client.keepalive {
        writeln!(out, "PersistentKeepalive = {}", keepalive.as_secs())?;
    }
    Ok(())
}

fn allowed_ips(config: &Config, listener: &Listener) -> Vec<String> {
    let client = &listener.client;
    let mut nets = client.allowed_ips.clone();
    if nets.is_empty() {
        nets.extend(config.segments.iter().flat_map(|segment| segment.subnets.iter().copied()));
        nets.extend(client.pool.iter().copied());
    }
    nets.sort_unstable();
    nets.dedup();
    nets.iter().map(ToString::to_string).collect()
}
