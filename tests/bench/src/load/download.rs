//! Large answers, as fast as they come.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::nginx::LARGE;

/// Read at once.
const PART: usize = 256 << 10;
/// Longest wait for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was downloaded.
#[derive(Debug, Clone, Copy)]
pub struct Downloaded {
    /// GiB.
    pub gib: f64,
    /// How long it took.
    pub seconds: f64,
}

/// Downloads from `address` over `connections` at once for about `time`; blocks.
///
/// # Errors
/// Where a connection fails.
pub fn download(
    address: SocketAddr,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Downloaded> {
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let bytes = std::thread::scope(|scope| {
        let work = || again_and_again(address, &over);
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        let mut sum = 0;
        for thread in threads {
            sum += thread.join().ok().context("a thread panicked")??;
        }
        anyhow::Ok(sum)
    })?;
    Ok(Downloaded {
        gib: bytes as f64 / f64::from(1 << 30),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn again_and_again(address: SocketAddr, over: &AtomicBool) -> anyhow::Result<u64> {
    let mut sum = 0;
    let mut part = vec![0; PART];
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {LARGE} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).context("send")?;
        loop {
            let length = stream.read(&mut part).context("read")?;
            sum += length as u64;
            if length == 0 || over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(sum)
}
