//! `bulkhead apply` and `bulkhead rollback`: something else is put in force.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::client::{ask, unexpected};
use super::text::{bytes, duration};
use super::{Exit, Said, change};
use crate::api::{Answer, AppliedAnswer, CONFIRM_S_MAX, Request};

/// How something is put in force.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Why; one line for the history.
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Roll back by itself unless bulkhead confirm comes within this TIME: 30s, 5m, 1h.
    ///
    /// Also if this command or bulkheadd ends meanwhile; and at once if the box goes down. At most a
    /// day. No other apply is taken before the confirmation.
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    confirm: Option<Duration>,
    /// Stop and start the datapath for what cannot change while it runs. Interrupts traffic.
    #[arg(long)]
    restart_datapath: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    how: How,
    /// Say what would change, and change nothing.
    ///
    /// Devices, segments and listeners that come, go or change; the flows that get another verdict,
    /// the largest region first, with one flow of each; and every test of the file. Exit code 4 if a
    /// test fails.
    #[arg(long, conflicts_with_all = ["message", "confirm", "restart_datapath"])]
    dry_run: bool,
    /// Only check the file, and keep it as what the next start of bulkheadd puts in force: for what
    /// the datapath must be restarted for, if bulkheadd does not start it itself.
    #[arg(long, conflicts_with_all = ["confirm", "restart_datapath", "dry_run"])]
    next_start: bool,
}

pub(super) fn apply(run_dir: &Path, arguments: ApplyArguments, json: bool) -> Said {
    let ApplyArguments { how, dry_run, next_start } = arguments;
    if dry_run {
        return change::dry_run(run_dir, json);
    }
    let How { message, confirm, restart_datapath } = how;
    let confirm_s = confirm.map(|time| time.as_secs());
    put_in_force(run_dir, Request::Apply { restart_datapath, message, confirm_s, next_start }, json)
}

/// Back to a generation, or of one; or both.
pub(super) fn rollback(
    run_dir: &Path,
    (generation, of): (Option<u64>, Option<u64>),
    how: How,
    json: bool,
) -> Said {
    let How { message, confirm, restart_datapath } = how;
    let confirm_s = confirm.map(|time| time.as_secs());
    let request = Request::Rollback { generation, of, restart_datapath, message, confirm_s };
    put_in_force(run_dir, request, json)
}

fn put_in_force(run_dir: &Path, request: Request, json: bool) -> Said {
    let answer = match ask(run_dir, request, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    if let Answer::Kept { generation } = answer {
        let text = || {
            format!(
                "kept as generation {generation}; nothing has changed yet. To put it in force:\n\
                 systemctl restart bulkhead-datapath bulkheadd\n"
            )
        };
        return Said::new(json, &serde_json::json!({ "kept": generation }), text, Exit::Done);
    }
    let Answer::Applied(applied) = answer else { return unexpected() };
    let mut said = Said::new(json, &applied, || text(&applied), Exit::Done);
    if let Some(warning) = &applied.warning {
        said.err = format!("bulkhead: {warning}\n");
    }
    said
}

fn text(applied: &AppliedAnswer) -> String {
    let AppliedAnswer { generation, compile_us, publish_us, peers_added, peers_removed, .. } =
        applied;
    let back = applied.rolled_back.map_or_else(String::new, |from| {
        let to = applied.configuration;
        format!("generation {from} was taken back; the configuration is that of generation {to}\n")
    });
    if *generation == 0 {
        return format!("{back}no datapath runs; the next one gets it\n");
    }
    let restarted = if applied.datapath_restarted { "the datapath was restarted\n" } else { "" };
    let waits = applied.confirm_within_s.map_or_else(String::new, |seconds| {
        let time = duration(seconds.saturating_mul(1_000));
        let configuration = applied.configuration;
        format!(
            "it is rolled back in {time}, unless you say: bulkhead confirm {configuration}\n\
             at once, if you say: bulkhead rollback --of {configuration}\n"
        )
    });
    format!(
        "generation {generation} is in force on every worker\n\
         compiled in {compile_us} us ({}), confirmed after {publish_us} us\n\
         devices: {peers_added} added, {peers_removed} removed\n{restarted}{back}{waits}",
        bytes(applied.table_bytes)
    )
}

/// A whole number of seconds, minutes or hours.
fn confirm_time(text: &str) -> Result<Duration, String> {
    let wanted = "a number with a unit: 30s, 5m, 1h";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(wanted)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wanted.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| wanted)?;
    match number.checked_mul(seconds) {
        Some(time @ 1..=CONFIRM_S_MAX) => Ok(Duration::from_secs(time)),
        Some(_) | None => Err("from 1s to 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_confirm_has_a_unit_and_a_day_at_most() {
        let seconds = |text| confirm_time(text).map(|time| time.as_secs());
        assert_eq!(seconds("3s"), Ok(3));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("24h"), Ok(86_400));
        for bad in
            ["", "s", "5", "0s", "25h", "-1m", "1d", "5 m", "1.5h", "5é", "999999999999999999h"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_waits_says_until_when_and_what_came_back_says_what() {
        let applied = AppliedAnswer {
            generation: 9,
            configuration: 9,
            confirm_within_s: Some(300),
            ..AppliedAnswer::default()
        };
        let said = text(&applied);
        let until = "rolled back in 5 min 0 s, unless you say: bulkhead confirm 9\n";
        assert!(said.contains(until), "{said}");
        assert!(said.ends_with("at once, if you say: bulkhead rollback --of 9\n"), "{said}");
        let back = AppliedAnswer {
            generation: 10,
            configuration: 7,
            rolled_back: Some(9),
            ..AppliedAnswer::default()
        };
        let said = text(&back);
        assert!(
            said.ends_with("9 was taken back; the configuration is that of generation 7\n"),
            "{said}"
        );
        let idle = text(&AppliedAnswer { generation: 0, ..back });
        assert!(idle.ends_with("no datapath runs; the next one gets it\n"), "{idle}");
    }
}
