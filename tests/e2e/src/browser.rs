//! A real browser, without a window: Chromium, as somebody at its keyboard has it.

mod devtools;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;

use self::devtools::DevTools;
use crate::{
    background::{Program, Scratch, program},
    eventually,
};

/// What each page has of the test before its own script: `looks` and `pace`.
const SCRIPTS: [&str; 2] = [
    include_str!("browser/looks.js"),
    include_str!("browser/pace.js"),
];
/// Longest wait until a page shows something.
const SHOWN: Duration = Duration::from_secs(30);

/// A desk's screen, by day.
pub const DESK: Screen = Screen {
    width: 1280,
    height: 900,
    is_phone: false,
    is_dark: false,
};
/// A small phone's, by day.
pub const PHONE: Screen = Screen {
    width: 390,
    height: 844,
    is_phone: true,
    is_dark: false,
};

/// What a page is looked at with.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
    /// Whether it is laid out as on phones, which make room for what is too wide.
    pub is_phone: bool,
    /// Whether who looks on prefers dark.
    pub is_dark: bool,
}

/// A key that is not a letter.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    /// To the next place.
    Tab,
    /// Follows a link.
    Enter,
    /// Leaves.
    Escape,
    /// One down.
    Down,
    /// One up.
    Up,
    /// Takes the last letter away.
    Backspace,
}

/// Where the keyboard is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Focus {
    /// A link's target; `@` and the id of anything else.
    pub at: String,
    /// Whether an outline around it is in view.
    pub is_seen: bool,
}

/// A browser with one page. Dropping it kills it.
#[derive(Debug)]
pub struct Browser {
    tools: DevTools,
    chromium: Program,
    // Last: a folder goes when nobody writes to it any more.
    _scratch: Scratch,
}

// === impl Screen ===

impl Screen {
    /// The same by night.
    #[must_use]
    pub fn dark(self) -> Self {
        Self {
            is_dark: true,
            ..self
        }
    }
}

// === impl Key ===

impl Key {
    /// Its name, its number, and what it types.
    fn parts(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::Tab => ("Tab", 9, ""),
            Self::Enter => ("Enter", 13, "\r"),
            Self::Escape => ("Escape", 27, ""),
            Self::Down => ("ArrowDown", 40, ""),
            Self::Up => ("ArrowUp", 38, ""),
            Self::Backspace => ("Backspace", 8, ""),
        }
    }
}

// === impl Browser ===

impl Browser {
    /// Starts Chromium, which `E2E_CHROMIUM` names, with an empty page.
    ///
    /// # Errors
    /// Where it is missing or doesn't start.
    pub async fn start() -> anyhow::Result<Self> {
        let scratch = Scratch::try_new("browser")?;
        let profile = scratch.path().join("profile");
        let mut command = Command::new(program("E2E_CHROMIUM")?);
        command
            // Its sandbox can't be had as root.
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            // In a container there are 64 MiB of it.
            .arg("--disable-dev-shm-usage")
            .args(["--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()));
        let mut chromium = Program::start("chromium", command, &scratch)?;
        let address = chromium.address(&["DevTools listening on ws://"]).await?;
        let mut browser = Self {
            tools: DevTools::connect(address, &profile).await?,
            chromium,
            _scratch: scratch,
        };
        for source in SCRIPTS {
            let script = json!({ "source": source });
            let method = "Page.addScriptToEvaluateOnNewDocument";
            browser.tools.ask(method, script).await?;
        }
        // Else a page without a window is never where the keyboard is.
        let focused = json!({ "enabled": true });
        let method = "Emulation.setFocusEmulationEnabled";
        browser.tools.ask(method, focused).await?;
        Ok(browser)
    }

    /// Leads to another page.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let answer = self
            .tools
            .ask("Page.navigate", json!({ "url": url }))
            .await?;
        let error = &answer["errorText"];
        ensure!(error.is_null(), "{url}: {error}");
        Ok(())
    }

    /// Takes another screen.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub async fn look_with(&mut self, screen: Screen) -> anyhow::Result<()> {
        let size = json!({
            "width": screen.width,
            "height": screen.height,
            "deviceScaleFactor": 1,
            "mobile": screen.is_phone,
        });
        let scheme = if screen.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        let method = "Emulation.setDeviceMetricsOverride";
        self.tools.ask(method, size).await?;
        let method = "Emulation.setEmulatedMedia";
        self.tools.ask(method, media).await.map(drop)
    }

    /// What an expression of JavaScript comes to in the page; a promise is waited for.
    ///
    /// # Errors
    /// Where it throws, or is something else.
    pub async fn value<T: DeserializeOwned>(&mut self, expression: &str) -> anyhow::Result<T> {
        let question = json!({
            "expression": expression,
            "returnByValue": true,
            "awaitPromise": true,
        });
        let mut answer = self.tools.ask("Runtime.evaluate", question).await?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        let value = answer["result"]["value"].take();
        let what = || format!("{expression} is {value}");
        serde_json::from_value(value.clone()).with_context(what)
    }

