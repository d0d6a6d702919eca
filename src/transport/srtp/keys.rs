//! Master keys, and the session keys derived from them (RFC 3711 §4.3, RFC 7714 §11).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::{Zeroize, Zeroizing};

use super::Profile;

/// Longest master key of any profile, in bytes.
const MAX_KEY_LEN: usize = 32;

/// Bytes of the master salt in the key derivation, whatever the profile (RFC 3711 §4.3.1).
const KDF_SALT_LEN: usize = 14;

/// Master keys and salts of both directions. Cannot be printed, and are wiped when dropped.
pub struct Keys {
    profile: Profile,
    local: Direction,
    remote: Direction,
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
    /// salt). `None` if `material` is shorter than [`Profile::material_len`]; what follows is ignored.
    pub fn from_dtls(profile: Profile, material: &[u8], we_are_client: bool) -> Option<Self> {
        let material = material.get(..profile.material_len())?;
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        let client = Master { key: client_key, salt: client_salt };
        let server = Master { key: server_key, salt: server_salt };
        let (local, remote) = if we_are_client { (client, server) } else { (server, client) };
        Self::new(profile, local, remote)
    }

    /// From keys agreed on otherwise: `local` seals what we send, `remote` opens what we receive.
    /// `None` if a length is not the profile's.
    pub fn new(profile: Profile, local: Master<'_>, remote: Master<'_>) -> Option<Self> {
        Some(Self {
            profile,
            local: Direction::new(profile, local)?,
            remote: Direction::new(profile, remote)?,
        })
    }

    /// The same keys as the peer holds them: local and remote exchanged.
    pub fn swapped(&self) -> Self {
        Self { profile: self.profile, local: self.remote.clone(), remote: self.local.clone() }
    }

    /// The profile they are for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What our own packets are sealed with.
    pub(super) fn local(&self) -> &Direction {
        &self.local
    }

    /// What the peer's packets are opened with.
    pub(super) fn remote(&self) -> &Direction {
        &self.remote
    }
}

/// What a derived key is for: the label of RFC 3711 §4.3.1 and §4.3.2.
#[derive(Clone, Copy)]
pub(super) enum Label {
    RtpCipher = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpCipher = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// One direction's master key and salt.
#[derive(Clone)]
pub(super) struct Direction {
    key: [u8; MAX_KEY_LEN],
    key_len: usize,
    /// A salt of 96 bits is filled up with zeros (RFC 7714 §11).
    salt: [u8; KDF_SALT_LEN],
}

impl Direction {
    fn new(profile: Profile, master: Master<'_>) -> Option<Self> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return None;
        }
        let (mut key, mut salt) = ([0; MAX_KEY_LEN], [0; KDF_SALT_LEN]);
        key[..master.key.len()].copy_from_slice(master.key);
        salt[..master.salt.len()].copy_from_slice(master.salt);
        Some(Self { key, key_len: master.key.len(), salt })
    }

