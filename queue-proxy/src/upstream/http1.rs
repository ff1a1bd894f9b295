//! HTTP/1: each request has a connection to itself while it lasts.
//!
//! A connection has no task of its own: whoever waits for its answer drives it, in the task of the
//! caller's connection. That saves two wake-ups and a channel's way for each request.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::{
    body::{Frame, Incoming},
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{task::coop::unconstrained, time::Instant};

use super::{Upstream, copy_head};
use crate::{
    error::Error,
    headers,
    upload::{Upload, UploadWatch},
    wire::Wire,
};

/// An idle connection that is older is not used: many servers close after 60 s.
const MAX_IDLE: Duration = Duration::from_secs(55);
/// More idle connections than a burst leaves behind are closed.
const MAX_IDLE_CONNECTIONS: usize = 512;
/// How often idle connections are looked at: one that the app has closed stays half open so long.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

type Head = Result<Response<Incoming>, TrySendError<Request<Upload>>>;
type Driver = http1::Connection<TokioIo<Wire>, Upload>;

/// A connection to the app; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Link {
    sender: http1::SendRequest<Upload>,
    /// `None` = it has ended, or a task drives it.
    driver: Option<Box<Driver>>,
}

/// Idle connections; the one used last is at the back and used first.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<(Link, Instant)>>,
}

// === impl Upstream ===

impl Upstream {
    /// Takes `request` and sends it.
    pub(super) async fn send_http1(
        &self,
        request: &mut Option<Request<Upload>>,
    ) -> Result<(Response<Incoming>, Link), Error> {
        if let Some(request) = request {
            self.speak_http11(request);
        }
        while let Some(mut link) = self.links.take() {
            let copy = request.as_ref().and_then(replay);
            match link.exchange(request).await {
                Ok(response) => return Ok((response, link)),
                // The app may close an idle connection at the moment at which we use it.
                Err(_) if request.is_some() => {}
                Err(error) => {
                    *request = copy.filter(|_| is_broken(&error)).map(|copy| *copy);
                    if request.is_none() {
                        return Err(Error::exchange(error));
                    }
                    break;
                }
            }
        }
        let mut link = Box::pin(self.connect_http1()).await?;
        match link.exchange(request).await {
            Ok(response) => Ok((response, link)),
            Err(error) => Err(Error::exchange(error)),
        }
    }

    fn speak_http11(&self, request: &mut Request<Upload>) {
        *request.version_mut() = Version::HTTP_11;
        // HTTP/1.0 callers may leave it out, but in 1.1 it must be there.
        if !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::try_from(self.address.to_string())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        // Of a GET or HEAD that has a body hyper sends none, unless it is told in which form.
        let body = request.body();
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            let chunked = HeaderValue::from_static("chunked");
            request
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, chunked);
        }
    }

    async fn connect_http1(&self) -> Result<Link, Error> {
        let stream = self.dial().await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(headers::MAX_HEAD)
            .preserve_header_case(true)
            .handshake(TokioIo::new(Wire::new(stream)))
            .await
            .map_err(Error::AppFailed)?;
        Ok(Link {
            sender,
            driver: Some(Box::new(connection)),
        })
    }

    /// Keeps `link`, whose answer has been read to its end, for the next request.
    pub(super) fn keep(&self, mut link: Link) {
        if link.rests() {
            self.links.put(link);
        }
    }
}

/// A copy of `request` where sending it twice does no harm.
fn replay(request: &Request<Upload>) -> Option<Box<Request<Upload>>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    Some(Box::new(copy_head(request)))
}

/// The connection broke, as against an answer that is wrong.
fn is_broken(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}

// === impl Link ===

impl Link {
    /// Sends `request` and waits for the head of the answer.
    ///
    /// # Errors
    /// Where the connection breaks or the answer is wrong; a request of which nothing was sent is
    /// then back in `request`.
    async fn exchange(
        &mut self,
        request: &mut Option<Request<Upload>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let outgoing = request.take().expect("every caller puts one in");
        let (head, upload) = self.start(outgoing);
        let mut head = pin!(unconstrained(head));
        let answered = poll_fn(|cx| {
            drive(&mut self.driver, cx);
            head.as_mut().poll(&mut self.context_after_drive(cx))
        });
        match answered.await {
            Ok(response) => {
                // A caller may send all of its body before it reads any of the answer, so that
                // sending must go on also while nobody asks for more of the answer.
                if upload.is_going_on() {
                    self.detach();
                }
                Ok(response)
            }
            Err(mut failed) => {
                *request = failed.take_message();
                Err(failed.into_error())
            }
        }
    }

    /// Hands `request` to the connection, which sends it when it is driven.
    fn start(
        &mut self,
        request: Request<Upload>,
    ) -> (impl Future<Output = Head> + use<>, UploadWatch) {
        if request.headers().contains_key(header::UPGRADE) {
            self.detach();
        }
        let upload = request.body().watch();
        (self.sender.try_send_request(request), upload)
    }

    /// How to wait for what `drive` brings about. Just after it, without a waker: it is called
    /// again in any case, and would otherwise wake itself. (Nor may what is waited for give way to
    /// other tasks: nobody would then call it again.)
    fn context_after_drive<'a>(&self, cx: &'a mut Context<'_>) -> Context<'a> {
        if self.driver.is_some() {
            Context::from_waker(Waker::noop())
        } else {
            Context::from_waker(cx.waker())
        }
    }

    /// The next part of `answer`, which came on this connection.
    pub(crate) fn poll_frame(
        &mut self,
        answer: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut next = pin!(unconstrained(poll_fn(|cx| {
            Pin::new(&mut *answer).poll_frame(cx)
        })));
        // A short answer came together with its head.
        let polled = next.as_mut().poll(&mut self.context_after_drive(cx));
        if polled.is_ready() || self.driver.is_none() {
            return polled;
        }
        drive(&mut self.driver, cx);
        next.poll(&mut self.context_after_drive(cx))
    }

    /// Lets a task of its own drive the connection from now on.
    fn detach(&mut self) {
        if let Some(driver) = self.driver.take() {
            tokio::spawn(async move { ended(driver.with_upgrades().await) });
        }
    }

    /// Whether it is open and waits for a request.
    fn rests(&mut self) -> bool {
        let look = unconstrained(poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(())
        }));
        // Nobody needs to be told what happens to it while it rests.
        let _ = pin!(look).poll(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

fn drive(driver: &mut Option<Box<Driver>>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && let Poll::Ready(result) = Pin::new(&mut **running).poll(cx)
    {
        ended(result);
        *driver = None;
    }
}

fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "connection to the app ended");
    }
}

// === impl Pool ===

impl Pool {
    fn take(&self) -> Option<Link> {
        loop {
            let (link, since) = self.idle.lock().pop_back()?;
            if since.elapsed() < MAX_IDLE {
                return Some(link);
            }
            // What lies before it is older still.
            self.idle.lock().clear();
        }
    }

    fn put(&self, link: Link) {
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_IDLE_CONNECTIONS {
            idle.pop_front();
        }
        idle.push_back((link, Instant::now()));
    }

    pub(super) fn sweep(&self) {
        self.idle
            .lock()
            .retain_mut(|(link, since)| since.elapsed() < MAX_IDLE && link.rests());
    }
}
