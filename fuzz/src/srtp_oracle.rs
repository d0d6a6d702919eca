//! SRTP and SRTCP beside the crate `webrtc-srtp`.

use arbitrary::{Arbitrary, Unstructured};
use shardcast::transport::srtp::{
    Keys, MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, Master, Profile, Receiver, Sender,
};
use shardcast::wire::fuzz::Bytes;
use shardcast::wire::rtp::Header;
use shardcast::wire::seq::SeqNo;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::rtp_oracle::is_read_alike;
use crate::theirs;

/// Packets of one run.
const MAX_STEPS: usize = 100;

#[derive(Arbitrary, Debug)]
struct Step {
    packet: Bytes,
    /// How far an RTP packet's number lies ahead of the one before.
    ahead: i8,
    is_rtcp: bool,
    /// Changes a byte of what was sealed.
    change: Option<(u16, u8)>,
}

/// Seals and opens the same packets with both.
///
/// Known of `webrtc-srtp` 0.17, and not compared: it panics on RTCP of fewer than 8 bytes and on RTP with lying
/// extension lengths, or encrypts another part of it; it does not look at the version.
///
/// # Panics
/// When both seal a packet, and not to the same bytes; when both open one, and not to the same; or when one is
/// opened that was changed.
pub fn srtp(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(choice) = input.arbitrary::<u8>() else { return };
    let mut world = World::new(choice);
    let mut seq = SeqNo(1000);
    for step in
        input.arbitrary_iter::<Step>().into_iter().flatten().map_while(Result::ok).take(MAX_STEPS)
    {
        seq = SeqNo(seq.0.saturating_add_signed(step.ahead.into()));
        if step.is_rtcp {
            world.rtcp(&step)
        } else {
            world.rtp(&step, seq)
        };
    }
}

/// The same key for all four.
struct World {
    sender: Sender,
    receiver: Receiver,
    their_sender: Context,
    their_receiver: Context,
}

impl World {
    fn new(choice: u8) -> Self {
        let profile = Profile::ALL[usize::from(choice) % Profile::ALL.len()];
        let (key, salt) = (vec![choice; profile.key_len()], vec![!choice; profile.salt_len()]);
        let master = Master { key: &key, salt: &salt };
        let keys = Keys::new(profile, master, master).expect("the profile's own lengths");
        let their_profile = match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        let context = || {
            let windows = (Some(srtp_replay_protection(64)), Some(srtcp_replay_protection(64)));
            Context::new(&key, &salt, their_profile, windows.0, windows.1).expect("likewise")
        };
        Self {
            sender: Sender::new(&keys),
            receiver: Receiver::new(&keys),
            their_sender: context(),
            their_receiver: context(),
        }
    }

    fn rtp(&mut self, step: &Step, seq: SeqNo) {
        let mut plain = step.packet.0.clone();
        let Some(number) = plain.get_mut(2..4) else { return };
        number.copy_from_slice(&seq.wire().to_be_bytes());
        if !Header::parse(&plain).is_ok_and(|header| is_read_alike(&plain, &header)) {
            return;
        }
        let mut sealed = plain.clone();
        sealed.resize(plain.len() + MAX_RTP_OVERHEAD, 0);
        let len = self.sender.seal_rtp(seq, &mut sealed, plain.len()).expect("room for the tag");
        sealed.truncate(len);
        if let Some(Ok(theirs)) = theirs(|| self.their_sender.encrypt_rtp(&plain)) {
            // Their rollover count follows what they have seen, which is not always where we are.
            assert!(seq.0 >= 1 << 16 || theirs == sealed, "sealed alike");
        }
        let is_changed = change(&mut sealed, step.change);
        let opened_by_them = theirs(|| self.their_receiver.decrypt_rtp(&sealed));
        let opened_by_us = self.receiver.open_rtp(&mut sealed);
        assert!(!is_changed || opened_by_us.is_err());
        if let (Ok(ours), Some(Ok(theirs))) = (opened_by_us, opened_by_them) {
            assert_eq!((&sealed[..ours.len], &theirs[..]), (&plain[..], &plain[..]));
        }
    }

    fn rtcp(&mut self, step: &Step) {
        let plain = &step.packet.0;
        let mut sealed = plain.clone();
        sealed.resize(plain.len() + MAX_RTCP_OVERHEAD, 0);
        let Some(len) = self.sender.seal_rtcp(&mut sealed, plain.len()) else { return };
        sealed.truncate(len);
        let is_changed = change(&mut sealed, step.change);
        let opened_by_them = theirs(|| self.their_receiver.decrypt_rtcp(&sealed));
        let opened_by_us = self.receiver.open_rtcp(&mut sealed);
        assert!(!is_changed || opened_by_us.is_err());
        if let (Ok(len), Some(Ok(theirs))) = (opened_by_us, opened_by_them) {
            assert_eq!((&sealed[..len], &theirs[..]), (&plain[..], &plain[..]));
        }
    }
}

fn change(packet: &mut [u8], change: Option<(u16, u8)>) -> bool {
    let Some((at, bits)) = change.filter(|_| !packet.is_empty()) else { return false };
    let at = usize::from(at) % packet.len();
    packet[at] ^= bits;
    bits != 0
}
