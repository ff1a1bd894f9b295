//! Chromium's own protocol (<https://chromedevtools.github.io/devtools-protocol>), for one page.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::eventually;

/// Longest wait until Chromium says by which path it is asked.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Domains of the protocol whose events are wanted, or that must be told so to answer.
const DOMAINS: [&str; 5] = ["Page", "Runtime", "Network", "Log", "Performance"];
/// Events that are kept; the others are as many as the page has news.
const KEPT: [&str; 5] = [
    "Network.requestWillBeSent",
    "Network.responseReceived",
    "Log.entryAdded",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
];

/// One page, and what the browser has told of it.
#[derive(Debug)]
pub(super) struct DevTools {
    socket: WebSocketStream<TcpStream>,
    /// Of the page; none while the browser itself is asked.
    session: Option<String>,
    /// Number of the last question.
    asked: u64,
    /// Events, the oldest first.
    heard: Vec<Value>,
}

// === impl DevTools ===

impl DevTools {
    /// Opens a page in the Chromium that listens at `address` and whose profile is in `profile`.
    pub(super) async fn connect(address: SocketAddr, profile: &Path) -> anyhow::Result<Self> {
        let path = eventually("Chromium to say its path", PATIENCE, async || {
            let text = std::fs::read_to_string(profile.join("DevToolsActivePort"))?;
            path(&text).with_context(|| format!("it says: {text}"))
        })
        .await?;
        let stream = TcpStream::connect(address).await?;
        let (socket, _) = client_async(format!("ws://{address}{path}"), stream).await?;
        let mut tools = Self {
            socket,
            session: None,
            asked: 0,
            heard: Vec::new(),
        };
        tools.attach().await.context("open a page")?;
        Ok(tools)
    }

    async fn attach(&mut self) -> anyhow::Result<()> {
        let blank = json!({ "url": "about:blank" });
        let page = self.ask("Target.createTarget", blank).await?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = self.ask("Target.attachToTarget", attach).await?;
        let session = session["sessionId"].as_str().context("no session")?;
        self.session = Some(session.to_owned());
        for domain in DOMAINS {
            self.ask(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method });
        question["params"] = params;
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        let answer = async {
            let question = Message::text(question.to_string());
            self.socket.send(question).await?;
            self.answer().await
        };
        let answer = timeout(ANSWER, answer).await;
        let mut answer = answer
            .with_context(|| format!("{method}: no answer in {ANSWER:?}"))?
            .with_context(|| method.to_owned())?;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    /// Reads to the answer to the last question. One that nobody waited for to its end is passed over.
    async fn answer(&mut self) -> anyhow::Result<Value> {
        while let Some(message) = self.socket.next().await {
            let message = message?;
            if !message.is_text() {
                continue;
            }
            let message: Value = serde_json::from_str(message.to_text()?)?;
            if message["id"].as_u64() == Some(self.asked) {
                return Ok(message);
            }
            if KEPT.iter().any(|method| message["method"] == *method) {
                self.heard.push(message);
            }
        }
        bail!("Chromium has gone")
    }

    /// What it has told by events of this method.
    pub(super) fn heard(&self, method: &str) -> impl Iterator<Item = &Value> {
        let events = self.heard.iter();
        let events = events.filter(move |event| event["method"] == method);
        events.map(|event| &event["params"])
    }
}

/// The path in what Chromium writes into its profile once it listens: a line with the port, and one with
/// the path.
fn path(text: &str) -> Option<String> {
    let (_, path) = text.split_once('\n')?;
    let path = path.trim_end();
    path.starts_with("/devtools/").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chromium_s_path_is_known_once_both_lines_are_there() {
        let whole = "41535\n/devtools/browser/1f-2e";
        assert_eq!(path(whole).as_deref(), Some("/devtools/browser/1f-2e"));
        assert_eq!(path("41535"), None);
        assert_eq!(path("41535\n"), None);
    }
}
