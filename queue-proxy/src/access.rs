//! The access log: one JSON line on standard output for each request or byte stream, at its end.
//!
//! ```text
//! data plane --record--> bounded queue --thread--> standard output, one write for each line
//! ```
//!
//! The data plane never waits: where whoever reads the output is slow, the queue fills and further
//! lines are dropped and counted.

mod record;

use std::{
    io::{self, Write},
    net::IpAddr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    time::Duration,
};

use http::{HeaderValue, Request};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::{
    headers,
    metrics::{Kind, Reason},
};

pub(crate) use record::Record;

/// Lines that wait to be written; with the longest texts in them that is 2 MiB.
const QUEUE: usize = 1024;
/// How long the end of the process waits for lines that are still to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where records go; without a writer, nowhere, which costs nothing.
#[derive(Debug)]
pub(crate) struct AccessLog {
    writer: Option<Writer>,
    dropped: Counter,
}

/// A byte stream; dropping it says that it has ended.
#[derive(Debug)]
#[must_use = "dropping it ends the stream's record"]
pub(crate) struct Stream<'a> {
    log: &'a AccessLog,
    record: Option<Box<Record>>,
    since: Instant,
}

#[derive(Debug)]
struct Writer {
    /// Taken at the end, which ends the thread.
    queue: Option<SyncSender<Box<Record>>>,
    /// Disconnected when the thread has written everything.
    ended: Mutex<Receiver<()>>,
}

// === impl AccessLog ===

impl AccessLog {
    /// A log that takes nothing.
    pub(crate) fn off(dropped: Counter) -> Self {
        Self {
            writer: None,
            dropped,
        }
    }

    /// A log that writes to `output` in a thread of its own; `dropped` counts the lines that
    /// could not be written.
    ///
    /// # Errors
    /// Where the thread can't be started.
    pub(crate) fn to(output: impl Write + Send + 'static, dropped: Counter) -> io::Result<Self> {
        let (queue_tx, queue_rx) = mpsc::sync_channel(QUEUE);
        let (ended_tx, ended_rx) = mpsc::sync_channel(0);
        let failed = dropped.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write(&queue_rx, output, &failed);
                drop::<SyncSender<()>>(ended_tx);
            })?;
        Ok(Self {
            writer: Some(Writer {
                queue: Some(queue_tx),
                ended: Mutex::new(ended_rx),
            }),
            dropped,
        })
    }

    /// The record of `request`, which has just come from `peer`.
    pub(crate) fn request<B>(
        &self,
        request: &Request<B>,
        peer: &HeaderValue,
    ) -> Option<Box<Record>> {
        self.writer.as_ref()?;
        Some(Box::new(Record::of_request(request, peer)))
    }

    /// A byte stream that has just come from `peer`.
    pub(crate) fn stream(&self, kind: Kind, peer: IpAddr) -> Stream<'_> {
        let peer = self.writer.as_ref().map(|_| headers::forwarded_for(peer));
        Stream {
            log: self,
            record: peer.map(|peer| Box::new(Record::of_stream(kind, &peer))),
            since: Instant::now(),
        }
    }

    /// Hands `record` over, which has lasted for `duration` until now.
    pub(crate) fn end(&self, mut record: Box<Record>, duration: Duration) {
        let queue = self
            .writer
            .as_ref()
            .and_then(|writer| writer.queue.as_ref());
        record.end(duration);
        if queue.is_some_and(|queue| queue.try_send(record).is_err()) {
            self.dropped.inc();
        }
    }
}

/// Writes until nobody can hand over any more.
fn write(queue: &Receiver<Box<Record>>, mut output: impl Write, dropped: &Counter) {
    let mut line = Vec::new();
    for record in queue {
        line.clear();
        let written = serde_json::to_writer(&mut line, &*record).map_err(io::Error::from);
        line.push(b'\n');
        // One call, so that no line of another process comes between; standard output's own
        // buffer is empty after each line and takes no part.
        if written.and_then(|()| output.write_all(&line)).is_err() {
            dropped.inc();
        }
    }
}

// === impl Stream ===

impl Stream<'_> {
    /// The app was not reached.
    pub(crate) fn rejected(&mut self, reason: Reason) {
        if let Some(record) = &mut self.record {
            record.rejected(reason);
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.log.end(record, self.since.elapsed());
        }
    }
}

// === impl Writer ===

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.take();
        let ended = self.ended.get_mut().recv_timeout(LAST_LINES);
        if ended == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the access log were not written");
        }
    }
}

#[cfg(test)]
mod tests;
