//! Handshake responses on their way out: each waits until the worker that will open what the peer
//! answers has the keys for it.
//!
//! A peer may send data the moment it has our response. A worker takes new keys between two batches,
//! so a response that leaves at once can be overtaken: the first packets of the session would find
//! no session.
//!
//! INVARIANT: a response leaves after its session was installed, or never. At most one waits for each
//! session index.

use std::collections::BTreeMap;

use bulkhead_link::SessionIndex;

use crate::handshake::Datagram;

/// Type of a handshake response (whitepaper §5.4.3), and where its sender index stands.
const RESPONSE: u8 = 2;
const SENDER_AT: usize = 4;

/// Sessions as responder that are not both installed and answered.
#[derive(Debug, Default)]
pub(super) struct Responses(BTreeMap<SessionIndex, Waits>);

/// What a session waits for.
#[derive(Debug)]
enum Waits {
    Both,
    Installation(Datagram),
    Response,
}

impl Responses {
    /// The keys of a session were sent to the datapath.
    pub(super) fn sent(&mut self, index: SessionIndex) {
        self.0.insert(index, Waits::Both);
    }

    /// The handshake thread wants something sent; returns what may leave now. The response of a
    /// session that the datapath was not given never may.
    pub(super) fn wanted(&mut self, datagram: Datagram) -> Option<Datagram> {
        let Some(index) = announced(&datagram.bytes) else { return Some(datagram) };
        match self.0.remove(&index)? {
            Waits::Response => Some(datagram),
            Waits::Both | Waits::Installation(_) => {
                self.0.insert(index, Waits::Installation(datagram));
                None
            }
        }
    }

    /// The datapath has the keys; returns the response that waited for that.
    pub(super) fn installed(&mut self, index: SessionIndex) -> Option<Datagram> {
        match self.0.remove(&index)? {
            Waits::Installation(datagram) => Some(datagram),
            Waits::Both | Waits::Response => {
                self.0.insert(index, Waits::Response);
                None
            }
        }
    }

    /// The session is gone.
    pub(super) fn retired(&mut self, index: SessionIndex) {
        self.0.remove(&index);
    }

    /// All sessions are gone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The session that a message announces, if it is a response.
fn announced(message: &[u8]) -> Option<SessionIndex> {
    let bytes = message.get(SENDER_AT..)?.first_chunk::<4>()?;
    (message.first() == Some(&RESPONSE)).then_some(SessionIndex(u32::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u8, index: u32) -> Datagram {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(index.to_le_bytes());
        let remote = "192.0.2.1:51820".parse().unwrap();
        Datagram { remote, local: None, udp_port: 51_820, bytes }
    }

    #[test]
    fn a_response_leaves_after_its_session_was_installed_whatever_comes_first() {
        let index = SessionIndex(7);
        let mut responses = Responses::default();
        responses.sent(index);
        assert_eq!(responses.wanted(datagram(2, 7)), None);
        assert_eq!(responses.installed(SessionIndex(8)), None, "another");
        assert_eq!(responses.installed(index), Some(datagram(2, 7)));
        assert_eq!(responses.installed(index), None, "once");

        responses.sent(index);
        assert_eq!(responses.installed(index), None);
        assert_eq!(responses.wanted(datagram(2, 7)), Some(datagram(2, 7)));
        assert_eq!(responses.wanted(datagram(2, 7)), None, "once");
    }

    #[test]
    fn initiations_do_not_wait_and_responses_without_a_session_never_leave() {
        let mut responses = Responses::default();
        assert_eq!(responses.wanted(datagram(1, 7)), Some(datagram(1, 7)));
        assert_eq!(responses.wanted(datagram(2, 7)), None);
        responses.sent(SessionIndex(7));
        responses.retired(SessionIndex(7));
        assert_eq!(responses.wanted(datagram(2, 7)), None);
        responses.sent(SessionIndex(7));
        responses.clear();
        assert_eq!(responses.wanted(datagram(2, 7)), None);
        assert_eq!(responses.0.len(), 0, "nothing stays behind");
    }
}
