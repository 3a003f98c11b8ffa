//! What the ends of a flow are told when it is not allowed any more: nothing, resets, or an ICMP
//! error, as `[flows] on_revoke` says.
//!
//! INVARIANT: answers are to packets that ended as [`End::DropRevoked`], and so to an end of a flow
//! that a rule allowed, whose address is genuine. A stranger is told nothing; a reset or an error is
//! never answered. Both are shorter than what they answer, or not much longer, and few a second.

use bulkhead_link::{End, OnRevoke};
use bulkhead_table::View;
use bulkhead_wire::Transport;
use bulkhead_wire::tcp::{self, ResetTo};
use bulkhead_xsk::Frame;

use crate::limits::{BATCH_MAX, REVOCATIONS_PER_SECOND};
use crate::neighbour::Neighbours;
use crate::packet::Transit;
use crate::setup::Setup;
use crate::stage::{complain, route};

/// Writes the answers that `batch` deserves into frames of `pool`, and appends them to `answers`, which
/// grows to [`BATCH_MAX`] at most.
pub fn revoke(
    batch: &[Transit],
    (view, setup, neighbours): (&View<'_>, &Setup, &Neighbours),
    allowance: &mut complain::Allowance,
    now_s: u32,
    pool: &mut Vec<Frame>,
    answers: &mut Vec<Transit>,
) {
    let revoked = |transit: &&Transit| transit.end == Some(End::DropRevoked);
    for about in batch.iter().filter(revoked) {
        let told: &[Told] = match (setup.on_revoke, about.inner.map(|inner| inner.transport)) {
            (OnRevoke::Drop, _) | (_, None) => return,
            (OnRevoke::Reset, Some(Transport::Tcp { .. })) => {
                &[Told::Reset(ResetTo::Sender), Told::Reset(ResetTo::Receiver)]
            }
            (OnRevoke::Reset | OnRevoke::Unreachable, Some(_)) => &[Told::Error],
        };
        for told in told {
            if answers.len() >= BATCH_MAX || !allowance.take(now_s, REVOCATIONS_PER_SECOND) {
                return;
            }
            let Some(frame) = pool.pop() else { return };
            let answer = match told {
                Told::Error => complain::complain(about, frame, setup),
                Told::Reset(to) => {
                    let hop = match to {
                        ResetTo::Sender => complain::way_back(about),
                        ResetTo::Receiver => {
                            route::hop_of(about, view, setup, neighbours).ok().map(|(hop, _)| hop)
                        }
                    };
                    complain::originate(frame, hop, |room| {
                        tcp::write_reset(*to, about.bytes(), room)
                    })
                }
            };
            match answer {
                Ok(answer) => answers.push(answer),
                Err(frame) => pool.push(frame),
            }
        }
    }
}

/// One answer.
#[derive(Clone, Copy)]
enum Told {
    Reset(ResetTo),
    Error,
}
