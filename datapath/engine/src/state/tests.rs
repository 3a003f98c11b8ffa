use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;

const TCP: [State; 12] = [SS, SR, AD, ES, FO, FR, CO, CR, LO, LR, TW, CL];
const INPUTS: [Input; 7] =
    [Input::Syn, Input::SynAck, Input::Ack, Input::Fin, Input::Rst, Input::Senseless, Input::Plain];

fn flags(bits: u8) -> Input {
    Input::of(Transport::Tcp { source: 1, destination: 2, flags: TcpFlags(bits) })
}

#[test]
fn what_the_flags_mean() {
    let cases = [
        (0x02, Input::Syn),
        (0xc2, Input::Syn), // with ECE and CWR, RFC 3168 §6.1.1
        (0x12, Input::SynAck),
        (0x10, Input::Ack),
        (0x18, Input::Ack),
        (0x11, Input::Fin),
        (0x01, Input::Fin),
        (0x04, Input::Rst),
        (0x14, Input::Rst),
        (0x15, Input::Rst),
        (0x03, Input::Senseless),
        (0x06, Input::Senseless),
        (0x00, Input::Senseless),
        (0x28, Input::Senseless),
    ];
    for (bits, want) in cases {
        assert_eq!(flags(bits), want, "{bits:#04x}");
    }
    assert_eq!(Input::of(Transport::Udp { source: 1, destination: 2 }), Input::Plain);
    let signals: Vec<_> = INPUTS.into_iter().filter(|input| input.signals()).collect();
    assert_eq!(signals, [Input::Syn, Input::SynAck, Input::Fin, Input::Rst]);
}

/// Every state with every input of both sides. A cell is what changes; what is not named stays.
#[test]
fn tcp_states_from_syn_fin_and_rst() {
    use Side::{Opener, Responder};
    let changes = [
        (SS, Responder, Input::SynAck, SR),
        (SR, Opener, Input::Ack, ES),
        (SR, Opener, Input::Fin, FO),
        (SR, Responder, Input::Fin, FR),
        (AD, Opener, Input::Fin, FO),
        (AD, Responder, Input::Ack, ES),
        (AD, Responder, Input::Fin, FR),
        (ES, Opener, Input::Fin, FO),
        (ES, Responder, Input::Fin, FR),
        (FO, Responder, Input::Ack, CO),
        (FO, Responder, Input::Fin, LO),
        (FR, Opener, Input::Ack, CR),
        (FR, Opener, Input::Fin, LR),
        (CO, Responder, Input::Fin, LO),
        (CR, Opener, Input::Fin, LR),
        (LO, Opener, Input::Ack, TW),
        (LR, Responder, Input::Ack, TW),
    ];
    for (row, state) in TCP.into_iter().enumerate() {
        assert_eq!(state as usize, State::SynSent as usize + row, "the row of the table");
        for side in [Opener, Responder] {
            for input in INPUTS {
                let want = changes
                    .iter()
                    .find(|change| (change.0, change.1, change.2) == (state, side, input))
                    .map(|change| change.3);
                let want = if input == Input::Rst { CL } else { want.unwrap_or(state) };
                assert_eq!(state.after(side, input), want, "{state:?} {side:?} {input:?}");
            }
        }
    }
}

#[test]
fn the_states_of_everything_else() {
    use Side::{Opener, Responder};
    for (state, answered) in [
        (State::Udp, State::UdpStream),
        (State::UdpStream, State::UdpStream),
        (State::Icmp, State::Icmp),
        (State::Other, State::OtherStream),
        (State::OtherStream, State::OtherStream),
        (State::Free, State::Free),
    ] {
        for input in INPUTS {
            assert_eq!(state.after(Opener, input), state);
            assert_eq!(state.after(Responder, input), answered, "{state:?}");
        }
    }
}

/// Mid-stream TCP after a restart: adopted or refused. Only a SYN, or what a host in the middle of
/// a connection sends, opens anything.
#[test]
fn what_opens_a_flow() {
    for input in INPUTS {
        let adopted = matches!(input, Input::Ack | Input::Fin).then_some(AD);
        let syn = (input == Input::Syn).then_some(SS);
        assert_eq!(State::opening(6, input, Midstream::Adopt), syn.or(adopted), "{input:?}");
        assert_eq!(State::opening(6, input, Midstream::Refuse), syn, "{input:?}");
    }
    for (protocol, want) in
        [(17, State::Udp), (1, State::Icmp), (58, State::Icmp), (47, State::Other)]
    {
        assert_eq!(State::opening(protocol, Input::Plain, Midstream::Refuse), Some(want));
    }
}

