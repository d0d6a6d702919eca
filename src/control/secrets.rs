//! Random names that must be unique or unguessable: ICE credentials, SSRCs, CNAMEs.

use std::collections::HashSet;

use uuid::Uuid;

use crate::id::Ssrc;
use crate::shard::mailbox::ice::Credentials;

/// Characters of a CNAME: 96 random bits (RFC 7022 §4.2).
const CNAME_LEN: usize = 16;
/// ICE's alphabet (RFC 8445 §5.3), 64 characters, all of them safe in SDP.
const CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Remembers what is in use, so that no name is given out twice at a time.
#[derive(Default)]
pub struct Secrets {
    ufrags: HashSet<String>,
    ssrcs: HashSet<Ssrc>,
}

impl Secrets {
    /// New ICE credentials, whose ufrag no other transport of the process has.
    pub fn credentials(&mut self) -> Credentials {
        loop {
            let credentials = Credentials::random();
            if self.ufrags.insert(credentials.ufrag.clone()) {
                return credentials;
            }
        }
    }

    /// A transport does not use this ufrag any more.
    pub fn release_ufrag(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// A new SSRC, which no other consumer of the process has. Never 0.
    pub fn ssrc(&mut self) -> Ssrc {
        loop {
            let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
            let ssrc = Ssrc(u32::from_be_bytes([a, b, c, d]));
            if ssrc != Ssrc(0) && self.ssrcs.insert(ssrc) {
                return ssrc;
            }
        }
    }

    /// Whether this SSRC will not be given out.
    #[cfg(test)]
    pub fn is_taken(&self, ssrc: Ssrc) -> bool {
        self.ssrcs.contains(&ssrc)
    }

    /// The transport of these SSRCs is gone, and its keys with it.
    pub fn release_ssrcs(&mut self, ssrcs: &[Ssrc]) {
        for ssrc in ssrcs {
            self.ssrcs.remove(ssrc);
        }
    }
}

/// A CNAME for a peer whose client gave none: six random bits per character.
pub fn cname() -> String {
    let mut text = String::with_capacity(CNAME_LEN);
    while text.len() < CNAME_LEN {
        let uuid = Uuid::new_v4();
        // Bytes 6 and 8 carry the UUID's version and variant: not all of their bits are random.
        let random = uuid.as_bytes().iter().enumerate().filter(|(at, _)| ![6, 8].contains(at));
        let chars = random.map(|(_, byte)| char::from(CHARS[usize::from(byte & 63)]));
        text.extend(chars.take(CNAME_LEN - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8445 §5.3: ufrag of 4 to 256, password of 22 to 256 ICE characters.
    #[test]
    fn credentials_obey_ice() {
        let mut secrets = Secrets::default();
        let (one, two) = (secrets.credentials(), secrets.credentials());
        assert_ne!(one.ufrag, two.ufrag);
        assert_ne!(one.password, two.password);
        assert!((4..=256).contains(&one.ufrag.len()) && (22..=256).contains(&one.password.len()));
        let text = one.ufrag + &one.password;
        assert!(text.bytes().all(|byte| CHARS.contains(&byte)), "{text}");
    }

    #[test]
    fn cnames_differ() {
        let (one, two) = (cname(), cname());
        assert_eq!((one.len(), two.len()), (CNAME_LEN, CNAME_LEN));
        assert_ne!(one, two);
    }
}
