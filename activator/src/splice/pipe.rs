//! Pipes through which the kernel passes bytes from socket to socket without a copy (splice(2)).
//!
//! There are few, they are large, and nobody has one while it has nothing to move.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Pipes of this process at most. A user without privileges has 16,384 pages for all pipes on a
/// node (fs.pipe-user-pages-soft); these take a quarter. Who gets none copies.
const MOST: usize = 64;
/// Size of a pipe, bytes. Over loopback the usual 64 KiB cost 0.29 s of CPU for a GiB, 256 KiB 0.24 s
/// and 1 MiB 0.22 s, with pages for a quarter as many pipes; reads and writes cost 0.55 s. A packet
/// takes a page whatever it carries, so this is 64 packets.
pub(super) const SIZE: usize = 256 * 1024;

/// Empty ones.
static POOL: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
/// All, the empty ones included.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A pipe and what is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
    _counted: Counted,
}

/// One of [`OPEN`].
#[derive(Debug)]
struct Counted;

// === impl Pipe ===

impl Pipe {
    /// An empty pipe; `None` where there are too many, or where the kernel has none of our size.
    pub(super) fn get() -> Option<Self> {
        if let Some(pipe) = POOL.lock().pop() {
            return Some(pipe);
        }
        let counted = Counted::one_more()?;
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A user who has too many gets pipes of two pages: worse than copying.
        fcntl_setpipe_size(&write, SIZE).ok()?;
        Some(Self {
            read,
            write,
            filled: 0,
            _counted: counted,
        })
    }

    /// Gives an empty pipe back for others; one with bytes in it is closed.
    pub(super) fn put(self) {
        if self.is_empty() {
            POOL.lock().push(self);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes what `source` has, as far as it fits; 0 = the source has ended. The pipe must be
    /// empty: a full one would look like a source that has nothing.
    pub(super) fn fill(&mut self, source: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let taken = splice(source, None, &self.write, None, SIZE, flags)?;
        self.filled += taken;
        Ok(taken)
    }

    /// Passes on what `sink` takes.
    pub(super) fn drain(&mut self, sink: impl AsFd) -> io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let passed = splice(&self.read, None, sink, None, self.filled, flags)?;
        self.filled = self.filled.saturating_sub(passed);
        Ok(())
    }
}

// === impl Counted ===

impl Counted {
    fn one_more() -> Option<Self> {
        let more = |open| (open < MOST).then_some(open + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        OPEN.fetch_update(set, fetch, more).ok().map(|_| Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}
