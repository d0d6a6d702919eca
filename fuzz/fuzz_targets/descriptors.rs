//! What stands in front of the pieces of video frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::wire::fuzz::descriptors(data);
});