    /// The master key.
    fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    /// Derives `N` bytes for `label` with AES-CM of the master key's size as the pseudo-random
    /// function (RFC 3711 §4.3.3, RFC 6188 §3). The key derivation rate is 0, as DTLS-SRTP has it
    /// (RFC 5764 §4.1.2), so that the packet index takes no part.
    pub(super) fn derive<const N: usize>(&self, label: Label) -> Zeroizing<[u8; N]> {
        let mut counter = [0; 16];
        counter[..KDF_SALT_LEN].copy_from_slice(&self.salt);
        // The label stands before the 48 bits of (index DIV rate), all aligned to the salt's end.
        counter[KDF_SALT_LEN - 7] ^= label as u8;
        let mut bytes = Zeroizing::new([0; N]);
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        aes_ctr(self.key())
            .less_safe_encrypt(&mut *bytes, context)
            .expect("CTR takes every length and this IV is 128 bits long");
        bytes
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

/// An AES key schedule for counter mode. `key` is 16 or 32 bytes long, as every profile's is.
pub(super) fn aes_ctr(key: &[u8]) -> EncryptingKey {
    let algorithm = if key.len() == MAX_KEY_LEN { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .expect("AES takes every key of the right length")
}

#[cfg(test)]
mod tests {
    use super::super::testing::hex;
    use super::*;

    fn direction(key: &str, salt: &str) -> Direction {
        let (key, salt) = (hex(key), hex(salt));
        let mut direction =
            Direction { key: [0; MAX_KEY_LEN], key_len: key.len(), salt: [0; KDF_SALT_LEN] };
        direction.key[..key.len()].copy_from_slice(&key);
        direction.salt[..salt.len()].copy_from_slice(&salt);
        direction
    }

    /// RFC 3711 appendix B.3; its 94 bytes of authentication key need 6 blocks of the counter.
    #[test]
    fn derives_the_keys_of_rfc_3711_b3() {
        let master = direction("E1F97A0D3E018BE0D64FA32C06DE4139", "0EC675AD498AFEEBB6960B3AABE6");
        assert_eq!(
            master.derive::<16>(Label::RtpCipher)[..],
            hex("C61E7A93744F39EE10734AFE3FF7A087")
        );
        assert_eq!(master.derive::<14>(Label::RtpSalt)[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            master.derive::<94>(Label::RtpAuth)[..],
            hex(concat!(
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE",
                "E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25",
                "6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2",
            ))
        );
    }

    /// RFC 6188 §7.2: the pseudo-random function of the 256-bit profile.
    #[test]
    fn derives_the_keys_of_rfc_6188() {
        let master = direction(
            "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
            "3b04803de51ee7c96423ab5b78d2",
        );
        assert_eq!(
            master.derive::<32>(Label::RtpCipher)[..],
            hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
        );
        assert_eq!(master.derive::<14>(Label::RtpSalt)[..], hex("fa31791685ca444a9e07c6c64e93"));
        assert_eq!(
            master.derive::<20>(Label::RtpAuth)[..],
            hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
        );
    }

    /// RFC 5764 §4.2: client key, server key, client salt, server salt.
    #[test]
    fn splits_exported_material_in_the_order_of_rfc_5764() {
        for profile in Profile::ALL {
            let material: Vec<u8> = (0..profile.material_len() as u8).collect();
            let (key, salt) = (profile.key_len(), profile.salt_len());
            let client = Keys::from_dtls(profile, &material, true).unwrap();
            assert_eq!(client.local.key(), &material[..key]);
            assert_eq!(client.remote.key(), &material[key..2 * key]);
            assert_eq!(client.local.salt[..salt], material[2 * key..2 * key + salt]);
            assert_eq!(client.remote.salt[..salt], material[2 * key + salt..]);
            assert!(client.local.salt[salt..].iter().all(|&byte| byte == 0));

            let server = Keys::from_dtls(profile, &material, false).unwrap();
            assert_eq!(server.local.key(), client.remote.key());
            assert_eq!(server.remote.salt, client.local.salt);
            assert_eq!(server.swapped().local.key(), client.local.key());
        }
    }

    #[test]
    fn refuses_keys_of_another_length() {
        for profile in Profile::ALL {
            let material = vec![7; profile.material_len()];
            let short = &material[..material.len() - 1];
            assert!(Keys::from_dtls(profile, short, true).is_none());
            let fits = Master {
                key: &material[..profile.key_len()],
                salt: &material[..profile.salt_len()],
            };
            let long_salt = Master { salt: &material[..profile.salt_len() + 1], ..fits };
            let short_key = Master { key: &material[..profile.key_len() - 1], ..fits };
            assert!(Keys::new(profile, fits, fits).is_some());
            assert!(Keys::new(profile, fits, long_salt).is_none());
            assert!(Keys::new(profile, short_key, fits).is_none());
        }
    }
}
