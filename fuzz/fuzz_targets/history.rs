//! The packet history.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::media::fuzz::history(data, std::time::Instant::now());
});
