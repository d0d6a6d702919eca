//! Which backend runs; and is io_uring to be had here, with everything that the shards use? One datagram
//! each way tells.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::clock::Moment;
use super::counters::Counters;
use super::io::{ARENA_LEN, Io, MAX_BATCH, Transmit};
use super::socket::Socket;
use super::sys::SendQueue;
use super::uring::Uring;
use super::wake::Waker;
use super::{Backend, Running, StartError};

/// How long the probe waits for its datagram, which a working ring delivers at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The backend to run for this wish.
pub(super) fn choose(wish: Backend) -> Result<Running, StartError> {
    decide(wish, || on_its_own_thread(probe))
}

/// `auto` is the one that every kernel allows: with trains, neither is cheaper beyond the noise (`docs/performance.md`,
/// "What io_uring is worth").
fn decide(
    wish: Backend,
    probe: impl FnOnce() -> Result<(), String>,
) -> Result<Running, StartError> {
    match wish {
        Backend::Auto | Backend::Mmsg => Ok(Running::Mmsg),
        Backend::Uring => probe().map(|()| Running::Uring).map_err(StartError::Uring),
    }
}

/// A ring that is torn down interrupts the thread that made it for a moment, in whatever it waits
/// for: the caller's thread is spared that.
fn on_its_own_thread(probe: fn() -> Result<(), String>) -> Result<(), String> {
    let thread = Builder::new().name("probe".to_owned()).spawn(probe);
    let thread = thread.map_err(|error| format!("thread: {error}"))?;
    thread.join().unwrap_or_else(|_| Err("the probe panicked".to_owned()))
}

/// Makes a whole ring and passes one datagram through it in each direction. It goes over a socket
/// pair, since a network may not be up yet.
fn probe() -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let (ours, theirs) = UnixDatagram::pair().map_err(failed("socket pair"))?;
    let waker = Arc::new(Waker::new().map_err(failed("eventfd"))?);
    let socket = Socket::paired(ours);
    // Before the ring, so that it outlives what the ring sends.
    let queue = SendQueue::new(MAX_BATCH, ARENA_LEN, socket.traits);
    let mut queue = queue.map_err(failed("memory"))?;
    let mut ring = Uring::new(socket, waker).map_err(failed("set-up"))?;
    let mut counters = Counters::default();

    if let Some(room) = queue.room(1) {
        room[0] = b'?';
        queue.push(1, ([0, 0, 0, 0], 0).into());
    }
    ring.sender().transmit(&mut queue, &mut counters).map_err(failed("send"))?;
    if counters.sent != 1 {
        return Err(format!("send refused: {:?}", counters.send_drops));
    }

    theirs.send(b"!").map_err(failed("socket pair"))?;
    let deadline = Instant::now() + PATIENCE;
    // The other end has no internet address, so its datagram counts as nameless.
    while counters.nameless == 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        ring.wait(Some(left), &mut counters).map_err(failed("receive"))?;
        ring.drain(&Moment::read(), &mut counters, |_, _, _| {}).map_err(failed("receive"))?;
        if counters.receive_errors > 0 || left.is_zero() {
            return Err("no multishot receive (needs Linux 6.0)".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden() -> Result<(), String> {
        Err("set-up: Operation not permitted".to_owned())
    }

    #[test]
    fn only_a_demand_for_io_uring_is_probed() {
        for wish in [Backend::Auto, Backend::Mmsg] {
            let chosen = decide(wish, || panic!("probed for nothing"));
            assert_eq!(chosen.unwrap(), Running::Mmsg);
        }
        assert_eq!(decide(Backend::Uring, || Ok(())).unwrap(), Running::Uring);
        let refused = decide(Backend::Uring, forbidden).unwrap_err();
        let text = "io_uring cannot be used: set-up: Operation not permitted";
        assert_eq!(refused.to_string(), text);
    }
}
