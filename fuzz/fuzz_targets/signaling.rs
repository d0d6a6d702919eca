//! What clients write to the control thread.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::control::fuzz::signaling(data);
});
