//! Loss, and what is asked for again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::media::fuzz::nack(data, std::time::Instant::now());
});
