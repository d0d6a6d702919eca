//! STUN beside the crate `stun`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shardcast_fuzz::survive_their_panics(), |data: &[u8]| {
    shardcast_fuzz::stun_oracle::stun(data);
});
