//! Connections whose bytes are not ours to read: held as they are, then passed on unchanged.
//!
//! ```text
//! hold -> connect -> TLS: the hello, until the pod's first byte -> pump: both ways, to the end
//!  ^                              | none
//!  +------------------------------+
//! ```

mod age;
mod pipe;
mod pump;
mod rest;

use std::{future::poll_fn, io, task::Poll, time::Duration};

use lull_contract::HumanDuration;
use lull_process::backoff::doubled;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    connection::Route,
    hold::Ask,
    keepalive,
    metrics::{Metrics, Reason},
    who::Who,
    workload::{Hold, HoldError, Slot},
};
use age::{Age, Old};
use pump::Pump;
use rest::{Change, Rest};

/// Longest time for a connect to a pod, which is mostly a hop or two away.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// Longest time from a ClientHello to the pod's first byte, at the first try. A TLS server always
/// answers, mostly within milliseconds; one that has just started and has little CPU takes longer.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// It doubles with each try up to this: a pod that is slow, not broken, has its chance.
const FIRST_ANSWER_MOST: Duration = Duration::from_secs(4);
/// Bytes that are made ready for the answer to a ClientHello: a server's certificates and all.
const USUAL_ANSWER: usize = 4096;
/// First pause after a pod that closed instead of an answer; it doubles with each.
const CLOSED_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const CLOSED_PAUSE_MOST: Duration = Duration::from_secs(1);

/// What is to be passed on.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// A TLS connection, whose beginning has been read.
    Tls {
        /// What the caller has sent: the ClientHello and what came right behind it.
        read: Vec<u8>,
        /// Length of the ClientHello.
        hello: usize,
    },
    /// Any other.
    Tcp {
        /// What the caller has sent so far.
        read: Vec<u8>,
    },
}

/// What says that a caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// It closed its side: no TLS or HTTP client waits for an answer after that.
    Closed,
    /// The connection broke: in other protocols a client may have said all that it has to say.
    Broken,
}

/// A pod's side of a connection.
#[derive(Debug)]
struct Pod {
    stream: TcpStream,
    /// What it has said to the ClientHello so far.
    answer: Vec<u8>,
}

/// Why a connection got no pod.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no pod took it: {0:?}")]
    Hold(HoldError),
    #[error("no pod answered its ClientHello in time")]
    Unanswered,
}

/// Why a try with a pod came to nothing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("connect failed: {0}")]
    Connect(#[source] io::Error),
    #[error("connect took too long")]
    ConnectTime,
    #[error("no answer to the ClientHello in {0:?}")]
    Silent(Duration),
    #[error("closed without an answer to the ClientHello")]
    Closed,
}

/// Tries of one connection that came to nothing after the connect.
#[derive(Debug, Default)]
struct Tries {
    silent: u32,
    /// Uids of the pods that closed, one for each time.
    closed: Vec<String>,
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Aged(Old),
}

/// A connection that is passed on, for as long as it lives in the gauge.
#[derive(Debug)]
struct Counted<'a>(&'a Metrics);

/// Holds `caller` until a pod takes it, then passes bytes both ways to the end.
pub(crate) async fn serve(
    caller: TcpStream,
    bytes: Bytes,
    (route, who): (&Route, Who),
    metrics: &Metrics,
) {
    let app_port = route.port.app_port;
    let (namespace, name) = (&route.workload.namespace, &route.workload.name);
    let (leaves, hello) = bytes.beginning();
    let connected = tokio::select! {
        connected = connect((route, who), hello, metrics) => connected,
        () = left(&caller, leaves) => {
            tracing::debug!(%namespace, %name, app_port, "caller left while it was held");
            return;
        }
    };
    let (mut slot, Pod { stream, answer }) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(%namespace, %name, app_port, %error, "connection was not passed on");
            return;
        }
    };
    let _counted = Counted::new(metrics);
    let pump = Pump::new(bytes.behind(), answer);
    let max_age = route.workload.spec().settings.splice_max_age;
    match copy((caller, stream), pump, max_age, &mut slot).await {
        Ok(End::Done) => {}
        Ok(End::Aged(old)) => {
            tracing::debug!(%namespace, %name, app_port, ?old, "connection reached its age");
        }
        Err(error) => tracing::debug!(%namespace, %name, app_port, %error, "byte stream broke"),
    }
    drop(slot);
}

/// A pod that takes the connection, and has answered `hello` where there is one.
async fn connect(
    (route, who): (&Route, Who),
    hello: Option<&[u8]>,
    metrics: &Metrics,
) -> Result<(Slot, Pod), Lost> {
    let settings = &route.workload.spec().settings;
    let ask = Ask {
        app_port: route.port.app_port,
        takes_slot: false,
    };
    let deadline = Instant::now() + settings.connection_hold_timeout.0;
    let mut hold = Hold::new(ask, deadline).with_bytes(hello.map_or(0, <[u8]>::len));
    hold.who = Some(who);
    let mut tries = Tries::default();
    loop {
        let slot = route.workload.slot(&mut hold).await.map_err(Lost::Hold)?;
        let fault = match dial(&slot, hello, tries.patience()).await {
            Ok(pod) => {
                slot.connected();
                if hello.is_some() && hold.waited > Duration::ZERO {
                    slot.answered();
                }
                return Ok((slot, pod));
            }
            Err(fault) => fault,
        };
        tracing::debug!(pod = %slot.address, %fault, "left for another");
        match fault {
            // Nobody gets a slot there until it has been probed again, and so a time-out, too.
            Fault::Connect(_) | Fault::ConnectTime => {
                metrics.connect_failures.inc();
                hold.failed();
                slot.eject();
                continue;
            }
            Fault::Silent(_) => {
                tries.silent += 1;
                slot.eject();
            }
            Fault::Closed => tries.closed(slot).await,
        }
        metrics.redials.inc();
        if Instant::now() >= deadline {
            metrics.rejected(Reason::HoldTimeout);
            return Err(Lost::Unanswered);
        }
    }
}

