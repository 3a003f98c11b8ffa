//! `bulkhead counters`

use std::path::Path;

use super::client::{ask, unexpected};
use super::text::columns;
use super::{Exit, Said};
use crate::api::{Answer, CountersAnswer, Request};

pub(super) fn counters(run_dir: &Path, json: bool) -> Said {
    let answer = match ask(run_dir, Request::Counters {}, json) {
        Ok(answer) => answer,
        Err(said) => return said,
    };
    let Answer::Counters(counters) = answer else { return unexpected() };
    Said::new(json, &counters, || text(&counters), Exit::Done)
}

fn text(counters: &CountersAnswer) -> String {
    let mut ends = vec![["end", "packets", "meaning"].map(str::to_owned).to_vec()];
    // In the order of a packet's way, which the names alone do not have.
    for end in bulkhead_link::End::ALL {
        if let Some(answer) = counters.ends.get(end.name()) {
            let count = answer.count.to_string();
            ends.push(vec![end.name().to_owned(), count, answer.meaning.clone()]);
        }
    }
    let CountersAnswer { received, handed_in, ended, held, handed_out, .. } = counters;
    let sign = if counters.conserved { "=" } else { "DOES NOT EQUAL" };
    let law = format!(
        "{received} received + {handed_in} handed in {sign} {ended} ended + {held} held + \
         {handed_out} handed out"
    );
    let shakes = &counters.handshakes;
    let figures = [
        ("messages", shakes.messages),
        ("queue full", shakes.queue_full),
        ("sessions as responder", shakes.sessions_responder),
        ("sessions as initiator", shakes.sessions_initiator),
        ("initiations sent", shakes.initiations_sent),
        ("unknown peer", shakes.unknown_peer),
        ("replayed", shakes.replayed),
        ("too fast", shakes.too_fast),
        ("invalid", shakes.invalid),
        ("unknown receiver", shakes.unknown_receiver),
        ("no slot", shakes.no_slot),
        ("no endpoint", shakes.no_endpoint),
        ("given up", shakes.given_up),
    ];
    let mut table = vec![["handshakes", "count"].map(str::to_owned).to_vec()];
    table.extend(figures.map(|(name, count)| vec![name.to_owned(), count.to_string()]));
    format!(
        "{}\n{law}\n{} transmitted, of which {} made here\n\n{}",
        columns(&ends),
        counters.transmitted,
        counters.originated,
        columns(&table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EndAnswer;
    use bulkhead_link::End;

    #[test]
    fn every_end_is_shown_with_its_meaning_and_the_law_is_spelt_out() {
        let ends = End::ALL.map(|end| {
            let meaning = end.meaning().to_owned();
            (end.name().to_owned(), EndAnswer { count: 3, meaning })
        });
        let mut counters = CountersAnswer {
            received: 100,
            ended: 90,
            held: 10,
            conserved: true,
            ends: ends.into(),
            ..CountersAnswer::default()
        };
        let shown = text(&counters);
        for end in End::ALL {
            let found = shown.lines().find(|line| line.split(' ').next() == Some(end.name()));
            assert!(found.unwrap().ends_with(end.meaning()), "{found:?}");
        }
        let law = "100 received + 0 handed in = 90 ended + 10 held + 0 handed out\n";
        assert!(shown.contains(law), "{shown}");
        counters.conserved = false;
        assert!(text(&counters).contains("DOES NOT EQUAL"));
    }
}
