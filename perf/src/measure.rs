//! One measurement: iperf3 from the laptop to the server, and what came out of the server's tunnel.
//!
//! The packets are counted at the server's device, not by iperf3: under overload its control
//! connection suffers with the rest, and its report is lost or says nothing.

use std::time::Instant;

use bulkhead_tests::office::SERVER;
use bulkhead_tests::{Deadline, Failure, Look, Office, until};
use serde_json::Value;

use crate::profile::{Load, Protocol};

/// What came out of the server's tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Inner packets, bits a second.
    pub bits: f64,
    /// Inner packets a second.
    pub packets: f64,
}

/// Device of the server's tunnel.
const DEVICE: &str = "wg0";

/// Loads the gateway of this office for `seconds` seconds.
///
/// # Errors
///
/// If iperf3 cannot be started, or not a single packet arrives.
pub fn measure(office: &Office, load: &Load, seconds: u32) -> Result<Rate, Failure> {
    let to = SERVER.to_string();
    let listen = ["iperf3", "--server", "--one-off", "--bind", &to];
    let mut server = office.server.spawn("iperf3-server", &listen)?;
    until(Deadline::seconds(10), "iperf3 to listen", || {
        let sockets = office.server.exec(&["ss", "-ltn", "sport = :5201"])?;
        Ok(match sockets.contains(":5201") {
            true => Look::Ready(()),
            false => Look::NotYet(sockets),
        })
    })?;

    // A second longer than what is measured, at the front.
    let time = (seconds + 1).to_string();
    let payload = load.payload.unwrap_or(1372).to_string();
    let bitrate = load.bitrate.as_deref().unwrap_or("0");
    let mut words = vec!["iperf3", "--client", &to, "--time", &time];
    if load.protocol == Protocol::Udp {
        words.extend(["--udp", "--bitrate", bitrate, "--length", &payload]);
    }
    let mut client = office.laptop.spawn("iperf3-client", &words)?;
    let before = until(Deadline::seconds(10), "packets to arrive", || {
        let now = arrived(office)?;
        Ok(if now.1 > 1_000 { Look::Ready(now) } else { Look::NotYet(now.1.to_string()) })
    })?;
    let lasting = Deadline::seconds(u64::from(seconds));
    let after = until(Deadline::seconds(u64::from(seconds) + 10), "the time to pass", || {
        let over = lasting.is_over();
        let now = arrived(office)?;
        Ok(if over { Look::Ready(now) } else { Look::NotYet(String::new()) })
    })?;
    client.kill()?;
    server.kill()?;

    let elapsed = after.0.duration_since(before.0).as_secs_f64();
    let rate = Rate {
        bits: difference(after.2, before.2) * 8.0 / elapsed,
        packets: difference(after.1, before.1) / elapsed,
    };
    match rate.packets > 0.0 {
        true => Ok(rate),
        false => Err(Failure::new(format!("nothing arrived: {}", client.log_tail()))),
    }
}

/// When was looked, and the packets and bytes that came out of the server's tunnel until then.
fn arrived(office: &Office) -> Result<(Instant, u64, u64), Failure> {
    let text = office.server.exec(&["ip", "-json", "-stats", "link", "show", "dev", DEVICE])?;
    let (packets, bytes) = read(&text)?;
    Ok((bulkhead_tests::now(), packets, bytes))
}

fn read(text: &str) -> Result<(u64, u64), Failure> {
    let links: Value = serde_json::from_str(text)
        .map_err(|error| Failure::new(format!("ip printed no JSON: {error}")))?;
    let number = |name: &str| {
        links
            .pointer(&format!("/0/stats64/rx/{name}"))
            .and_then(Value::as_u64)
            .ok_or_else(|| Failure::new(format!("no {name} in {text}")))
    };
    Ok((number("packets")?, number("bytes")?))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people; counts are below 2^53")]
fn difference(after: u64, before: u64) -> f64 {
    after.saturating_sub(before) as f64
}

/// The median; of an even number, the lower of the middle two.
#[must_use]
pub fn median(rates: &mut [Rate]) -> Rate {
    rates.sort_by(|a, b| a.packets.total_cmp(&b.packets));
    rates.get(rates.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_a_device_are_read() {
        let text = r#"[{"ifname":"wg0","stats64":{"rx":{"bytes":700,"packets":7},"tx":{}}}]"#;
        assert_eq!(read(text).unwrap(), (7, 700));
        assert!(read("[]").is_err() && read("no").is_err());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let rate = |packets| Rate { bits: 0.0, packets };
        assert_eq!(median(&mut [rate(3.0), rate(1.0), rate(2.0)]), rate(2.0));
        assert_eq!(median(&mut [rate(2.0), rate(1.0)]), rate(1.0));
        assert_eq!(median(&mut []), Rate::default());
    }
}
