//! SRTP and SRTCP beside the crate `webrtc-srtp`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shardcast_fuzz::survive_their_panics(), |data: &[u8]| {
    shardcast_fuzz::srtp_oracle::srtp(data);
});
