//! Endpoints that are written by name: when to look one up, and what came of it. Sans-IO: who looks
//! up is the daemon, on a thread of its own, never a worker and never a handshake.
//!
//! ```text
//!              due                    found              the peer gave no answer
//!   Due ─────────────▶ Asked ─────────────────▶ Known ───────────────────────────▶ Due
//!    ▲                   │ not found                                                 (at once, but
//!    └── 5 s … 5 min ────┘                                                            30 s apart)
//! ```
//!
//! A name that answers is not asked again: a peer that moves is found when a handshake with it has
//! failed for REKEY_ATTEMPT_TIME, as everybody's who roams.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_wg::{PublicKey, Time};

/// A host and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// A host name.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// The first pause after a name that was not found. Lower: a resolver that is down is flooded by all
/// names. Higher: a site waits longer after a power cut.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// The longest pause: a name that comes to be is found within it.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A name is not asked for again sooner than this after an answer, however often handshakes fail.
const ANSWER_KEPT: Duration = Duration::from_secs(30);

/// All peers with a name.
#[derive(Debug, Default)]
pub struct Names {
    peers: BTreeMap<PublicKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    state: State,
    /// After the next failure.
    pause: Duration,
    found: Option<SocketAddr>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Due(Time),
    Asked,
    Known { since: Time },
}

impl Names {
    /// Takes these names instead of those before. One that stays keeps what is known of it.
    pub fn set(&mut self, names: impl IntoIterator<Item = (PublicKey, Name)>, now: Time) {
        let mut before = std::mem::take(&mut self.peers);
        for (peer, name) in names {
            let kept = before.remove(&peer).filter(|entry| entry.name == name);
            let fresh = || Entry { name, state: State::Due(now), pause: PAUSE_MIN, found: None };
            self.peers.insert(peer, kept.unwrap_or_else(fresh));
        }
    }

    /// What the peer's name stood for when it was looked up last.
    #[must_use]
    pub fn found(&self, peer: &PublicKey) -> Option<SocketAddr> {
        self.peers.get(peer).and_then(|entry| entry.found)
    }

    /// Names to look up now; each is given once, and waits for [`Self::answered`].
    pub fn due(&mut self, now: Time) -> Vec<(PublicKey, Name)> {
        let due = |entry: &&mut Entry| matches!(entry.state, State::Due(at) if at <= now);
        let all = self.peers.iter_mut().map(|(peer, entry)| (*peer, entry));
        all.filter(|(_, entry)| due(entry))
            .map(|(peer, entry)| {
                entry.state = State::Asked;
                (peer, entry.name.clone())
            })
            .collect()
    }

    /// When [`Self::due`] has something next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let due = |entry: &Entry| match entry.state {
            State::Due(at) => Some(at),
            State::Asked | State::Known { .. } => None,
        };
        self.peers.values().filter_map(due).min()
    }

    /// What looking up `name` led to; nothing: not found. Returns the address if it is another than
    /// before. An answer to a question that nobody has any more is nobody's.
    pub fn answered(
        &mut self,
        peer: PublicKey,
        name: &Name,
        found: &[SocketAddr],
        now: Time,
    ) -> Option<SocketAddr> {
        let entry = self.peers.get_mut(&peer).filter(|entry| entry.name == *name)?;
        if entry.state != State::Asked {
            return None;
        }
        // The one that was used before, if it is still among them: an answer's order is chance.
        let before = entry.found.filter(|address| found.contains(address));
        let Some(address) = before.or_else(|| found.first().copied()) else {
            entry.state = State::Due(now.plus(entry.pause));
            entry.pause = (entry.pause * 2).min(PAUSE_MAX);
            return None;
        };
        (entry.state, entry.pause) = (State::Known { since: now }, PAUSE_MIN);
        (entry.found.replace(address) != Some(address)).then_some(address)
    }

    /// A peer did not answer: perhaps it is elsewhere by now.
    pub fn unanswered(&mut self, peer: &PublicKey) {
        if let Some(entry) = self.peers.get_mut(peer)
            && let State::Known { since } = entry.state
        {
            entry.state = State::Due(since.plus(ANSWER_KEPT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    fn name(host: &str) -> Name {
        Name { host: host.to_owned(), port: 51_820 }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 51_820))
    }

    const PEER: PublicKey = PublicKey([5; 32]);

    fn one() -> Names {
        let mut names = Names::default();
        names.set([(PEER, name("vpn.example.com"))], at(0));
        names
    }

    #[test]
    fn a_name_is_looked_up_once_and_again_after_a_failed_handshake() {
        let mut names = one();
        assert_eq!(names.deadline(), Some(at(0)));
        let asked = names.due(at(0));
        assert_eq!(asked, [(PEER, name("vpn.example.com"))]);
        assert!(names.due(at(1)).is_empty() && names.deadline().is_none(), "asked already");
        let found = names.answered(PEER, &asked[0].1, &[address(1), address(2)], at(1));
        assert_eq!((found, names.found(&PEER)), (Some(address(1)), Some(address(1))));
        assert_eq!(names.deadline(), None, "an answer holds");
        // Handshakes fail: at once, but not more often than every 30 s.
        names.unanswered(&PEER);
        assert_eq!(names.deadline(), Some(at(31)));
        assert_eq!(names.due(at(91)).len(), 1);
        let same = [address(2), address(1)];
        assert_eq!(names.answered(PEER, &asked[0].1, &same, at(91)), None, "still there");
        names.unanswered(&PEER);
        names.due(at(200));
        let moved = names.answered(PEER, &asked[0].1, &[address(9)], at(200));
        assert_eq!((moved, names.found(&PEER)), (Some(address(9)), Some(address(9))));
    }

    #[test]
    fn a_name_that_is_not_found_is_asked_for_ever_more_rarely() {
        let mut names = one();
        let (mut now, mut pauses) = (at(0), vec![]);
        for _ in 0..9 {
            assert_eq!(names.due(now).len(), 1);
            names.unanswered(&PEER);
            assert_eq!(names.answered(PEER, &name("vpn.example.com"), &[], now), None);
            let next = names.deadline().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        names.due(now);
        assert!(names.answered(PEER, &name("vpn.example.com"), &[address(1)], now).is_some());
    }

    #[test]
    fn an_answer_to_a_question_of_before_is_nobodys() {
        let mut names = one();
        names.due(at(0));
        names.set([(PEER, name("new.example.com"))], at(1));
        assert_eq!(names.answered(PEER, &name("vpn.example.com"), &[address(1)], at(2)), None);
        assert_eq!((names.found(&PEER), names.deadline()), (None, Some(at(1))));
        names.set([], at(3));
        assert_eq!(names.deadline(), None);
        assert_eq!(names.answered(PEER, &name("new.example.com"), &[address(1)], at(4)), None);
    }

    #[test]
    fn a_name_that_stays_keeps_its_address() {
        let mut names = one();
        names.due(at(0));
        names.answered(PEER, &name("vpn.example.com"), &[address(1)], at(0));
        names.set([(PEER, name("vpn.example.com"))], at(1));
        assert_eq!((names.found(&PEER), names.deadline()), (Some(address(1)), None));
    }
}
