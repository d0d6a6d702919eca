//! RTP beside the crate `rtp`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shardcast_fuzz::survive_their_panics(), |data: &[u8]| {
    shardcast_fuzz::rtp_oracle::rtp(data);
});