async fn dial(slot: &Slot, hello: Option<&[u8]>, patience: Duration) -> Result<Pod, Fault> {
    let mut stream = timeout(CONNECT, TcpStream::connect(slot.address))
        .await
        .map_err(|_| Fault::ConnectTime)?
        .map_err(Fault::Connect)?;
    // A failure only means that this socket waits for more bytes before it sends.
    let _ = stream.set_nodelay(true);
    let mut answer = Vec::new();
    if let Some(hello) = hello {
        let answered = async {
            stream.write_all(hello).await?;
            // Readiness alone does not tell: while an end comes in, it may look like bytes.
            stream.readable().await?;
            answer.reserve(USUAL_ANSWER);
            stream.read_buf(&mut answer).await
        };
        match timeout(patience, answered).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Err(Fault::Closed),
            Err(_) => return Err(Fault::Silent(patience)),
        }
    }
    Ok(Pod { stream, answer })
}

/// Each side may end alone; a half that has ended is closed at the other side. The slot counts while
/// something moves.
async fn copy(
    (mut caller, mut pod): (TcpStream, TcpStream),
    mut pump: Pump,
    max_age: Option<HumanDuration>,
    slot: &mut Slot,
) -> io::Result<End> {
    let mut age = max_age.map(|age| Age::new(age.0));
    let mut rest = Rest::new();
    let mut is_asked = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = pump.poll(cx, &mut caller, &mut pod) {
            return Poll::Ready(ended.map(|()| End::Done));
        }
        if let Some(change) = rest.poll(cx, pump.moved(), !pump.is_empty()) {
            let rests = change == Change::Rests;
            slot.set_resting(rests);
            if rests && !std::mem::replace(&mut is_asked, true) {
                // The caller is asked from the beginning. A failure only means that a pod that is
                // gone stays longer.
                let _ = keepalive::ask(&pod);
            }
        }
        match &mut age {
            Some(age) => age.poll(cx, &pump).map(|old| Ok(End::Aged(old))),
            None => Poll::Pending,
        }
    })
    .await;
    if !matches!(ended, Ok(End::Done | End::Aged(Old::Quiet))) {
        // Both sides see that the bytes were cut off; an orderly end would say that it was all.
        for socket in [&caller, &pod] {
            let _ = socket.set_zero_linger();
        }
    }
    ended
}

/// Returns when the peer of `stream` has left. Reads nothing, and does not disturb who does.
pub(crate) async fn left(stream: &TcpStream, leaves: Leaves) {
    let interest = match leaves {
        // Of the events that a socket is registered for, tokio counts only the closing as this
        // one: unread bytes do not make it ready.
        Leaves::Closed => Interest::PRIORITY.add(Interest::ERROR),
        Leaves::Broken => Interest::ERROR,
    };
    // An error would say the same.
    let _ = stream.ready(interest).await;
}

// === impl Tries ===

impl Tries {
    /// How long the next pod has to answer.
    fn patience(&self) -> Duration {
        doubled(FIRST_ANSWER, self.silent, FIRST_ANSWER_MOST)
    }

    /// Leaves a pod that closed, after a pause.
    ///
    /// Others keep the pod: it may be this caller whom it doesn't want (Envoy closes without a word
    /// what fits none of its filter chains), and a caller must not be able to take a pod from the
    /// others. But a broken pod has the least in flight and would be picked for ever: where the
    /// same one closes again, it is left alone for a moment, once.
    async fn closed(&mut self, slot: Slot) {
        let uid = slot.pod_uid();
        let before = self.closed.iter().filter(|other| *other == uid).count();
        let times = u32::try_from(self.closed.len()).unwrap_or(u32::MAX);
        self.closed.push(uid.to_owned());
        if before == 1 {
            slot.eject();
        } else {
            // With the slot, which counts as demand.
            sleep(doubled(CLOSED_PAUSE, times, CLOSED_PAUSE_MOST)).await;
        }
    }
}

// === impl Bytes ===

impl Bytes {
    /// Whom to expect, and what begins it.
    fn beginning(&self) -> (Leaves, Option<&[u8]>) {
        match self {
            Self::Tls { read, hello } => (Leaves::Closed, read.get(..*hello)),
            Self::Tcp { .. } => (Leaves::Broken, None),
        }
    }

    /// What has been read behind that. It waits for the pod's answer, so that all that a pod has seen
    /// can be said again to another.
    fn behind(self) -> Vec<u8> {
        match self {
            Self::Tls { mut read, hello } => read.split_off(hello.min(read.len())),
            Self::Tcp { read } => read,
        }
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.splices.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.splices.dec();
    }
}
