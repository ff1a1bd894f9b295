//! What sends requests.

mod crowd;
mod download;
mod h2load;
mod http1;
mod paced;
mod wrk;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

pub use crowd::crowd;
pub use download::{Downloaded, download};
pub use h2load::{h2load, h2load_one_by_one};
pub use http1::{Connection, REQUEST};
pub use paced::{Paced, paced};
pub use wrk::{wrk, wrk_with};

use crate::{Child, Protocol};

/// Longest wait for a process to serve.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Preface, empty SETTINGS, and `GET http://bench/` on stream 1 from the static table
/// (RFC 9113, 3.4; RFC 7541, 6.1).
const H2C_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x0a\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x05bench\x00";

/// What a load run did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Requests answered with 200, as a number to divide by.
    pub requests: f64,
    /// How long it took.
    pub seconds: f64,
}

/// What `path` at `address` answers, head and body.
///
/// # Errors
/// Where it isn't a 200.
pub async fn fetch(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Ok(answer)
}

/// Waits until `address`, where `child` shall listen, answers a request with 200.
///
/// # Errors
/// Where `child` ends or it takes too long.
pub async fn first_answer(
    address: SocketAddr,
    protocol: Protocol,
    child: &mut Child,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = tokio::time::timeout_at(deadline, ask(address, protocol)).await;
        child.check()?;
        match tried.context("no answer in time")? {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// One request on a connection of its own, which must be answered with 200.
async fn ask(address: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let (request, wanted): (_, &[u8]) = match protocol {
        Protocol::Http1 | Protocol::Bytes => (REQUEST, b"HTTP/1.1 200"),
        // The indexed field `:status: 200` (RFC 7541, appendix A, 8), the first of the headers.
        Protocol::H2c => (H2C_REQUEST, &[0, 0, 0, 1, 0x88]),
    };
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        if answer.windows(wanted.len()).any(|seen| seen == wanted) {
            return Ok(());
        }
        let read = stream.read_buf(&mut answer).await?;
        anyhow::ensure!(
            read > 0,
            "not a 200: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}
