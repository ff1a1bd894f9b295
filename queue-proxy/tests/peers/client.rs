//! Callers: curl, and bytes written by hand.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::process::{self, soon};

/// An HTTP/1 answer, read to its end.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// How curl ended.
#[derive(Debug)]
pub(crate) struct Curl {
    /// Exit code: 0, or one of <https://curl.se/docs/manpage.html#EXIT>.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    /// With `-v`, everything that went over the connection but for bodies.
    pub(crate) stderr: String,
}

/// Runs curl and nothing of the user's own settings.
pub(crate) async fn curl(arguments: &[&str]) -> Curl {
    curl_with(arguments, None).await
}

/// Runs curl with `input` on its standard input.
pub(crate) async fn curl_with(arguments: &[&str], input: Option<&[u8]>) -> Curl {
    let mut command = process::command("curl");
    command
        .args(["-q", "--silent", "--show-error", "--noproxy", "*"])
        .args(["--max-time", "25"])
        .args(arguments);
    let output = process::output(command, input).await;
    Curl {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends `request` and reads until the other side ends the connection.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Who refuses a request may be gone before its end.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    answer
}

/// A GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Raw {
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    Raw::parse(&exchange(address, head.as_bytes()).await)
}

/// Reads until what was read ends with `end`.
pub(crate) async fn read_to(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = soon(stream.read_u8()).await;
        let shown = || String::from_utf8_lossy(&read).into_owned();
        let byte = byte.unwrap_or_else(|error| panic!("{error} after {:?}", shown()));
        read.push(byte);
    }
    String::from_utf8_lossy(&read).into_owned()
}

// === impl Raw ===

impl Raw {
    pub(crate) fn parse(answer: &[u8]) -> Self {
        let answer = String::from_utf8_lossy(answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Self {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.head.get(9..12).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    pub(crate) fn has(&self, header: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(header))
    }
}

// === impl Curl ===

impl Curl {
    /// What it printed, where it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Lines that it received, by `-v`.
    pub(crate) fn received(&self) -> Vec<&str> {
        self.lines("< ")
    }

    /// Lines that it sent, by `-v`.
    pub(crate) fn sent(&self) -> Vec<&str> {
        self.lines("> ")
    }

    fn lines(&self, mark: &str) -> Vec<&str> {
        self.stderr
            .lines()
            .filter_map(|line| line.strip_prefix(mark))
            .map(str::trim_end)
            .collect()
    }
}
