//! Which packets change nothing of a flow, worked out once for all states: the question that is asked of
//! nearly every packet. [`State::after`] and [`Timeouts::stale`] are the slow twins.

use crate::state::{Input, Side, State, Timeouts};

/// Of each state what leaves it as it is, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Steady([Rest; State::COUNT]);

/// Nothing leaves a state with zeros as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// A bit for each [`Input`]; of the opener's packets, and the responder's.
    inputs: [u8; 2],
    /// So many seconds after the registry heard of the flow it must hear again.
    refresh_s: u32,
}

impl Steady {
    /// For these timeouts.
    #[must_use]
    pub fn new(timeouts: &Timeouts) -> Self {
        let mut states = [Rest::default(); State::COUNT];
        for (rest, state) in states.iter_mut().zip(State::ALL) {
            // There is no flow, or none that may go on.
            if matches!(state, State::Free | State::Revoked) {
                continue;
            }
            let quiet = |side, input: Input| {
                u8::from(state.after(side, input) == state && !input.signals()) << input as u8
            };
            let of_side = |side| Input::ALL.into_iter().fold(0, |all, one| all | quiet(side, one));
            *rest = Rest {
                inputs: [Side::Opener, Side::Responder].map(of_side),
                refresh_s: timeouts.refresh_s(state),
            };
        }
        Self(states)
    }

    /// Whether a packet of `side` leaves a flow as it is, of which the registry heard at `seen_s` and need
    /// not hear again at `now_s`. Such a flow has not expired.
    #[inline]
    #[must_use]
    pub fn holds(
        &self,
        (state, seen_s): (State, u32),
        side: Side,
        input: Input,
        now_s: u32,
    ) -> bool {
        let rest = self.0.get(state as usize).copied().unwrap_or_default();
        let inputs = rest.inputs.get(side as usize).copied().unwrap_or_default();
        inputs >> input as u8 & 1 == 1 && now_s.saturating_sub(seen_s) < rest.refresh_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_link::FlowTimeouts;

    #[test]
    fn what_is_steady_changes_no_state_and_is_neither_stale_nor_expired() {
        let set = FlowTimeouts { close: 0, icmp: 1, ..FlowTimeouts::default() };
        let timeouts = Timeouts::from(&set);
        let steady = Steady::new(&timeouts);
        let (mut held, mut not) = (0, 0);
        for state in State::ALL {
            for (side, input) in [Side::Opener, Side::Responder]
                .into_iter()
                .flat_map(|side| Input::ALL.map(|input| (side, input)))
            {
                for (seen_s, now_s) in (0..40).map(|age| (100, 100 + age)).chain([(100, 7)]) {
                    let holds = steady.holds((state, seen_s), side, input, now_s);
                    let twin = !matches!(state, State::Free | State::Revoked)
                        && state.after(side, input) == state
                        && !input.signals()
                        && !timeouts.stale(state, seen_s, now_s);
                    assert_eq!(holds, twin, "{state:?} {side:?} {input:?} {seen_s} {now_s}");
                    assert!(!holds || !timeouts.expired(state, seen_s, now_s));
                    held += u32::from(holds);
                    not += u32::from(!holds);
                }
            }
        }
        assert!(held > 500 && not > 500, "{held} {not}");
    }

    #[test]
    fn all_states_and_inputs_stand_in_their_places() {
        for (at, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, at);
        }
        for (at, input) in Input::ALL.into_iter().enumerate() {
            assert_eq!(input as usize, at);
        }
    }
}