#[test]
fn timeouts_are_those_of_conntrack_unless_set() {
    let want = [
        (SS, 120),
        (SR, 60),
        (AD, 300),
        (ES, 432_000),
        (FO, 120),
        (FR, 120),
        (CO, 60),
        (CR, 60),
        (LO, 30),
        (LR, 30),
        (TW, 120),
        (CL, 10),
        (State::Udp, 30),
        (State::UdpStream, 120),
        (State::Icmp, 30),
        (State::Other, 600),
        (State::OtherStream, 600),
        (State::Revoked, 10),
    ];
    let timeouts = Timeouts::from(&FlowTimeouts::default());
    for (state, seconds) in want {
        assert!(!timeouts.expired(state, 100, 100 + seconds), "{state:?}");
        assert!(timeouts.expired(state, 100, 101 + seconds), "{state:?}");
        assert!(!timeouts.expired(state, 100, 99), "a clock that stands still");
    }
    for (state, refresh) in [(ES, 16), (AD, 16), (SS, 7), (SR, 3), (State::Udp, 1), (CL, 1)] {
        assert!(!timeouts.stale(state, 100, 99 + refresh), "{state:?}");
        assert!(timeouts.stale(state, 100, 100 + refresh), "{state:?}");
    }
    assert!(timeouts.expired(State::Free, 100, 100), "nothing is there");
    assert_eq!(want.len() + 1, State::COUNT);
    // Each setting reaches its state and no other.
    let odd = FlowTimeouts { close_wait: 7, ..FlowTimeouts::default() };
    let timeouts = Timeouts::from(&odd);
    assert!(
        timeouts.expired(CO, 0, 8) && timeouts.expired(CR, 0, 8) && !timeouts.expired(FO, 0, 8)
    );
}

/// The slow twin: what each side has said, and nothing of rows and columns.
#[derive(Clone, Debug, Default)]
struct Twin {
    adopted: bool,
    syn_answered: bool,
    open: bool,
    reset: bool,
    /// Who has sent FIN, in order.
    fins: Vec<Side>,
    /// Whether the first FIN, and the second, have been acknowledged.
    acknowledged: [bool; 2],
}

impl Twin {
    fn hear(&mut self, side: Side, input: Input) {
        if self.reset || self.acknowledged[1] && input != Input::Rst {
            return;
        }
        match input {
            Input::Rst => self.reset = true,
            Input::SynAck if side == Side::Responder && !self.adopted => self.syn_answered = true,
            Input::Fin if self.may_speak(side) && !self.fins.contains(&side) => {
                if !self.fins.is_empty() {
                    self.acknowledged[0] = true;
                }
                self.open = true;
                self.fins.push(side);
            }
            Input::Ack if self.fins.is_empty() => {
                let opens = if self.adopted { Side::Responder } else { Side::Opener };
                self.open |= side == opens && self.may_speak(side);
            }
            Input::Ack if self.fins.len() == 1 => {
                self.acknowledged[0] |= side != self.fins[0];
            }
            Input::Ack => self.acknowledged[1] |= side == self.fins[0],
            Input::Syn | Input::SynAck | Input::Fin | Input::Senseless | Input::Plain => {}
        }
    }

    /// Before the SYN is answered neither side can have anything to close or acknowledge.
    fn may_speak(&self, _: Side) -> bool {
        self.adopted || self.syn_answered || self.open
    }

    fn state(&self) -> State {
        match (&self.fins[..], self.acknowledged) {
            _ if self.reset => CL,
            ([_, _], [_, true]) => TW,
            ([Side::Opener, _], _) => LO,
            ([Side::Responder, _], _) => LR,
            ([Side::Opener], [true, _]) => CO,
            ([Side::Responder], [true, _]) => CR,
            ([Side::Opener], _) => FO,
            ([Side::Responder], _) => FR,
            _ if self.open => ES,
            _ if self.adopted => AD,
            _ if self.syn_answered => SR,
            _ => SS,
        }
    }
}

/// Goal: the table equals its slow twin over whole connections, and every state is met.
#[test]
fn the_table_equals_its_twin_on_random_connections() {
    let met = RefCell::new(BTreeSet::new());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = proptest::collection::vec((any::<bool>(), 0usize..40), 0..40);
    runner
        .run(&(any::<bool>(), steps), |(adopted, steps)| {
            let mut state = if adopted { AD } else { SS };
            let mut twin = Twin { adopted, ..Twin::default() };
            for (responder, pick) in steps {
                let side = if responder { Side::Responder } else { Side::Opener };
                // RST is rare, or nothing else would be seen.
                let input = match pick {
                    0 => Input::Rst,
                    1 => Input::Senseless,
                    2..8 => Input::Syn,
                    8..16 => Input::SynAck,
                    16..30 => Input::Ack,
                    _ => Input::Fin,
                };
                state = state.after(side, input);
                twin.hear(side, input);
                prop_assert_eq!(state, twin.state(), "{:?}", twin);
                met.borrow_mut().insert(state);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(met.into_inner(), TCP.into_iter().collect::<BTreeSet<_>>());
}
