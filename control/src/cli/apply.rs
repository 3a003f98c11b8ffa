//! `bulkhead apply`

use std::path::Path;

use super::client::{ask, unexpected};
use super::text::bytes;
use super::{Exit, Said};
use crate::api::{Answer, AppliedAnswer, Request};

pub(super) fn apply(run_dir: &Path, restart_datapath: bool, json: bool) -> Said {
    let answer = match ask(run_dir, Request::Apply { restart_datapath }, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::Applied(applied) = answer else { return unexpected() };
    Said::new(json, &applied, || text(&applied), Exit::Done)
}

fn text(applied: &AppliedAnswer) -> String {
    let AppliedAnswer { generation, compile_us, publish_us, peers_added, peers_removed, .. } =
        applied;
    let restarted = if applied.datapath_restarted { "the datapath was restarted\n" } else { "" };
    format!(
        "generation {generation} is in force on every worker\n\
         compiled in {compile_us} us ({}), confirmed after {publish_us} us\n\
         devices: {peers_added} added, {peers_removed} removed\n{restarted}",
        bytes(applied.table_bytes)
    )
}