    /// Waits until the page makes `expression` true.
    ///
    /// # Errors
    /// Where it doesn't within 30 s.
    pub async fn shows(&mut self, expression: &str) -> anyhow::Result<()> {
        eventually(expression, SHOWN, async || {
            let is_so: bool = self.value(expression).await?;
            ensure!(is_so, "it is false");
            Ok(())
        })
        .await
    }

    /// Presses a key.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub async fn press(&mut self, key: Key) -> anyhow::Result<()> {
        let (name, number, text) = key.parts();
        self.stroke(json!({
            "key": name,
            "code": name,
            "windowsVirtualKeyCode": number,
            "text": text,
        }))
        .await
    }

    /// Types letters.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub async fn type_in(&mut self, text: &str) -> anyhow::Result<()> {
        for letter in text.chars() {
            let letter = letter.to_string();
            self.stroke(json!({ "key": letter, "text": letter }))
                .await?;
        }
        Ok(())
    }

    async fn stroke(&mut self, mut key: Value) -> anyhow::Result<()> {
        key["type"] = json!("keyDown");
        let method = "Input.dispatchKeyEvent";
        self.tools.ask(method, key.clone()).await?;
        key["type"] = json!("keyUp");
        key["text"] = json!("");
        self.tools.ask(method, key).await.map(drop)
    }

    /// Where the keyboard is.
    ///
    /// # Errors
    /// Where the page doesn't say.
    pub async fn focus(&mut self) -> anyhow::Result<Focus> {
        self.value("looks.focus()").await
    }

    /// Waits until the keyboard is at `place` (as [`Focus::at`] has it), and anybody can see that.
    ///
    /// # Errors
    /// Where it isn't within 30 s.
    pub async fn is_at(&mut self, place: &str) -> anyhow::Result<()> {
        eventually(&format!("the keyboard at {place}"), SHOWN, async || {
            let focus = self.focus().await?;
            ensure!(focus.at == place && focus.is_seen, "{focus:?}");
            Ok(())
        })
        .await
    }

    /// Turns the wheel of the mouse in the middle of the screen, so many pixels down.
    ///
    /// # Errors
    /// Where the browser refuses.
    pub async fn turn_wheel(&mut self, pixels: i32) -> anyhow::Result<()> {
        let turn =
            json!({ "type": "mouseWheel", "x": 400, "y": 400, "deltaX": 0, "deltaY": pixels });
        let method = "Input.dispatchMouseEvent";
        self.tools.ask(method, turn).await.map(drop)
    }

    /// The browser's own counts of the page, such as `Nodes` (after what is of no use has gone) and
    /// `TaskDuration` (seconds).
    ///
    /// # Errors
    /// Where it doesn't say.
    pub async fn counts(&mut self) -> anyhow::Result<BTreeMap<String, f64>> {
        let method = "HeapProfiler.collectGarbage";
        self.tools.ask(method, json!({})).await?;
        let answer = self.tools.ask("Performance.getMetrics", json!({})).await?;
        let counts = answer["metrics"].as_array().context("no counts")?;
        let count = |one: &Value| Some((one["name"].as_str()?.to_owned(), one["value"].as_f64()?));
        Ok(counts.iter().filter_map(count).collect())
    }

    /// What was asked for so far, wherever.
    #[must_use]
    pub fn requests(&self) -> BTreeSet<String> {
        let requests = self.tools.heard("Network.requestWillBeSent");
        let urls = requests.filter_map(|told| told["request"]["url"].as_str());
        urls.map(str::to_owned).collect()
    }

    /// The header `name` of the page's own answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut answers = self.tools.heard("Network.responseReceived");
        let page = answers.find(|told| told["type"] == "Document")?;
        let mut headers = page["response"]["headers"].as_object()?.iter();
        let (_, value) = headers.find(|(one, _)| one.eq_ignore_ascii_case(name))?;
        value.as_str()
    }

    /// What the page's console has of errors and warnings so far.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let is_bad = |kind: &Value| kind == "error" || kind == "warning";
        let thrown = self.tools.heard("Runtime.exceptionThrown");
        let said = self.tools.heard("Runtime.consoleAPICalled");
        let said = said.filter(|told| is_bad(&told["type"]));
        let logged = self.tools.heard("Log.entryAdded");
        let logged = logged.map(|told| &told["entry"]);
        let logged = logged.filter(|entry| is_bad(&entry["level"]));
        thrown
            .chain(said)
            .chain(logged)
            .map(Value::to_string)
            .collect()
    }

    /// Writes what is on the screen into `file`, as a PNG.
    ///
    /// # Errors
    /// Where it can't be had or written.
    pub async fn picture(&mut self, file: &Path) -> anyhow::Result<()> {
        let png = json!({ "format": "png" });
        let mut answer = self.tools.ask("Page.captureScreenshot", png).await?;
        let data: ByteString = serde_json::from_value(answer["data"].take())?;
        std::fs::write(file, data.0).with_context(|| format!("write {}", file.display()))
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it has ended by itself, or doesn't end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.chromium.stop().await
    }
}
