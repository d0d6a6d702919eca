//! Layer choice and renumbering, for a consumer with changing wishes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::media::layers::fuzz::layers(data);
});
