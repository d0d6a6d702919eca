//! SRTP and SRTCP: forged, replayed and reordered packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::transport::srtp::fuzz::fuzz(data);
});
