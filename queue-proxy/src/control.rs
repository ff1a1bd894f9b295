//! What changes state: a local socket on which the pod's own preStop begins the drain.
//!
//! The socket is abstract, because the root file system is read-only, and so belongs to the
//! network namespace: any container of the pod can connect, but only our own user is heard.
//! A command is a line, the answer is a line when it is done.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;

const DRAIN: &str = "drain\n";
const DONE: &str = "done\n";
/// Longest command.
const MAX_COMMAND: u64 = 64;
/// Time for a command to arrive; whoever connects sends it at once.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How `queue-proxy drain` ended; each is a success for the preStop that ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEnd {
    /// The drain is done.
    Done,
    /// The proxy went away before it was.
    Gone,
    /// Nobody listens: there is nothing to drain.
    NotRunning,
}

/// Opens the socket called `name`.
///
/// # Errors
/// Where another process of this network namespace has it.
pub(crate) fn bind(name: &str) -> io::Result<StdListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes commands until `stop`.
pub(crate) async fn serve(listener: UnixListener, drain: Drain, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let drain = drain.clone();
                tokio::spawn(async move {
                    if let Err(error) = command(stream, drain).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the control socket failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn command(mut stream: UnixStream, drain: Drain) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if !may_command(peer, own_uid()?) {
        tracing::warn!(peer, "a command of another user was refused");
        return Ok(());
    }
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(MAX_COMMAND));
    tokio::time::timeout(COMMAND_TIMEOUT, reader.read_line(&mut line)).await??;
    if line == DRAIN {
        drain.begin();
        drain.done().await;
        stream.write_all(DONE.as_bytes()).await?;
    }
    Ok(())
}

/// Only our own user: the preStop runs in our own container.
fn may_command(peer: u32, own: u32) -> bool {
    peer == own
}

/// Who we are, as a peer would see it; std has no call for it.
fn own_uid() -> io::Result<u32> {
    let (here, _there) = UnixStream::pair()?;
    Ok(here.peer_cred()?.uid())
}

/// Begins the drain of the proxy that listens on `name` and waits until it is done.
///
/// # Errors
/// Where the socket is there but can't be used.
pub async fn drain(name: &str) -> io::Result<DrainEnd> {
    let stream = match StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(DrainEnd::NotRunning);
        }
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    stream.write_all(DRAIN.as_bytes()).await?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer).await {
        Ok(_) if answer == DONE => Ok(DrainEnd::Done),
        Ok(_) => Ok(DrainEnd::Gone),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(DrainEnd::Gone),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_may_command() {
        assert!(may_command(65532, 65532));
        assert!(!may_command(0, 65532));
        assert!(!may_command(1000, 65532));
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_run_needs_no_drain() {
        let name = format!("lull-test-nobody-{}", std::process::id());
        assert_eq!(drain(&name).await.unwrap(), DrainEnd::NotRunning);
    }
}
