//! What a datagram is, and that only its own parser takes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::transport::fuzz::demux(data);
});
