//! Waiting until the cluster is as it was asked to be, and saying how it went.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use crate::{
    cli::Wait,
    cluster::CallError,
    output::{Outcome, Output},
    progress::Progress,
    style::{Paint, Style},
    words::millis,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What one look has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It is so.
    There,
    /// It is not; how far it has got.
    NotYet(String),
}

/// What a command has done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    /// Kind and name.
    pub(super) workload: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// What has come of it, as the rest of a sentence that begins with the workload.
    pub(super) result: String,
    /// What should be known besides.
    pub(super) notes: Vec<String>,
    /// How long it took to be so, milliseconds; `None` where that was not waited for.
    pub(super) took_ms: Option<u64>,
}

/// Looks until it is so, and shows how far it has got; returns how long it took. A look that the API
/// server doesn't answer is one that has seen nothing yet.
///
/// # Errors
/// Those of a look that would fail again, or that it took longer than `limit`, with what was seen last.
pub(super) async fn until(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Look>,
) -> anyhow::Result<Duration> {
    let mut progress = Progress::start();
    loop {
        let seen = match look().await {
            Ok(Look::There) => return Ok(progress.elapsed()),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) if may_pass(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if progress.elapsed() >= limit {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        progress.say(&format!("waiting for {what}: {seen}"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<CallError>();
    error.is_some_and(CallError::may_pass)
}

/// The same, where the user wants to wait.
///
/// # Errors
/// As [`until`].
pub(super) async fn if_wanted(
    wait: Wait,
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<Look>,
) -> anyhow::Result<Option<Duration>> {
    if wait.no_wait {
        return Ok(None);
    }
    until(what, wait.timeout.0, look).await.map(Some)
}

// === impl Done ===

impl Done {
    /// The answer.
    ///
    /// # Errors
    /// Where it is no JSON.
    pub(super) fn output(&self, style: Style) -> anyhow::Result<Output> {
        Output::new(self, self.text(style), Outcome::Done)
    }

    fn text(&self, style: Style) -> String {
        let result = style.paint(Paint::Good, &self.result);
        let took = self.took_ms.map(|ms| format!(", after {}", millis(ms)));
        let took = took.unwrap_or_default();
        let mut text = format!("{} {result}{took}\n", self.workload);
        for note in &self.notes {
            text.push_str(&format!("{} {note}\n", style.paint(Paint::Warn, "note:")));
        }
        text
    }
}

/// Whole milliseconds of `duration`.
pub(super) fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_first_look_that_is_right() {
        let mut looks = 0;
        let waited = until("a look", Duration::from_secs(60), async || {
            looks += 1;
            Ok(Look::There)
        });
        waited.await.unwrap();
        assert_eq!(looks, 1);
    }

    #[tokio::test]
    async fn a_look_without_an_answer_does_not_end_a_wait_and_one_that_is_refused_does() {
        let answer = |code: u16| CallError::Refused {
            what: "look".to_owned(),
            code,
            message: "no".to_owned(),
        };
        for (code, expected) in [(503, "last seen: look: no"), (403, "look: no")] {
            let waited = until("a pod", Duration::ZERO, async || Err(answer(code).into()));
            let error = waited.await.unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
            assert_eq!(error.contains("waited"), code == 503, "{error}");
        }
    }

    #[tokio::test]
    async fn a_wait_in_vain_says_what_was_seen_last() {
        let waited = until("a pod", Duration::ZERO, async || {
            Ok(Look::NotYet("0 of 1 pods".to_owned()))
        });
        let error = waited.await.unwrap_err();
        assert!(
            error.to_string().ends_with("last seen: 0 of 1 pods"),
            "{error}"
        );
    }

    #[test]
    fn what_was_done_is_one_line_and_its_notes() {
        let done = Done {
            workload: "Deployment shop".to_owned(),
            namespace: "web".to_owned(),
            result: "is awake: 1 pod".to_owned(),
            notes: vec!["it stays".to_owned()],
            took_ms: Some(1312),
        };
        assert_eq!(
            done.text(Style::PLAIN),
            "Deployment shop is awake: 1 pod, after 1.3 s\nnote: it stays\n"
        );
        assert_eq!(serde_json::to_value(&done).unwrap()["tookMs"], 1312);
    }
}
