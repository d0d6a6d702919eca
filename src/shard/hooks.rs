//! How a test makes a real shard fail or stand still: with a datagram to its port. Built with the feature
//! `test-hooks` alone.

use std::thread::sleep;
use std::time::Duration;

use super::wake::Waker;
use crate::room::Datagram;

/// No protocol of ours begins with this byte (RFC 7983 §7).
const FAIL: &[u8] = b"\xffshardcast-test: fail";
/// With a number of milliseconds as text behind it, or [`GIVEN_UP`].
const STALL: &[u8] = b"\xffshardcast-test: stall ";
/// Goes on where it stood once nobody waits for it any more.
const GIVEN_UP: &str = "until given up";

/// Does what a test has asked for.
pub(super) fn obey(drain: &[Datagram<'_>], waker: &Waker) {
    for datagram in drain {
        assert!(*datagram.bytes != *FAIL, "a test makes this shard fail");
        let until = datagram.bytes.strip_prefix(STALL).and_then(|text| str::from_utf8(text).ok());
        match until {
            Some(GIVEN_UP) => {
                while !waker.is_given_up() {
                    sleep(Duration::from_millis(10));
                }
            }
            Some(millis) => {
                sleep(Duration::from_millis(millis.parse().unwrap_or_default()));
            }
            None => {}
        }
    }
}
