//! Two engines and their peers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::room::fuzz::engine(data, std::time::Instant::now());
});
