//! Reads a TLS ClientHello, as far as we need it (RFC 8446, 4.1.2 and 5.1; RFC 6066, 3): pure.
//!
//! Everything is bounded by what the caller of [`parse`] collects, at most 16 KiB.
//! Nothing is decrypted: a ClientHello is plain.

/// Longest ClientHello that is read, with the heads of its records, bytes. Those of today have 0.2
/// to 2 KiB; 16 KiB is the longest record.
const MAX_HELLO: usize = 16 * 1024;

/// First byte of a TLS handshake record.
pub(crate) const HANDSHAKE_RECORD: u8 = 22;
/// Major version in the head of every record since SSL 3.0.
const MAJOR: u8 = 3;
/// Type, version and length.
const RECORD_HEAD: usize = 5;
/// Longest fragment in a record.
const MAX_FRAGMENT: usize = 1 << 14;
/// Type of the handshake message that we look for.
const CLIENT_HELLO: u8 = 1;
/// Type and length.
const MESSAGE_HEAD: usize = 4;
/// Number of the extension `server_name`, and of its only kind of name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// How Istio's Envoys begin the SNI of a connection to another workload.
const ISTIO_PREFIX: &str = "outbound_.";
/// What stands between the parts of such an SNI: port, subset (often empty) and host.
const ISTIO_SEPARATOR: &str = "_.";

/// A whole ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Bytes that it takes up, with the heads of its records.
    pub(crate) length: usize,
    /// The server name (SNI), where there is one and it is text.
    pub(crate) server_name: Option<String>,
}

/// Not the beginning of a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TLS ClientHello of at most {MAX_HELLO} bytes")]
pub(crate) struct BadHello;

/// The ClientHello at the start of `bytes`; `None` where more bytes are needed.
///
/// # Errors
/// Where no further byte can make it a ClientHello of at most 16 KiB.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Hello>, BadHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    let mut length = 0;
    loop {
        let Some(fragment) = record(rest)? else {
            // A record that can't be had whole any more is not waited for.
            return match bytes.len() < MAX_HELLO {
                true => Ok(None),
                false => Err(BadHello),
            };
        };
        length += RECORD_HEAD + fragment.len();
        rest = bytes.get(length..).unwrap_or_default();
        message.extend_from_slice(fragment);
        let Some(whole) = message_length(&message)? else {
            continue;
        };
        if message.len() < whole {
            continue;
        }
        // The client has nothing else to say before it has been answered.
        if message.len() > whole || length > MAX_HELLO {
            return Err(BadHello);
        }
        let body = message.get(MESSAGE_HEAD..).ok_or(BadHello)?;
        let server_name = server_name(body).ok_or(BadHello)?;
        return Ok(Some(Hello {
            length,
            server_name: server_name.and_then(|name| String::from_utf8(name.to_vec()).ok()),
        }));
    }
}

/// Service and namespace that a connection with this server name asks for.
///
/// Only Istio's own names for a Service (`outbound_.<port>_.<subset>_.<service>.<namespace>.svc...`)
/// say it; a ServiceEntry's host or another client's name may be for anybody.
pub(crate) fn asked_service(server_name: &str) -> Option<(&str, &str)> {
    let mut labels = istio_host(server_name)?.split('.');
    let (service, namespace) = (labels.next()?, labels.next()?);
    let is_service = labels.next()?.eq_ignore_ascii_case("svc");
    is_service.then_some((service, namespace))
}

fn istio_host(server_name: &str) -> Option<&str> {
    let rest = server_name.strip_prefix(ISTIO_PREFIX)?;
    let (port, rest) = rest.split_once(ISTIO_SEPARATOR)?;
    port.parse::<u16>().ok()?;
    // A subset's name is the user's; a host has no underscore before a dot.
    let (_subset, host) = rest.rsplit_once(ISTIO_SEPARATOR)?;
    Some(host)
}

/// Fragment of the handshake record at the start of `bytes`; `None` where it is not whole.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, BadHello> {
    // Each byte is judged as soon as it is there: what can't become a hello is not waited for.
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE_RECORD)
        || bytes.get(1).is_some_and(|major| *major != MAJOR)
    {
        return Err(BadHello);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if length == 0 || length > MAX_FRAGMENT {
        return Err(BadHello);
    }
    Ok(rest.get(..length))
}

/// Length of the handshake message that begins with `bytes`, with its head; `None` where that is
/// not there yet.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, BadHello> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(BadHello);
    }
    let Some(&[_, high, middle, low]) = bytes.first_chunk::<MESSAGE_HEAD>() else {
        return Ok(None);
    };
    let length = MESSAGE_HEAD + usize::from(high) * 65_536 + be16([middle, low]);
    match length > MAX_HELLO {
        true => Err(BadHello),
        false => Ok(Some(length)),
    }
}

/// Server name in the body of a ClientHello; the outer `None`: it can't be read.
fn server_name(body: &[u8]) -> Option<Option<&[u8]>> {
    let mut body = Reader(body);
    let _version_and_random = body.take(2 + 32)?;
    let _session = body.vector8()?;
    let _ciphers = body.vector16()?;
    let _compressions = body.vector8()?;
    if body.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(body.vector16()?);
    if !body.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let value = extensions.vector16()?;
        if kind != SERVER_NAME {
            continue;
        }
        // Of two, the server might read the other one.
        if found.is_some() {
            return None;
        }
        found = Some(host_name(value)?);
    }
    Some(found)
}

/// The only name in the extension `server_name`.
fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let mut extension = Reader(extension);
    let mut names = Reader(extension.vector16()?);
    let kind = names.number8()?;
    let name = names.vector16()?;
    let is_all = names.0.is_empty() && extension.0.is_empty();
    (is_all && kind == HOST_NAME && !name.is_empty()).then_some(name)
}

fn be16(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(bytes))
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number8(&mut self) -> Option<u8> {
        let (number, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*number)
    }

    fn number16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// As many bytes as the byte before them says.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.number8()?;
        self.take(usize::from(length))
    }

    /// As many bytes as the two bytes before them say.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
