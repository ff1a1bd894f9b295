//! Moves bytes between two sockets, both ways, to the end.
//!
//! Few bytes are read and written through a buffer that all connections of a thread share; many go
//! through a [`Pipe`]. A connection that has nothing to move has neither.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::pipe::Pipe;

/// Read at once, bytes. What the other side does not take at once is kept, so this also bounds what
/// a slow reader costs us.
const READ: usize = 16 * 1024;
/// As many full reads without a pause make the rest go through a pipe.
const FULL_READS: u8 = 2;
/// Who has moved less through a pipe when the source pauses goes back to reads.
const BULK: usize = 32 * 1024;
/// Who got no pipe copies so many bytes before it asks for one again.
const ASK_AGAIN: u64 = 8 * 1024 * 1024;
/// Bytes that one way may move before others have their turn: a tenth of a millisecond or so.
const TURN: usize = 1024 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Both ways of a connection.
#[derive(Debug)]
pub(super) struct Pump {
    up: Way,
    down: Way,
}

/// From one socket to the other.
#[derive(Debug, Default)]
struct Way {
    /// Read and not yet written, from `written` on.
    kept: Vec<u8>,
    written: usize,
    pipe: Option<Pipe>,
    /// Full reads since the source paused.
    full_reads: u8,
    /// Bytes through the pipe since the source paused.
    burst: usize,
    moved: u64,
    /// No pipe is asked for until so much has been moved.
    pipe_from: u64,
    state: WayState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum WayState {
    #[default]
    Open,
    /// The source has ended; the sink doesn't know.
    Ended,
    Closed,
}

// === impl Pump ===

impl Pump {
    /// `up` and `down`: what has been read from the caller and from the pod, and goes to the other
    /// before all else.
    pub(super) fn new(up: Vec<u8>, down: Vec<u8>) -> Self {
        let way = |kept| Way {
            kept,
            ..Way::default()
        };
        Self {
            up: way(up),
            down: way(down),
        }
    }

    /// Ready when both sides have ended, or one has failed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        caller: &mut TcpStream,
        pod: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let up = self.up.poll(cx, caller, pod, self.down.state)?;
        let down = self.down.poll(cx, pod, caller, self.up.state)?;
        ready!(up);
        ready!(down);
        Poll::Ready(Ok(()))
    }

    /// Bytes taken from both sides so far.
    pub(super) fn moved(&self) -> u64 {
        self.up.moved + self.down.moved
    }

    /// Whether nothing is on its way from one side to the other.
    pub(super) fn is_empty(&self) -> bool {
        self.up.is_empty() && self.down.is_empty()
    }
}

// === impl Way ===

impl Way {
    /// `other`: how far the other way has got.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        other: WayState,
    ) -> Poll<io::Result<()>> {
        let mut turn = TURN;
        while self.state != WayState::Closed {
            ready!(self.poll_flush(cx, sink))?;
            if self.state == WayState::Ended {
                // The last one to end is followed by the close of both sockets.
                if other != WayState::Closed {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx))?;
                }
                self.state = WayState::Closed;
                break;
            }
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let in_bulk = self.full_reads >= FULL_READS && self.moved >= self.pipe_from;
            let taken = match in_bulk {
                true => ready!(self.poll_fill(cx, source, sink))?,
                false => ready!(self.poll_copy(cx, source, sink))?,
            };
            if taken == 0 {
                self.state = WayState::Ended;
            }
            self.moved += taken as u64;
            turn = turn.saturating_sub(taken);
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Ready when nothing is kept any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>, sink: &mut TcpStream) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .kept
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut *sink).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        if self.written > 0 {
            (self.kept, self.written) = (Vec::new(), 0);
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            ready!(sink.poll_write_ready(cx))?;
            match sink.try_io(Interest::WRITABLE, || pipe.drain(&*sink)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                // Not ready after all: asked again, it tells when it is.
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and writes once, through the thread's buffer; what isn't taken is kept.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = Pin::new(source).poll_read(cx, &mut buffer);
            if read.is_pending() {
                self.full_reads = 0;
            }
            ready!(read)?;
            let bytes = buffer.filled();
            self.full_reads = match bytes.len() == READ {
                true => self.full_reads.saturating_add(1),
                false => 0,
            };
            if bytes.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let written = match Pin::new(sink).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.kept = bytes.get(written..).unwrap_or_default().into();
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Fills the empty pipe.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            let ready = source.poll_read_ready(cx)?;
            if ready.is_pending() {
                self.pause();
                return Poll::Pending;
            }
            if self.pipe.is_none() {
                self.pipe = Pipe::get();
            }
            let Some(pipe) = &mut self.pipe else {
                self.pipe_from = self.moved + ASK_AGAIN;
                return self.poll_copy(cx, source, sink);
            };
            match source.try_io(Interest::READABLE, || pipe.fill(&*source)) {
                Ok(taken) => {
                    self.burst += taken;
                    return Poll::Ready(Ok(taken));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The source pauses.
    fn pause(&mut self) {
        if self.burst < BULK {
            self.full_reads = 0;
        }
        self.burst = 0;
        self.release();
    }

    fn release(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.put();
        }
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::Mutex,
    };

    use super::*;

    /// Pipes are counted for the whole process.
    static PIPES: Mutex<()> = Mutex::const_new(());
    const MANY: usize = 16 * 1024 * 1024;

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
        (here.unwrap(), there.unwrap().0)
    }

    /// Sends `count` bytes through a pump, which is given back while both sides are open; the
    /// largest number of pipes seen with it.
    async fn pumped(count: usize) -> (Pump, usize) {
        let (mut caller, mut here) = pair().await;
        let (mut there, mut pod) = pair().await;
        let bytes: Vec<u8> = (0..count).map(|i| (i / 7).to_le_bytes()[0]).collect();
        let mut pump = Pump::new(b"kept".into(), Vec::new());
        let mut pipes = 0;
        let mut pumping = poll_fn(|cx| {
            let polled = pump.poll(cx, &mut here, &mut there);
            pipes = pipes.max(usize::from(pump.up.pipe.is_some()));
            polled
        });
        let send = async {
            caller.write_all(&bytes).await.unwrap();
        };
        let receive = async {
            let mut seen = vec![0; 4 + bytes.len()];
            pod.read_exact(&mut seen).await.unwrap();
            assert!(
                seen.strip_prefix(b"kept") == Some(&bytes[..]),
                "other bytes"
            );
        };
        tokio::select! {
            ended = &mut pumping => panic!("{ended:?}"),
            _ = async { tokio::join!(send, receive) } => {}
        }
        // It sees once more that there is nothing.
        tokio::select! {
            biased;
            ended = &mut pumping => panic!("{ended:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(pump.is_empty());
        assert_eq!(pump.moved(), count as u64);
        (pump, pipes)
    }

    #[tokio::test]
    async fn few_bytes_are_copied_and_many_go_through_a_pipe_that_is_given_back() {
        let _pipes = PIPES.lock().await;
        assert_eq!(pumped(READ).await.1, 0);
        let (pump, pipes) = pumped(MANY).await;
        assert_eq!(pipes, 1);
        assert!(pump.up.pipe.is_none() && pump.up.kept.is_empty());
    }

    #[tokio::test]
    async fn who_gets_no_pipe_copies() {
        let _pipes = PIPES.lock().await;
        let all: Vec<Pipe> = std::iter::from_fn(Pipe::get).collect();
        assert!(!all.is_empty());
        assert_eq!(pumped(MANY).await.1, 0);
        all.into_iter().for_each(Pipe::put);
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Pump>() <= 256, "{}", size_of::<Pump>());
    }
}
