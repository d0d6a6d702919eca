//! RTCP beside the crate `rtcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shardcast_fuzz::survive_their_panics(), |data: &[u8]| {
    shardcast_fuzz::rtcp_oracle::rtcp(data);
});
