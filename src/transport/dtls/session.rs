//! What stays of DTLS when the handshake is done: the last flight, for a peer that did not get it, and both
//! sides' goodbyes.

use std::time::Instant;

use super::framing::{ALERT, HANDSHAKE, records};
use super::suites::Opener;
use super::{FIRST_RETRANSMISSION, MTU};
use crate::wire::MAX_DATAGRAM;

/// Times that the last flight is sent again, each after twice the wait of the time before: the last one more than
/// a minute after the first, when every client has long since given up.
const MAX_REPEATS: u8 = 10;

/// A handshake message's type (RFC 5246 §7.4): with it the peer's last flight ends.
const FINISHED: u8 = 20;
/// An alert's level and descriptions (RFC 5246 §7.2).
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;

/// A DTLS association after its handshake. It seals nothing: what it may have to say was sealed by the handshake.
pub struct Session {
    opener: Opener,
    /// The last flight, empty if it was the peer's; behind it the goodbye, empty if the handshake gave none.
    sealed: Box<[u8]>,
    flight_len: u16,
    owes: Option<Owed>,
    repeats: u8,
    /// When the last flight may be sent again at the earliest.
    repeat_from: Instant,
}

#[derive(Clone, Copy)]
enum Owed {
    Flight,
    Goodbye,
}

// There is one per connected transport, and its sealed bytes.
const _: () = assert!(size_of::<Session>() <= 112);

impl Session {
    /// What a handshake leaves that ends `now`: its last flight is yet to be sent, if it has one.
    pub fn new(now: Instant, opener: Opener, flight: &[u8], goodbye: &[u8]) -> Self {
        // A ChangeCipherSpec and a Finished: 75 bytes.
        let flight = if flight.len() <= MTU { flight } else { &[] };
        Self {
            opener,
            sealed: [flight, goodbye].concat().into(),
            flight_len: flight.len() as u16,
            owes: (!flight.is_empty()).then_some(Owed::Flight),
            repeats: 0,
            repeat_from: now + FIRST_RETRANSMISSION,
        }
    }

    /// Takes a well-formed datagram; whether it ends the association. Of what was not sealed by the peer
    /// nothing is believed.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let protected = records(datagram).filter(|record| record.epoch() == 1);
        for record in protected.filter(|record| [ALERT, HANDSHAKE].contains(&record.kind())) {
            let mut buffer = [0; MAX_DATAGRAM];
            let Some(plain) = self.opener.open(record, &mut buffer) else { continue };
            let ends = match (record.kind(), plain) {
                // Of alerts that end nothing, none asks for an answer.
                (ALERT, [level, description, ..]) => {
                    *level == FATAL || *description == CLOSE_NOTIFY
                }
                (ALERT, _) => false,
                // A Finished again means that ours was lost (RFC 6347 §4.2.4); the same bytes as before do, for they
                // are new to who has not got them.
                (_, [FINISHED, ..]) => {
                    self.repeat(now);
                    false
                }
                // It would begin another handshake, for which there is no use.
                _ => true,
            };
            if ends {
                return true;
            }
        }
        false
    }

    /// The next datagram to send, written into `buffer`.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let (flight, goodbye) = self.sealed.split_at(self.flight_len.into());
        let datagram = match self.owes.take()? {
            Owed::Flight => flight,
            Owed::Goodbye => goodbye,
        };
        // Nothing to say is not said in an empty datagram.
        if datagram.is_empty() {
            return None;
        }
        buffer.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(datagram.len())
    }

    /// Tells the peer that we go (RFC 5246 §7.2.1), if there is a goodbye.
    pub fn close(&mut self) {
        self.owes = Some(Owed::Goodbye);
    }

    fn repeat(&mut self, now: Instant) {
        if self.flight_len == 0 || self.repeats == MAX_REPEATS || now < self.repeat_from {
            return;
        }
        self.repeats += 1;
        self.repeat_from = now + FIRST_RETRANSMISSION * (1 << self.repeats);
        self.owes = Some(Owed::Flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHT: &[u8] = b"Finished";
    const GOODBYE: &[u8] = b"close_notify";

    /// All that a session sends that is closed at once, or after its last flight.
    fn sent(flight: &[u8], goodbye: &[u8], at_once: bool) -> Vec<Vec<u8>> {
        let mut session = Session::new(Instant::now(), Opener::for_test(), flight, goodbye);
        let mut buffer = [0; MAX_DATAGRAM];
        let mut all = Vec::new();
        for closes in if at_once { vec![true] } else { vec![false, true] } {
            if closes {
                session.close();
            }
            while let Some(len) = session.poll_transmit(&mut buffer) {
                all.push(buffer[..len].to_vec());
            }
        }
        all
    }

    #[test]
    fn a_goodbye_that_is_there_is_said_once() {
        assert_eq!(sent(FLIGHT, GOODBYE, false), [FLIGHT, GOODBYE]);
        assert_eq!(sent(FLIGHT, GOODBYE, true), [GOODBYE]);
        assert_eq!(sent(&[], GOODBYE, true), [GOODBYE]);
    }

    #[test]
    fn without_a_goodbye_nothing_is_sent() {
        assert_eq!(sent(FLIGHT, &[], false), [FLIGHT]);
        assert!(sent(FLIGHT, &[], true).is_empty());
        assert!(sent(&[], &[], true).is_empty());
    }
}
