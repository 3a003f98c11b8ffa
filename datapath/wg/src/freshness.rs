//! Which initiations of a peer are new (ADR 9).
//!
//! ```text
//!        accepted before            never accepted                   remembered one by one
//!   ─────────────────────────┬──────────────────────────┬─────────×───×──────×──────────▶ label
//!                         greatest          our clock + TOLERANCE
//! ```
//!
//! A label up to our clock is accepted if it is greater than all before; that is the protocol's rule
//! (whitepaper §5.1). One that is further ahead is accepted too, but does not raise the mark: else a
//! peer whose clock was once set to next year could not connect until then (CVE-2021-46873). It is
//! remembered by itself instead.
//!
//! INVARIANT: no label is accepted twice. Whatever a peer did with its clock, and however often, once
//! its clock is right it is accepted at once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::noise::HandshakeError;
use crate::tai64n::Tai64n;

/// How far a peer's clock may be ahead of ours before its labels count as of the future. More: a
/// peer whose clock is set right waits that long. Less: peers with ordinary clocks use up
/// [`AHEAD_MAX`].
pub const TOLERANCE: Duration = Duration::from_secs(180);

/// Labels of the future that are remembered of one peer: more than two hours of sessions with a
/// clock that is wrong. Then such labels are refused, until the clocks agree.
pub const AHEAD_MAX: usize = 64;

/// What was accepted of one peer. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    greatest: Tai64n,
    /// All greater than `greatest`.
    ahead: BTreeSet<Tai64n>,
}

impl Freshness {
    /// As an earlier process left it.
    #[must_use]
    pub fn restored(greatest: Tai64n, ahead: impl IntoIterator<Item = Tai64n>) -> Self {
        let ahead = ahead.into_iter().filter(|label| *label > greatest).take(AHEAD_MAX).collect();
        Self { greatest, ahead }
    }

    /// The greatest label that counts as of the past.
    #[must_use]
    pub const fn greatest(&self) -> Tai64n {
        self.greatest
    }

    /// Labels of the future, in order.
    pub fn ahead(&self) -> impl Iterator<Item = Tai64n> + '_ {
        self.ahead.iter().copied()
    }

    /// Whether an initiation with this label is new. `wall_clock` is ours, since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Replayed`] if it was accepted, or is older than one that was;
    /// [`HandshakeError::AheadOfTime`] if too many of the future were.
    pub fn judge(&self, label: Tai64n, wall_clock: Duration) -> Result<(), HandshakeError> {
        if label <= self.greatest || self.ahead.contains(&label) {
            return Err(HandshakeError::Replayed);
        }
        if label > horizon(wall_clock) && self.ahead.len() >= AHEAD_MAX {
            return Err(HandshakeError::AheadOfTime);
        }
        Ok(())
    }

    /// The initiation was accepted: [`Self::judge`] said so with the same arguments.
    pub fn accept(&mut self, label: Tai64n, wall_clock: Duration) {
        if label > horizon(wall_clock) {
            self.ahead.insert(label);
        } else {
            self.greatest = self.greatest.max(label);
            self.ahead.retain(|label| *label > self.greatest);
        }
    }
}

fn horizon(wall_clock: Duration) -> Tai64n {
    Tai64n::from_unix(wall_clock.saturating_add(TOLERANCE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label(seconds: u64) -> Tai64n {
        Tai64n::from_unix(Duration::from_secs(seconds))
    }

    fn tell(fresh: &mut Freshness, at: u64, now: u64) -> Result<(), HandshakeError> {
        let now = Duration::from_secs(now);
        fresh.judge(label(at), now)?;
        fresh.accept(label(at), now);
        Ok(())
    }

    /// CVE-2021-46873.
    #[test]
    fn a_stolen_clock_does_not_lock_a_peer_out() {
        const NOW: u64 = 1_800_000_000;
        const NEXT_YEAR: u64 = NOW + 365 * 86_400;
        let mut fresh = Freshness::default();
        tell(&mut fresh, NOW, NOW).unwrap();
        for n in 0..10 {
            tell(&mut fresh, NEXT_YEAR + 120 * n, NOW + 120 * n).unwrap();
        }
        // The clock is right again.
        tell(&mut fresh, NOW + 1_200, NOW + 1_200).unwrap();
        // What was recorded meanwhile is of no use to anyone, now or next year.
        for now in [NOW + 1_200, NEXT_YEAR - 1, NEXT_YEAR + 5_000] {
            for n in 0..10 {
                let replay = tell(&mut fresh.clone(), NEXT_YEAR + 120 * n, now);
                assert_eq!(replay, Err(HandshakeError::Replayed), "at {now}");
            }
        }
        // And next year the peer connects as ever.
        tell(&mut fresh, NEXT_YEAR + 60, NEXT_YEAR + 60).unwrap();
    }

    #[test]
    fn the_memory_of_the_future_is_bounded_and_closes() {
        let mut fresh = Freshness::default();
        for n in 0..AHEAD_MAX as u64 {
            tell(&mut fresh, 1_000_000 + n, 1_000).unwrap();
        }
        assert_eq!(tell(&mut fresh, 2_000_000, 1_000), Err(HandshakeError::AheadOfTime));
        tell(&mut fresh, 1_001, 1_000).unwrap();
        // Our clock was the wrong one: set right, it makes those labels the past.
        tell(&mut fresh, 2_000_000, 2_000_000).unwrap();
        assert_eq!((fresh.greatest(), fresh.ahead().count()), (label(2_000_000), 0));
    }

    proptest! {
        /// Twin: the set of all labels ever accepted. Small domains around the horizon.
        #[test]
        fn no_label_is_accepted_twice_and_the_present_is_always_welcome(
            steps in prop::collection::vec((0u64..40, 0u64..40, any::<bool>()), 1..300),
        ) {
            let (mut fresh, mut accepted) = (Freshness::default(), BTreeSet::new());
            let (mut met, mut present) = ([0; 3], 0);
            for (at, now, restart) in steps {
                // Seconds in steps of a minute: 40 of them straddle the tolerance of three.
                let (at, now) = (60 * at, 60 * now);
                match tell(&mut fresh, at, now) {
                    Ok(()) => {
                        prop_assert!(accepted.insert(at), "{at} was accepted before");
                        if at <= now + 180 { present = present.max(at); }
                        met[0] += 1;
                    }
                    Err(HandshakeError::Replayed) => {
                        // Only what was accepted, or is not after the last of the present.
                        prop_assert!(accepted.contains(&at) || at <= present);
                        met[1] += 1;
                    }
                    Err(_) => met[2] += 1,
                }
                if restart {
                    let all: Vec<_> = fresh.ahead().collect();
                    fresh = Freshness::restored(fresh.greatest(), all);
                }
            }
            prop_assert_eq!(met[2], 0, "40 labels do not fill the memory");
            // A label after all that were made so far, on time: nobody is locked out.
            tell(&mut fresh, 60 * 41, 60 * 41).unwrap();
        }
    }
}
