//! One request and its answer.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::client::{Effort, Target, Wanted, resolve};
use crate::{
    ms, unix_us,
    wire::{POD_HEADER, ProbeAnswer, ProbeSpec},
    with_causes,
};

/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Pause between two echoes on a stream that is held.
const ECHO_PAUSE: Duration = Duration::from_millis(200);
/// Longest greeting of a server that speaks first, bytes.
const MAX_LINE: u64 = 1024;

/// Makes one attempt, or as many as `until_ok_ms` allows.
pub(super) async fn probe(spec: &ProbeSpec) -> ProbeAnswer {
    let (started, started_at_unix_us) = (Instant::now(), unix_us());
    let limit = Duration::from_millis(spec.timeout_ms);
    let until = spec
        .until_ok_ms
        .map(|ms| started + Duration::from_millis(ms));
    let mut attempts = 0;
    // Resolved once: name look-ups are no part of what attempts measure.
    let mut target = None;
    loop {
        attempts += 1;
        let outcome = timeout(limit, Box::pin(attempt(spec, &mut target))).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer in {limit:?}")));
        let answer = outcome.unwrap_or_else(|error| ProbeAnswer {
            error: Some(error),
            ..Default::default()
        });
        if answer.ok || until.is_none_or(|until| Instant::now() >= until) {
            return ProbeAnswer {
                ms: ms(started.elapsed()),
                attempts,
                started_at_unix_us,
                answered_at_unix_us: unix_us(),
                ..answer
            };
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn attempt(spec: &ProbeSpec, target: &mut Option<Target>) -> Result<ProbeAnswer, String> {
    let send = spec.send.as_deref().unwrap_or_default();
    if spec.url.starts_with("tcp://") {
        return speak_after(&spec.url, send).await;
    }
    let target = match target {
        Some(target) => target,
        None => target.insert(resolved(spec).await?),
    };
    if spec.upgrade {
        let hold = Duration::from_millis(spec.hold_ms);
        return upgrade(target, (send, hold)).await;
    }
    let answered = target.exchange(&mut None, &mut Effort::default()).await?;
    Ok(ProbeAnswer {
        ok: answered.is_ok(),
        status: Some(answered.head.status.as_u16()),
        headers: readable(&answered.head.headers),
        pod: answered.header(POD_HEADER).map(str::to_owned),
        body: String::from_utf8_lossy(&answered.body).into_owned(),
        ..ProbeAnswer::default()
    })
}

async fn resolved(spec: &ProbeSpec) -> Result<Target, String> {
    let wanted = Wanted {
        url: &spec.url,
        method: &spec.method,
        path: None,
        headers: &spec.headers,
        h2c: spec.h2c,
        close: !spec.upgrade,
        body: if spec.upgrade {
            ""
        } else {
            spec.send.as_deref().unwrap_or_default()
        },
    };
    Target::resolve(&wanted).await
}

/// Upgrades, sends, and wants the same bytes back, again and again until `hold` is over.
async fn upgrade(target: &Target, (send, hold): (&str, Duration)) -> Result<ProbeAnswer, String> {
    let io = TokioIo::new(target.connect().await?);
    let handshake = http1::handshake::<_, http_body_util::Full<Bytes>>(io).await;
    let (mut sender, connection) = handshake.map_err(|e| with_causes(&e))?;
    // Its end shows at the sender and at the upgraded stream.
    let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = target.request();
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| with_causes(&e))?;
    let mut answer = ProbeAnswer {
        status: Some(response.status().as_u16()),
        headers: readable(response.headers()),
        ..ProbeAnswer::default()
    };
    answer.pod = answer.headers.get(POD_HEADER).cloned();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|e| with_causes(&e))?;
    let mut stream = TokioIo::new(upgraded);
    let mut echoed = vec![0; send.len()];
    let io_error = |e: std::io::Error| format!("after the upgrade: {e}");
    let until = Instant::now() + hold;
    answer.ok = loop {
        stream.write_all(send.as_bytes()).await.map_err(io_error)?;
        stream.read_exact(&mut echoed).await.map_err(io_error)?;
        let is_same = echoed == send.as_bytes();
        if !is_same || Instant::now() >= until {
            break is_same;
        }
        sleep(ECHO_PAUSE).await;
    };
    task.abort();
    answer.body = String::from_utf8_lossy(&echoed).into_owned();
    Ok(answer)
}

/// Reads a greeting line, sends a line, and wants it back.
async fn speak_after(url: &str, send: &str) -> Result<ProbeAnswer, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let addr = resolve(&uri).await?;
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|e| format!("connect: {e}"))?;
    let mut stream = BufReader::new(stream);
    let io_error = |e: std::io::Error| format!("after connecting: {e}");
    let (mut greeting, mut echoed) = (String::new(), String::new());
    (&mut stream)
        .take(MAX_LINE)
        .read_line(&mut greeting)
        .await
        .map_err(io_error)?;
    stream
        .write_all(format!("{send}\n").as_bytes())
        .await
        .map_err(io_error)?;
    (&mut stream)
        .take(MAX_LINE)
        .read_line(&mut echoed)
        .await
        .map_err(io_error)?;
    let pod = greeting
        .trim()
        .strip_prefix("hello from ")
        .map(str::to_owned);
    Ok(ProbeAnswer {
        ok: pod.is_some() && echoed.trim_end() == send,
        pod,
        body: greeting + &echoed,
        ..ProbeAnswer::default()
    })
}

fn readable(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect()
}
