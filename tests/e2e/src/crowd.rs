//! A crowd of workloads that nobody runs: the status page's own files, and news of the crowd once a second.
//! So a page of a thousand can be looked at without a cluster of a thousand.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use lull_contract::view::{
    CallerShare, Change, ConditionView, CountChange, EVENTS_PATH, LIST_PATH, MAX_CALLERS,
    MAX_CHANGES, MAX_MOMENTS, MAX_WAKES, Moment, PhaseView, WakeView, WorkloadDetail, WorkloadView,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Between two events, as the autoscaler sends them at most.
const EVERY: Duration = Duration::from_secs(1);
/// One workload in so many changes with each event, but for the first one, which always does.
const CHANGES: u32 = 5;
/// Longest head of a request.
const HEAD: usize = 64 << 10;
/// States that the crowd goes through.
const STATES: [&str; 6] = [
    "Awake",
    "Asleep",
    "Waking",
    "Bursting",
    "Enrolling",
    "FallingAsleep",
];
/// The page's files: path, type, text.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../../autoscaler/src/page/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../autoscaler/src/page/app.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("../../../autoscaler/src/page/style.css"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_str!("../../../autoscaler/src/page/icon.svg"),
    ),
];

/// A server on this machine. It ends when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

// === impl Crowd ===

impl Crowd {
    /// Shows `count` workloads. The first one has in flight how many events there were.
    ///
    /// # Errors
    /// Where it can't listen.
    pub async fn start(count: u32) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            serving: tokio::spawn(serve(listener, count)),
        })
    }

    /// Where the page is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, count: u32) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        open.spawn(async move {
            // A browser that leaves is nothing to tell of.
            let _ = answer(stream, count).await;
        });
    }
}

/// One request for each connection.
async fn answer(mut stream: TcpStream, count: u32) -> anyhow::Result<()> {
    let path = asked_for(&mut stream).await?;
    if path == EVENTS_PATH {
        return tell(&mut stream, count).await;
    }
    let file = FILES.iter().find(|(file, ..)| *file == path);
    let number = path.strip_prefix(LIST_PATH).and_then(number);
    let (status, kind, text) = match (file, number) {
        (Some((_, kind, text)), _) => ("200 OK", *kind, (*text).to_owned()),
        (None, Some(number)) => {
            let detail = serde_json::to_string(&detail(number))?;
            ("200 OK", "application/json", detail)
        }
        (None, None) => ("404 Not Found", "text/plain", path),
    };
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(())
}

/// The path of the request.
async fn asked_for(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await?;
        anyhow::ensure!(read > 0 && head.len() < HEAD, "no whole request");
    }
    let head = String::from_utf8(head)?;
    let path = head.split(' ').nth(1).context("no path")?;
    Ok(path.to_owned())
}

/// Tells of everybody, then of some each second, for as long as somebody listens.
async fn tell(stream: &mut TcpStream, count: u32) -> anyhow::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await?;
    for round in 0_u32.. {
        let is_news = |number: &u32| {
            let changes = (*number + round).is_multiple_of(CHANGES);
            round == 0 || *number == 0 || changes
        };
        let numbers = (0..count).filter(is_news);
        let change = Change {
            changed: numbers.map(|number| view(number, round)).collect(),
            ..Change::default()
        };
        let event = format!("data: {}\n\n", serde_json::to_string(&change)?);
        stream.write_all(event.as_bytes()).await?;
        sleep(EVERY).await;
    }
    Ok(())
}

/// The number in a workload's path, at its end.
fn number(path: &str) -> Option<u32> {
    path.rsplit_once('-')?.1.parse().ok()
}

fn now() -> String {
    Timestamp::now().to_string()
}

/// Workload `number` as it is by event `round`.
fn view(number: u32, round: u32) -> WorkloadView {
    let at = (number + round) as usize % STATES.len();
    let state = STATES[at];
    let is_asleep = state == "Asleep";
    let condition = ConditionView {
        kind: "Warnings".to_owned(),
        status: "True".to_owned(),
        reason: "SlowWake".to_owned(),
        message: "takes longer than callers wait ".repeat(8),
    };
    WorkloadView {
        namespace: format!("team-{:02}", number % 20),
        name: format!("workload-{number:04}"),
        target_kind: "Deployment".to_owned(),
        target_name: format!("workload-{number:04}"),
        is_live: true,
        mode: "Serve".to_owned(),
        state: state.to_owned(),
        since: Some(now()),
        ready: if is_asleep { 0 } else { 1 + round % 3 },
        desired: 1,
        in_flight: u64::from(if number == 0 { round } else { number % 50 }),
        held: u64::from(number % 3),
        reason: format!("event {round} of many, each of which says something else"),
        conditions: if number % 50 == 1 {
            vec![condition]
        } else {
            Vec::new()
        },
        saved_pod_seconds: u64::from(number) * 1_000,
        saving_pods: u32::from(is_asleep),
        ..WorkloadView::default()
    }
}

/// As much as there is of one workload at most.
fn detail(number: u32) -> WorkloadDetail {
    let phases = [
        ("created", 40),
        ("scheduled", 90),
        ("running", 500),
        ("listening", 510),
        ("answering", 700),
        ("first-byte", 742),
    ];
    let wake = WakeView {
        at: now(),
        scaled_to: 1,
        total_ms: Some(742),
        waited_ms: Some(700),
        phases: phases
            .map(|(name, ms)| PhaseView {
                name: name.to_owned(),
                ms,
            })
            .into(),
        ..WakeView::default()
    };
    let change = CountChange {
        at: now(),
        from: 0,
        to: 1,
        reason: "somebody is held".to_owned(),
    };
    let ages = (0_u32..).step_by(5).take(MAX_MOMENTS);
    let moments = ages.map(|ago| Moment {
        ago,
        in_flight: u64::from(ago % 20),
        ready: ago % 3,
        desired: 1,
    });
    let mut line: Vec<_> = moments.collect();
    line.reverse();
    WorkloadDetail {
        workload: view(number, 0),
        wakes: vec![wake; MAX_WAKES],
        history: vec![change; MAX_CHANGES],
        callers: vec![CallerShare::default(); MAX_CALLERS],
        line,
        ..WorkloadDetail::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_of_first_and_some_each_second() {
        let crowd = Crowd::start(7).await.unwrap();
        let mut stream = TcpStream::connect(crowd.address).await.unwrap();
        stream
            .write_all(b"GET /events HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        while text.matches("data: ").count() < 2 || !text.ends_with("\n\n") {
            let mut part = vec![0; 64 << 10];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "{text}");
            text.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let changes = events.map(|event| serde_json::from_str::<Change>(event).unwrap());
        let counts: Vec<_> = changes.map(|change| change.changed.len()).collect();
        assert_eq!(counts, [7, 2], "the first one, and the fifth");
    }

    #[tokio::test]
    async fn a_workload_is_told_by_its_path() {
        assert_eq!(number("/team-01/workload-0021"), Some(21));
        assert_eq!(number("/team-01/workload-x"), None);
        let detail = detail(21);
        assert_eq!(detail.workload.key(), "team-01/workload-0021");
        assert_eq!(detail.line.last().unwrap().ago, 0);
    }
}
