//! An app that keeps what it is sent, and reads it by the letter of RFC 9112: where the proxy
//! would pass on something that another server may read in another way, this one calls it wrong.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Request line and header lines, without the empty line.
    pub(crate) head: Vec<u8>,
    /// Content, without the framing of chunks.
    pub(crate) body: Vec<u8>,
    /// Trailer lines.
    pub(crate) trailers: Vec<u8>,
    /// Sent in chunks.
    pub(crate) chunked: bool,
}

pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    messages: Vec<Message>,
    /// What could not be read, and why.
    wrong: Vec<String>,
}

/// Why bytes are not a request.
type Wrong = String;

// === impl Recorder ===

impl Recorder {
    /// Answers every request with its target.
    pub(crate) async fn start() -> Self {
        Self::answering(|message| {
            let target = String::from_utf8_lossy(message.target()).into_owned();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                target.len()
            )
            .into()
        })
        .await
    }

    pub(crate) async fn answering(
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&shared), Arc::clone(&answer)));
            }
        });
        Self { address, seen }
    }

    /// Every request so far, in the order of their ends; each byte that came was part of one.
    ///
    /// # Panics
    /// Where one was wrong.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let seen = self.seen.lock();
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        seen.messages.clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Message {
        let messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages[0].clone()
    }
}

async fn connection(
    mut stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
    answer: Arc<impl Fn(&Message) -> Vec<u8>>,
) {
    let mut bytes = Vec::new();
    loop {
        match Message::read(&bytes) {
            Err(wrong) => {
                let text = String::from_utf8_lossy(&bytes);
                seen.lock().wrong.push(format!("{wrong}: {text:?}"));
                return;
            }
            Ok(Some((message, length))) => {
                bytes.drain(..length);
                let answer = answer(&message);
                seen.lock().messages.push(message);
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Ok(None) => match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                // What had not ended by now was no request.
                _ => return,
            },
        }
    }
}

// === impl Message ===

impl Message {
    /// The request at the beginning of `bytes` and its length; `None` = it has not ended.
    fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Wrong> {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let mut message = Self {
            head: bytes[..end].to_vec(),
            body: Vec::new(),
            trailers: Vec::new(),
            chunked: false,
        };
        message.check()?;
        let rest = &bytes[end + 4..];
        let length = match message.length()? {
            Some(length) if rest.len() < length => return Ok(None),
            Some(length) => {
                message.body = rest[..length].to_vec();
                length
            }
            None => {
                message.chunked = true;
                match message.chunks(rest)? {
                    None => return Ok(None),
                    Some(length) => length,
                }
            }
        };
        Ok(Some((message, end + 4 + length)))
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.head.split(|byte| *byte == b'\n').map(trim_cr)
    }

    pub(crate) fn request_line(&self) -> &[u8] {
        self.lines().next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &[u8] {
        let mut words = self.request_line().split(|byte| *byte == b' ');
        words.nth(1).unwrap_or_default()
    }

    /// Header lines as they came.
    pub(crate) fn headers(&self) -> Vec<&[u8]> {
        self.lines().skip(1).collect()
    }

    /// Values of the header called `name`, whatever its case.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let called = |line: &&[u8]| {
            let colon = line.iter().position(|byte| *byte == b':');
            colon.is_some_and(|colon| line[..colon].eq_ignore_ascii_case(name.as_bytes()))
        };
        self.lines()
            .skip(1)
            .filter(called)
            .map(|line| line[name.len() + 1..].trim_ascii())
            .collect()
    }

    fn check(&self) -> Result<(), Wrong> {
        let bare = |(at, byte): (usize, &u8)| match byte {
            b'\n' => at == 0 || self.head[at - 1] != b'\r',
            b'\r' => self.head.get(at + 1) != Some(&b'\n'),
            0 => true,
            _ => false,
        };
        if self.head.iter().enumerate().any(bare) {
            return Err("bare CR, LF or NUL".to_owned());
        }
        let words: Vec<&[u8]> = self.request_line().split(|byte| *byte == b' ').collect();
        if words.len() != 3 || words[2] != b"HTTP/1.1" || !words[0].iter().all(is_token) {
            return Err("bad request line".to_owned());
        }
        for line in self.headers() {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if name.is_empty() || name.len() == line.len() || !name.iter().all(is_token) {
                return Err(format!("bad header {:?}", String::from_utf8_lossy(line)));
            }
        }
        match self.values("host").len() {
            1 => Ok(()),
            count => Err(format!("{count} Host headers")),
        }
    }

    /// Length of the body; `None` = chunks.
    fn length(&self) -> Result<Option<usize>, Wrong> {
        match (
            self.values("content-length").as_slice(),
            self.values("transfer-encoding").as_slice(),
        ) {
            ([], []) => Ok(Some(0)),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(None),
            ([length], []) if length.iter().all(u8::is_ascii_digit) => {
                let length = str::from_utf8(length)
                    .ok()
                    .and_then(|text| text.parse().ok());
                length
                    .map(Some)
                    .ok_or_else(|| "bad Content-Length".to_owned())
            }
            lengths => Err(format!("unclear length {lengths:?}")),
        }
    }

    /// Takes chunks and trailers from the beginning of `bytes`; `None` = they have not ended.
    fn chunks(&mut self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        let mut at = 0;
        loop {
            let Some(end) = find(&bytes[at..], b"\r\n") else {
                return Ok(None);
            };
            let digits = &bytes[at..at + end];
            at += end + 2;
            let size = str::from_utf8(digits)
                .ok()
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| usize::from_str_radix(digits, 16).ok())
                .ok_or_else(|| format!("bad chunk size {digits:?}"))?;
            if size == 0 {
                break;
            }
            let Some(chunk) = bytes.get(at..at + size + 2) else {
                return Ok(None);
            };
            if !chunk.ends_with(b"\r\n") {
                return Err("a chunk does not end where it says".to_owned());
            }
            self.body.extend(&chunk[..size]);
            at += size + 2;
        }
        if bytes[at..].starts_with(b"\r\n") {
            return Ok(Some(at + 2));
        }
        let Some(end) = find(&bytes[at..], b"\r\n\r\n") else {
            return Ok(None);
        };
        self.trailers = bytes[at..at + end].to_vec();
        Ok(Some(at + end + 4))
    }
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[test]
fn the_reader_takes_nothing_that_has_two_meanings() {
    let read = |text: &str| Message::read(text.as_bytes());
    let (message, length) = read("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest")
        .unwrap()
        .unwrap();
    assert_eq!((message.target(), length), (&b"/"[..], 27));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (message, _) = read(&format!("{chunked}3\r\none\r\n0\r\nX: 1\r\n\r\n"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (&message.body[..], &message.trailers[..]),
        (&b"one"[..], &b"X: 1"[..])
    );
    assert_eq!(read(&format!("{chunked}3\r\none")), Ok(None));
    for wrong in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
    assert!(read(&format!("{chunked}0x1\r\n")).is_err());
    assert!(read(&format!("{chunked}1;x\r\na\r\n")).is_err());
    assert!(read(&format!("{chunked}1\r\nabc\r\n")).is_err());
}
