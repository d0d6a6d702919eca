//! One descriptor that is kept back: when there are no others, it lets us take a connection for long enough to say so.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::control::refusal::Refusal;

/// Whoever is refused gets this long to read it and close, since closing before it has been read would take it back
/// (RFC 9112 §9.6). Others wait as long.
const GOODBYE: Duration = Duration::from_millis(50);

/// See the top.
pub struct Spare(Option<OwnedFd>);

impl Spare {
    /// Keeps a descriptor back, if there is one: a second one of the listener, which needs no file.
    pub fn new(listener: &TcpListener) -> Self {
        Self(listener.as_fd().try_clone_to_owned().ok())
    }

    /// Whether this is why a connection cannot be accepted.
    pub fn is_for(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    }

    /// Takes one connection, tells it why it cannot stay if it is not going to speak TLS, and closes it. `false`:
    /// there was none, or the descriptor had gone to somebody else.
    pub async fn refuse(&mut self, listener: &TcpListener, in_plain: bool) -> bool {
        let Some(kept) = self.0.take() else {
            *self = Self::new(listener);
            return false;
        };
        drop(kept);
        let accepted = listener.accept().now_or_never();
        let is_refused = if let Some(Ok((mut stream, _))) = accepted {
            if in_plain {
                // Whoever does not listen is closed all the same.
                let _ = timeout(GOODBYE, say_goodbye(&mut stream)).await;
            }
            true
        } else {
            false
        };
        *self = Self::new(listener);
        is_refused
    }
}

async fn say_goodbye(stream: &mut TcpStream) -> io::Result<()> {
    let refusal = Refusal::new(503, "there are too many connections");
    let body = refusal.to_rest().to_string();
    let head =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
