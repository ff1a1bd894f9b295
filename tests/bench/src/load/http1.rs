//! One HTTP/1.1 exchange on a blocking socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A request that lets the connection stay.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// Longest wait for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that stays open between requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

// === impl Connection ===

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Sends a GET and reads its answer to the end.
    ///
    /// # Errors
    /// Where the answer is not a whole 200.
    pub fn get(&mut self) -> io::Result<()> {
        self.stream.write_all(REQUEST)?;
        self.read.clear();
        let mut part = [0; 4096];
        loop {
            let length = self.stream.read(&mut part)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&part[..length]);
            match whole_length(&self.read)? {
                Some(whole) if whole == self.read.len() => return Ok(()),
                Some(whole) if whole < self.read.len() => {
                    return Err(unexpected("more than an answer", &self.read));
                }
                _ => {}
            }
        }
    }
}

/// Length of the answer that `read` begins with; `None` where its head is not all there.
fn whole_length(read: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(unexpected("not a 200", read));
    }
    let body: Option<usize> = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let body = body.ok_or_else(|| unexpected("no content-length", read))?;
    Ok(Some(head + 4 + body))
}

fn unexpected(what: &str, read: &[u8]) -> io::Error {
    io::Error::other(format!("{what}: {:?}", String::from_utf8_lossy(read)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(whole_length(answer).unwrap(), Some(answer.len()));
        assert_eq!(whole_length(&answer[..20]).unwrap(), None);
    }

    #[test]
    fn errors_and_answers_without_a_length_are_refused() {
        assert!(whole_length(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(whole_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
