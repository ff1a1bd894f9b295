//! What is being waited for, on standard error, once it takes longer than a second.

use std::{
    io::{IsTerminal, Write, stderr},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::words::span;

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// One wait. On a terminal it is one line that changes and goes; elsewhere a line for each news.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    shown: Option<String>,
    is_terminal: bool,
}

/// `future`, while which `what` is shown.
pub(crate) async fn during<T>(what: &str, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut progress = Progress::start();
    let mut tick = interval_at(progress.started + PATIENCE, PATIENCE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What is done already is not shown as waited for.
            biased;
            value = &mut future => return value,
            _ = tick.tick() => progress.say(what),
        }
    }
}

/// `line` in the place of what is on a terminal's line. What doesn't fit is cut by the terminal: on a line of
/// its own it would stay there when the next one comes, and so would what stands behind a line's end.
fn redrawn(line: &str) -> String {
    let line = line.replace(char::is_control, " ");
    format!("\r\u{1b}[K\u{1b}[?7l{line}\u{1b}[?7h")
}

// === impl Progress ===

impl Progress {
    /// A wait that begins now.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            shown: None,
            is_terminal: stderr().is_terminal(),
        }
    }

    /// How long it has been.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows what is waited for.
    pub(crate) fn say(&mut self, what: &str) {
        let elapsed = self.elapsed();
        let is_news = self.shown.as_deref() != Some(what);
        if elapsed < PATIENCE || !(self.is_terminal || is_news) {
            return;
        }
        let elapsed = span(elapsed);
        // Progress that can't be shown is no reason to stop.
        let _ = if self.is_terminal {
            // The time stands first: the end may be cut.
            let line = redrawn(&format!("({elapsed}) {what}"));
            write!(stderr(), "{line}").and_then(|()| stderr().flush())
        } else {
            writeln!(stderr(), "{what} ({elapsed})")
        };
        self.shown = Some(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_takes_one_line_of_a_terminal_however_long_it_is() {
        let text = redrawn("look:\n403: \u{1b}[31mno");
        let (start, end) = ("\r\u{1b}[K\u{1b}[?7l", "\u{1b}[?7h");
        let line = text
            .strip_prefix(start)
            .and_then(|text| text.strip_suffix(end));
        assert_eq!(line, Some("look: 403:  [31mno"), "{text:?}");
    }
}
