//! RTCP compounds, read and rewritten; feedback of any arrivals.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardcast::wire::fuzz::rtcp(data);
});
