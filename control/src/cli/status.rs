//! `bulkhead status`

use std::fmt::Write;
use std::path::Path;

use super::client::{ask, unexpected};
use super::text::{columns, duration};
use super::{Exit, Said, change};
use crate::api::{Answer, DatapathAnswer, FlowLogAnswer, Request, StatusAnswer};

pub(super) fn status(run_dir: &Path, json: bool) -> Said {
    let answer = match ask(run_dir, Request::Status {}, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::Status(status) = answer else { return unexpected() };
    let exit = if status.degraded.is_empty() { Exit::Done } else { Exit::Degraded };
    Said::new(json, &status, || text(&status), exit)
}

fn text(status: &StatusAnswer) -> String {
    let generation = match status.generation {
        0 => "none: everything is denied".to_owned(),
        generation => generation.to_string(),
    };
    let datapath = match &status.datapath {
        None => "not connected".to_owned(),
        Some(datapath) => format!(
            "process {}, up {}, {} sessions",
            datapath.pid,
            duration(datapath.uptime_ms),
            datapath.sessions
        ),
    };
    let control =
        format!("bulkheadd {}, up {}", status.version, duration(status.control_uptime_ms));
    let head = [
        ("gateway", status.gateway.clone()),
        ("generation", generation),
        ("control", control),
        ("datapath", datapath),
    ];
    let mut text = columns(&head.map(|(key, value)| vec![key.to_owned(), value]));
    if let Some(configuration) = &status.configuration {
        text.push_str(&change::configuration(configuration));
    }
    text.push_str(&flow_log(&status.flow_log));
    if let Some(datapath) = &status.datapath {
        text.push_str(&figures(datapath));
    }
    if status.degraded.is_empty() {
        text.push_str("\nall is well\n");
    } else {
        text.push_str("\ndegraded:\n");
        for reason in &status.degraded {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {reason}");
        }
    }
    text
}

/// Nothing of a log that nothing is written to.
fn flow_log(log: &FlowLogAnswer) -> String {
    let FlowLogAnswer { written, lost, lost_in_datapath, problem: _ } = log;
    match (written, lost + lost_in_datapath) {
        (0, 0) => String::new(),
        (written, 0) => format!("flow log    {written} lines written, none lost\n"),
        (written, _) => format!(
            "flow log    {written} lines written; lost: {lost} for the disk, {lost_in_datapath} in \
             the datapath\n"
        ),
    }
}

fn figures(datapath: &DatapathAnswer) -> String {
    let title = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut workers =
        vec![title(&["worker", "received", "transmitted", "flows", "held", "frames"])];
    workers.extend(datapath.workers.iter().enumerate().map(|(index, worker)| {
        let figures =
            [worker.received, worker.transmitted, worker.flows, worker.held, worker.frames];
        let mut row = vec![index.to_string()];
        row.extend(figures.iter().map(ToString::to_string));
        row
    }));
    let mut ports = vec![title(&["port", "device", "xdp", "sockets", "kernel dropped", "faults"])];
    ports.extend(datapath.ports.iter().map(|port| {
        vec![
            port.name.clone(),
            port.device.clone(),
            if port.native { "native" } else { "generic" }.to_owned(),
            if port.zero_copy { "zero-copy" } else { "copy" }.to_owned(),
            port.kernel_dropped.to_string(),
            port.faults.to_string(),
        ]
    }));
    format!("\n{}\n{}", columns(&workers), columns(&ports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PortAnswer, WorkerAnswer};

    #[test]
    fn health_reads_at_a_glance() {
        let status = StatusAnswer {
            gateway: "gw-hel-1".to_owned(),
            version: "0.1.0".to_owned(),
            generation: 7,
            control_uptime_ms: 182_000,
            datapath: Some(DatapathAnswer {
                pid: 4_711,
                uptime_ms: 18_180_000,
                sessions: 2,
                workers: vec![
                    WorkerAnswer { received: 12, transmitted: 9, flows: 3, held: 0, frames: 8_000 },
                    WorkerAnswer::default(),
                ],
                ports: vec![PortAnswer {
                    name: "outside".to_owned(),
                    device: "ens3f0".to_owned(),
                    native: true,
                    ..PortAnswer::default()
                }],
            }),
            configuration: None,
            flow_log: FlowLogAnswer {
                written: 12,
                lost_in_datapath: 3,
                ..FlowLogAnswer::default()
            },
            degraded: vec!["the counters do not add up".to_owned()],
        };
        let want = "\
gateway     gw-hel-1
generation  7
control     bulkheadd 0.1.0, up 3 min 2 s
datapath    process 4711, up 5 h 3 min, 2 sessions
flow log    12 lines written; lost: 0 for the disk, 3 in the datapath

worker  received  transmitted  flows  held  frames
     0        12            9      3     0    8000
     1         0            0      0     0       0

port     device  xdp     sockets  kernel dropped  faults
outside  ens3f0  native  copy                  0       0

degraded:
  the counters do not add up
";
        assert_eq!(text(&status), want);
        let alone = text(&StatusAnswer::default());
        assert!(alone.contains("none: everything is denied"), "{alone}");
        assert!(!alone.contains("flow log"));
        assert!(alone.contains("not connected") && alone.ends_with("\nall is well\n"), "{alone}");
    }
}
