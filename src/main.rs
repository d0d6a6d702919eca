//! Arguments, start control and shards, wait for the signal; nothing else.
fn main() {}
