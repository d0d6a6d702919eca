//! Differential targets: what the server's parsers and ciphers make of bytes, beside what independent crates make
//! of them. Where both accept, they agree.
//!
//! Each oracle names the inputs on which its crate is known to be wrong; these are not compared. Some make it
//! panic: [`theirs`] takes that for a refusal.

pub mod rtcp_oracle;
pub mod rtp_oracle;
pub mod srtp_oracle;
pub mod stun_oracle;

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static IS_THEIRS: Cell<bool> = const { Cell::new(false) };
}

/// To be called once before the first run: libFuzzer's own hook ends the process at any panic.
pub fn survive_their_panics() {
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !IS_THEIRS.get() {
            end(panic);
        }
    }));
}

/// Calls one of the independent crates; `None` if it panics.
fn theirs<T>(call: impl FnOnce() -> T) -> Option<T> {
    IS_THEIRS.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IS_THEIRS.set(false);
    result.ok()
}
