//! A handshake behind its gate: tampered, flooded, and honest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::transport::fuzz::dtls(data, std::time::Instant::now());
});
