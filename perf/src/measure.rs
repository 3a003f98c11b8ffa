//! One measurement: iperf3 from the laptop to the server, what arrived in a second.

use std::time::Duration;

use bulkhead_tests::office::SERVER;
use bulkhead_tests::{Deadline, Failure, Office};
use serde_json::Value;

use crate::profile::{Load, Protocol};

/// What the receiver got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Payload, bits a second.
    pub bits: f64,
    /// Packets a second; of TCP by its segment size.
    pub packets: f64,
}

/// Bytes of TCP payload in a packet of 1,420 bytes with timestamps.
const TCP_SEGMENT: f64 = 1420.0 - 20.0 - 32.0;

/// Loads the gateway of this office for `seconds` seconds.
///
/// # Errors
///
/// If iperf3 fails, or not a single packet arrives.
pub fn measure(office: &Office, load: &Load, seconds: u32) -> Result<Rate, Failure> {
    let to = SERVER.to_string();
    let listen = ["iperf3", "--server", "--one-off", "--json", "--forceflush", "--bind", &to];
    let mut server = office.server.spawn("iperf3-server", &listen)?;
    wait_until_listening(office)?;

    let (time, payload) = (seconds.to_string(), load.payload.unwrap_or(1372).to_string());
    let mut client = vec!["iperf3", "--json", "--client", &to, "--time", &time, "--omit", "1"];
    if load.protocol == Protocol::Udp {
        // As fast as it goes; the packets are numbered, so the receiver knows what was lost.
        client.extend(["--udp", "--bitrate", "0", "--length", &payload]);
    }
    let report = office.laptop.exec(&client)?;
    server.wait(Deadline::after(Duration::from_secs(20)))?;
    let rate = read(&report, load)?;
    if rate.bits > 0.0 { Ok(rate) } else { Err(Failure::new("iperf3 measured nothing at all")) }
}

/// iperf3 announces nothing in its JSON form; the socket tells.
fn wait_until_listening(office: &Office) -> Result<(), Failure> {
    bulkhead_tests::until(Deadline::seconds(10), "iperf3 to listen", || {
        let sockets = office.server.exec(&["ss", "-ltn", "sport = :5201"])?;
        Ok(match sockets.contains(":5201") {
            true => bulkhead_tests::Look::Ready(()),
            false => bulkhead_tests::Look::NotYet(sockets),
        })
    })
}

fn read(report: &str, load: &Load) -> Result<Rate, Failure> {
    let report: Value = serde_json::from_str(report)
        .map_err(|error| Failure::new(format!("iperf3 printed no JSON: {error}")))?;
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .ok_or_else(|| Failure::new(format!("iperf3 reports no {pointer}: {report}")))
    };
    match load.protocol {
        Protocol::Tcp => {
            let bits = number("/end/sum_received/bits_per_second")?;
            Ok(Rate { bits, packets: bits / 8.0 / TCP_SEGMENT })
        }
        Protocol::Udp => {
            let sent = number("/end/sum/packets")?;
            let arrived = sent - number("/end/sum/lost_packets")?;
            let packets = arrived / number("/end/sum/seconds")?;
            let payload = f64::from(load.payload.unwrap_or(1372));
            Ok(Rate { bits: packets * payload * 8.0, packets })
        }
    }
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
    fn the_report_of_iperf3_is_read() {
        let udp = Load { name: "u".into(), protocol: Protocol::Udp, payload: Some(100) };
        let report = r#"{"end":{"sum":{"packets":1000,"lost_packets":200,"seconds":4.0}}}"#;
        assert_eq!(read(report, &udp).unwrap(), Rate { bits: 160_000.0, packets: 200.0 });
        let tcp = Load { name: "t".into(), protocol: Protocol::Tcp, payload: None };
        let report = r#"{"end":{"sum_received":{"bits_per_second":10944.0}}}"#;
        assert_eq!(read(report, &tcp).unwrap(), Rate { bits: 10_944.0, packets: 1.0 });
        assert!(read("{}", &tcp).is_err() && read("no", &udp).is_err());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let rate = |packets| Rate { bits: 0.0, packets };
        assert_eq!(median(&mut [rate(3.0), rate(1.0), rate(2.0)]), rate(2.0));
        assert_eq!(median(&mut [rate(2.0), rate(1.0)]), rate(1.0));
        assert_eq!(median(&mut []), Rate::default());
    }
}
