//! Renumbering.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::media::fuzz::rewrite(data);
});
