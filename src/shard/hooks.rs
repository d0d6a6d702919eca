//! How a test makes a real shard fail or stand still: with a datagram to its port. Built with the feature
//! `test-hooks` alone.

use std::thread::sleep;
use std::time::Duration;

use crate::room::Datagram;

/// No protocol of ours begins with this byte (RFC 7983 §7).
const FAIL: &[u8] = b"\xffshardcast-test: fail";
/// With a number of milliseconds as text behind it.
const STALL: &[u8] = b"\xffshardcast-test: stall ";

/// Does what a test has asked for.
pub(super) fn obey(drain: &[Datagram<'_>]) {
    for datagram in drain {
        assert!(*datagram.bytes != *FAIL, "a test makes this shard fail");
        let millis = datagram.bytes.strip_prefix(STALL).and_then(|text| str::from_utf8(text).ok());
        if let Some(millis) = millis.and_then(|text| text.parse().ok()) {
            sleep(Duration::from_millis(millis));
        }
    }
}
