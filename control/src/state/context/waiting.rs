//! Who waits for facts to be in force, and for what.
//!
//! INVARIANT: whoever waits is answered once: when every worker has confirmed the labels and the table
//! that it needs, and the disk has its facts, or when it is certain that one of these will not be.

use std::collections::BTreeSet;

use bulkhead_wg::Time;

use crate::api::ContextChangedAnswer;
use crate::state::RequestId;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<One>);

#[derive(Debug)]
struct One {
    id: RequestId,
    since: Time,
    tokens: BTreeSet<u64>,
    table: ForTable,
    /// The knowledge that the disk must have. `None`: it has it, or will not have it for a while.
    disk: Option<u64>,
    answer: ContextChangedAnswer,
}

/// The table that someone waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForTable {
    None,
    /// The next one that is sent.
    Next,
    /// This generation, or a later one.
    Sent(u64),
}

impl One {
    fn is_confirmed(&self) -> bool {
        self.tokens.is_empty() && self.table == ForTable::None
    }

    fn give_up(&mut self, trouble: String) {
        self.tokens.clear();
        self.table = ForTable::None;
        self.answer.trouble.push(trouble);
    }
}

impl Waiting {
    /// Someone waits for these confirmations, for a new table if `table`, and for the disk to have
    /// this version of what is known.
    pub(super) fn add(
        &mut self,
        id: RequestId,
        since: Time,
        tokens: BTreeSet<u64>,
        table: bool,
        disk: Option<u64>,
        answer: ContextChangedAnswer,
    ) {
        let table = if table { ForTable::Next } else { ForTable::None };
        self.0.push(One { id, since, tokens, table, disk, answer });
    }

    /// Everyone waits for these labels too, and for a new table if `table`.
    pub(super) fn add_to_all(&mut self, tokens: &BTreeSet<u64>, table: bool) {
        for one in &mut self.0 {
            one.tokens.extend(tokens);
            if table {
                one.table = ForTable::Next;
            }
        }
    }

    /// A message is confirmed.
    pub(super) fn confirmed(&mut self, token: u64) {
        for one in &mut self.0 {
            one.tokens.remove(&token);
        }
    }

    /// A message is refused; a new table takes its place.
    pub(super) fn refused(&mut self, token: u64) {
        for one in &mut self.0 {
            if one.tokens.remove(&token) {
                one.table = ForTable::Next;
            }
        }
    }

    /// No message that was sent will be confirmed; others will take their place.
    pub(super) fn forget_messages(&mut self) {
        for one in &mut self.0 {
            one.tokens.clear();
        }
    }

    /// The next table was sent.
    pub(super) fn table_sent(&mut self, generation: u64) {
        for one in &mut self.0 {
            if one.table == ForTable::Next {
                one.table = ForTable::Sent(generation);
            }
        }
    }

    /// Every worker judges by a generation.
    pub(super) fn table_in_force(&mut self, generation: u64) {
        for one in &mut self.0 {
            if matches!(one.table, ForTable::Sent(wanted) if wanted <= generation) {
                one.table = ForTable::None;
            }
        }
    }

    /// There will be no new table.
    pub(super) fn no_table(&mut self, why: &str) {
        for one in &mut self.0 {
            if std::mem::replace(&mut one.table, ForTable::None) != ForTable::None {
                one.answer.trouble.push(format!(
                    "what was taken away is in force; what was given needs a new table, and {why}"
                ));
            }
        }
    }

    /// There is nobody to confirm anything.
    pub(super) fn no_datapath(&mut self, why: &str) {
        for one in self.0.iter_mut().filter(|one| !one.is_confirmed()) {
            one.give_up(why.to_owned());
        }
    }

    /// The disk has what was known as `version`.
    pub(super) fn kept(&mut self, version: u64) {
        for one in &mut self.0 {
            one.disk = one.disk.filter(|wanted| *wanted > version);
        }
    }

    /// The disk will not have what was known as `version` for a while.
    pub(super) fn not_kept(&mut self, version: u64, problem: &str) {
        for one in &mut self.0 {
            if one.disk.take_if(|wanted| *wanted <= version).is_some() {
                let trouble = format!("not kept, a restart would forget it: {problem}");
                one.answer.trouble.push(trouble);
            }
        }
    }

    /// Those who wait for nothing any more.
    pub(super) fn ready(&mut self) -> Vec<(RequestId, Time, ContextChangedAnswer)> {
        let done = self.0.extract_if(.., |one| one.disk.is_none() && one.is_confirmed());
        done.map(|one| (one.id, one.since, one.answer)).collect()
    }
}
