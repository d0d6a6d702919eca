//! RTP headers and their extensions, read and rewritten.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::wire::fuzz::rtp(data);
});
