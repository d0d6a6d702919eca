//! RTP parameters and capabilities, validated and negotiated.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::ortc::fuzz(data);
});
