//! What `bulkhead counters --json` says, and the law that it must obey.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Failure;

/// The counters of all workers together, since the datapath started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Frames received from sockets.
    pub received: u64,
    /// Frames given to sockets.
    pub transmitted: u64,
    /// Packets that the gateway made itself.
    pub originated: u64,
    /// Packets that wait for a session or a neighbour.
    pub held: u64,
    /// Packets given to other workers.
    pub handed_out: u64,
    /// Packets taken from other workers.
    pub handed_in: u64,
    /// Sum of all ends, as the gateway adds it up.
    pub ended: u64,
    /// What the gateway itself thinks of the law, on every worker.
    pub conserved: bool,
    ends: BTreeMap<String, End>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct End {
    count: u64,
    meaning: String,
}

impl Counters {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// If a field is missing.
    pub fn read(answer: &Value) -> Result<Self, Failure> {
        Self::deserialize(answer)
            .map_err(|error| Failure::new(format!("these are no counters ({error}): {answer}")))
    }

    /// How many packets ended this way.
    ///
    /// # Errors
    ///
    /// If there is no end of this name: a misspelt name must not pass for zero.
    pub fn end(&self, name: &str) -> Result<u64, Failure> {
        self.ends.get(name).map(|end| end.count).ok_or_else(|| {
            let names: Vec<_> = self.ends.keys().collect();
            Failure::new(format!("no end is called {name}; there are {names:?}"))
        })
    }

    /// Ends that were met: name, count, meaning; the most frequent first.
    #[must_use]
    pub fn met(&self) -> Vec<(&str, u64, &str)> {
        let mut met: Vec<_> = self
            .ends
            .iter()
            .filter(|(_, end)| end.count > 0)
            .map(|(name, end)| (name.as_str(), end.count, end.meaning.as_str()))
            .collect();
        met.sort_by_key(|(name, count, _)| (std::cmp::Reverse(*count), *name));
        met
    }

    /// Every received packet has exactly one end, or waits: added up here again, not taken from the
    /// gateway's own sum.
    ///
    /// # Errors
    ///
    /// With both sides of the equation, if it does not hold.
    pub fn check_conserved(&self) -> Result<(), Failure> {
        let ends: u64 = self.ends.values().map(|end| end.count).sum();
        let left = self.received + self.handed_in;
        let right = ends + self.held + self.handed_out;
        if left == right && ends == self.ended && self.conserved {
            return Ok(());
        }
        Err(Failure::new(format!(
            "received {} + handed in {} = {left}, but ends {ends} (told {}) + held {} + handed out \
             {} = {right}; told conserved: {}",
            self.received, self.handed_in, self.ended, self.held, self.handed_out, self.conserved
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "answer": "counters", "received": 10, "transmitted": 6, "originated": 1, "held": 1,
            "handed_out": 2, "handed_in": 3, "ended": 10, "conserved": true, "handshakes": {},
            "ends": {
                "forwarded": { "count": 7, "meaning": "sent on" },
                "drop_no_rule": { "count": 3, "meaning": "no rule allows it" },
                "drop_mac1": { "count": 0, "meaning": "wrong MAC" },
            },
        })
    }

    #[test]
    fn the_law_is_checked_by_adding_up() {
        Counters::read(&answer()).unwrap().check_conserved().unwrap();
        let spoils: [(&str, Value); 6] = [
            ("/received", json!(11)),
            ("/held", json!(0)),
            ("/handed_in", json!(0)),
            ("/handed_out", json!(3)),
            ("/ended", json!(9)),
            ("/conserved", json!(false)),
        ];
        for (field, value) in spoils {
            let mut answer = answer();
            *answer.pointer_mut(field).unwrap() = value;
            let counters = Counters::read(&answer).unwrap();
            assert!(counters.check_conserved().is_err(), "{field} changed, and nobody saw it");
        }
    }

    #[test]
    fn unknown_ends_are_failures_and_met_ends_are_sorted() {
        let counters = Counters::read(&answer()).unwrap();
        assert_eq!(counters.end("drop_mac1").unwrap(), 0);
        assert!(counters.end("drop_mac").is_err());
        let met: Vec<_> =
            counters.met().into_iter().map(|(name, count, _)| (name, count)).collect();
        assert_eq!(met, [("forwarded", 7), ("drop_no_rule", 3)]);
        assert!(Counters::read(&json!({ "received": 1 })).is_err());
    }
}
