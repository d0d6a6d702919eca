//! STUN messages, read and answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::wire::stun::fuzz(data);
});
