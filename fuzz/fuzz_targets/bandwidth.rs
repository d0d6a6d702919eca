//! The bandwidth estimator.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::media::fuzz::bandwidth(data, std::time::Instant::now());
});
