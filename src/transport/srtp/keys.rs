//! Master keys, and the session keys derived from them.

use super::Profile;

/// Master keys and salts of both directions. Not printable.
pub struct Keys {
    _todo: (),
}

/// One direction's master key and salt, borrowed from whoever made them.
#[derive(Clone, Copy)]
pub struct Master<'a> {
    /// [`Profile::key_len`] bytes.
    pub key: &'a [u8],
    /// [`Profile::salt_len`] bytes.
    pub salt: &'a [u8],
}

impl Keys {
    /// From DTLS-SRTP keying material (RFC 5764 §4.2: client key, server key, client salt, server
    /// salt). `None` if `material` is shorter than [`Profile::material_len`].
    pub fn from_dtls(profile: Profile, material: &[u8], we_are_client: bool) -> Option<Self> {
        let _ = (profile, material, we_are_client);
        todo!()
    }

    /// From keys agreed on otherwise: `local` seals what we send, `remote` opens what we receive.
    /// `None` if a length is not the profile's.
    pub fn new(profile: Profile, local: Master<'_>, remote: Master<'_>) -> Option<Self> {
        let _ = (profile, local, remote);
        todo!()
    }

    /// The same keys as the peer holds them: local and remote exchanged.
    pub fn swapped(&self) -> Self {
        todo!()
    }

    /// The profile they are for.
    pub fn profile(&self) -> Profile {
        todo!()
    }
}
