//! The checks of a controlling ICE agent (RFC 8445 §7.2, RFC 7675): all that a peer of an ICE-lite server
//! ever sends.

use std::net::SocketAddr;

use stun::agent::TransactionId;
use stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};

/// The priority of a host candidate's peer-reflexive twin (RFC 8445 §5.1.2.1).
const PRIORITY: u32 = (110 << 24) | (0xffff << 8) | 255;

/// What signaling says about the server's side.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The first UDP candidate.
    pub address: SocketAddr,
    /// Its user name fragment.
    pub ufrag: String,
    /// Its password.
    pub password: String,
}

/// Makes checks.
pub struct Agent {
    username: String,
    integrity: MessageIntegrity,
    tie_breaker: u64,
    current: TransactionId,
}

impl Agent {
    /// The agent of one transport.
    pub fn new(remote: &Remote, tie_breaker: u64) -> Self {
        // Our own fragment: nobody checks us, so it need not be secret.
        let username = format!("{}:{tie_breaker:016x}", remote.ufrag);
        let integrity = MessageIntegrity::new_short_term_integrity(remote.password.clone());
        Self { username, integrity, tie_breaker, current: TransactionId::default() }
    }

    /// A new check that nominates.
    pub fn check(&mut self) -> Result<Vec<u8>, stun::Error> {
        self.current = TransactionId::new();
        let mut message = Message::new();
        let setters: [Box<dyn Setter>; 2] = [Box::new(self.current), Box::new(BINDING_REQUEST)];
        message.build(&setters)?;
        message.add(ATTR_USERNAME, self.username.as_bytes());
        message.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
        message.add(ATTR_ICE_CONTROLLING, &self.tie_breaker.to_be_bytes());
        message.add(ATTR_USE_CANDIDATE, &[]);
        self.integrity.add_to(&mut message)?;
        FINGERPRINT.add_to(&mut message)?;
        Ok(message.raw)
    }

    /// Whether `datagram` answers the latest check with success.
    pub fn is_answer(&self, datagram: &[u8]) -> bool {
        let mut message = Message::new();
        message.unmarshal_binary(datagram).is_ok()
            && message.typ == BINDING_SUCCESS
            && message.transaction_id == self.current
            && self.integrity.check(&mut message).is_ok()
    }
}

/// Whether a datagram is STUN (RFC 7983 §7).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= 20 && datagram[0] < 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_latest_check_counts() {
        let remote = Remote {
            address: ([127, 0, 0, 1], 1).into(),
            ufrag: "abcd".to_owned(),
            password: "p".repeat(24),
        };
        let mut agent = Agent::new(&remote, 7);
        let check = agent.check().expect("a check");
        assert!(is_stun(&check) && !agent.is_answer(&check));
        let answer = |to: &[u8], password: &str| {
            let mut request = Message::new();
            request.unmarshal_binary(to).expect("sound STUN");
            let mut answer = Message::new();
            let setters: [Box<dyn Setter>; 3] = [
                Box::new(request.transaction_id),
                Box::new(BINDING_SUCCESS),
                Box::new(MessageIntegrity::new_short_term_integrity(password.to_owned())),
            ];
            answer.build(&setters).expect("an answer");
            answer.raw
        };
        assert!(agent.is_answer(&answer(&check, &remote.password)));
        assert!(!agent.is_answer(&answer(&check, "another")));
        let old = answer(&check, &remote.password);
        agent.check().expect("a check");
        assert!(!agent.is_answer(&old));
    }
}
