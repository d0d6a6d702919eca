//! What the control thread runs on.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;

use tokio::task::LocalSet;
use tracing::info;

/// Entries of the control thread's ring: it carries files, not packets.
const RING_ENTRIES: u32 = 64;
/// Pairs of descriptors that a runtime opens, and some more: its poller, its bell, and the pipe of its signals.
const RUNTIME_PAIRS: usize = 4;

/// Runs `main` on this thread: on tokio-uring if `uring` is wanted and the kernel allows it, otherwise on
/// plain tokio. Both drive tokio's sockets and timers.
///
/// Fails only when the process has run out of file descriptors.
pub fn block_on<F: Future>(uring: bool, main: F) -> io::Result<F::Output> {
    // Tokio panics where it cannot make the pipe of its signals.
    drop((0..RUNTIME_PAIRS).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?);
    if uring {
        let mut builder = tokio_uring::builder();
        builder.entries(RING_ENTRIES);
        // `tokio_uring::start` would panic where io_uring is forbidden.
        match tokio_uring::Runtime::new(&builder) {
            Ok(runtime) => return Ok(runtime.block_on(main)),
            Err(error) => info!(%error, "No io_uring for the control thread, it runs on epoll"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, main))
}
