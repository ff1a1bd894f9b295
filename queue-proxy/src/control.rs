//! What changes state: a local socket on which the pod's own preStop begins the drain, and people
//! change what is logged.
//!
//! The socket is abstract, because the root file system is read-only, and so belongs to the
//! network namespace: any container of the pod can connect, but only our own user is heard.
//! A command is a line, the answer is a line when it is done:
//!
//! | command | answer |
//! |---|---|
//! | `drain` | `done` when the drain is over |
//! | `log-level` | the filter in effect |
//! | `log-level FILTER` | `done`, or why not |

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    time::Duration,
};

use lull_process::logging::{self, LogFilter};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;

const DRAIN: &str = "drain";
const LOG_LEVEL: &str = "log-level";
const DONE: &str = "done";
/// Longest command.
const MAX_COMMAND: u64 = 1024;
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

/// What became of `queue-proxy log-level`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLevelEnd {
    /// The filter in effect.
    Is(String),
    /// The new one is in effect.
    Set,
    /// It is not, because of this.
    Refused(String),
    /// Nobody listens.
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
    let Some(line) = line.strip_suffix('\n') else {
        return Ok(());
    };
    let answer = match line.split_once(' ').unwrap_or((line, "")) {
        (DRAIN, "") => {
            drain.begin();
            drain.done().await;
            DONE.to_owned()
        }
        (LOG_LEVEL, "") => logging::filter().map_or_else(String::new, |filter| filter.to_string()),
        (LOG_LEVEL, filter) => set_log_filter(filter),
        _ => format!("{line:?} is no command"),
    };
    stream.write_all(format!("{answer}\n").as_bytes()).await
}

/// Answers how it went.
fn set_log_filter(text: &str) -> String {
    let filter: LogFilter = match text.parse() {
        Ok(filter) => filter,
        Err(error) => return error.to_string(),
    };
    match logging::set_filter(filter) {
        Ok(()) => {
            tracing::info!(filter = text, "log filter changes");
            DONE.to_owned()
        }
        Err(error) => error.to_string(),
    }
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
    Ok(match ask(name, DRAIN).await? {
        None => DrainEnd::NotRunning,
        Some(answer) if answer == DONE => DrainEnd::Done,
        Some(_) => DrainEnd::Gone,
    })
}

/// Asks the proxy that listens on `name` what it logs, or tells it to log by `filter`.
///
/// # Errors
/// Where the socket is there but can't be used.
pub async fn log_level(name: &str, filter: Option<&str>) -> io::Result<LogLevelEnd> {
    if let Some(Err(error)) = filter.map(str::parse::<LogFilter>) {
        return Ok(LogLevelEnd::Refused(error.to_string()));
    }
    let command = filter.map_or_else(|| LOG_LEVEL.to_owned(), |f| format!("{LOG_LEVEL} {f}"));
    Ok(match ask(name, &command).await? {
        None => LogLevelEnd::NotRunning,
        Some(answer) if filter.is_none() => LogLevelEnd::Is(answer),
        Some(answer) if answer == DONE => LogLevelEnd::Set,
        Some(answer) => LogLevelEnd::Refused(answer),
    })
}

/// The answer of the proxy that listens on `name`, empty where it ended before; `None` = nobody
/// listens.
async fn ask(name: &str, command: &str) -> io::Result<Option<String>> {
    let stream = match StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer).await {
        Ok(_) => Ok(Some(answer.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(String::new())),
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
