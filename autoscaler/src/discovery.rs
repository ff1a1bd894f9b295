//! Looking for a kind that the cluster may not have yet: its CRD may come later.

use std::{future::Future, time::Duration};

use lull_process::readiness::Pending;

/// Between two questions where the API server gave no answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the API server says of a kind.
#[derive(Debug)]
pub(crate) enum Said<T> {
    /// It is there.
    There(T),
    /// It is not there yet; what is then told, once, where somebody expects it.
    Missing(Option<String>),
    /// Why the API server could not say.
    Nothing(String),
}

/// How a kind is looked for.
#[derive(Debug)]
pub(crate) struct Search {
    /// Between two questions for a kind that is not there.
    every: Duration,
    /// Between two questions without an answer.
    again: Duration,
    /// Whether readiness waits for an answer, however long there is none.
    is_vital: bool,
}

// === impl Search ===

impl Search {
    pub(crate) fn new(every: Duration, is_vital: bool) -> Self {
        Self {
            every,
            again: ASK_AGAIN,
            is_vital,
        }
    }

    /// Asks until the kind is there. Nobody waits for one that isn't: `pending` comes back unless it
    /// was let go before.
    pub(crate) async fn run<T, A>(
        &self,
        pending: Pending,
        ask: impl Fn() -> A,
    ) -> (T, Option<Pending>)
    where
        A: Future<Output = Said<T>>,
    {
        let (mut pending, mut is_told) = (Some(pending), false);
        loop {
            let pause = match ask().await {
                Said::There(kind) => return (kind, pending),
                Said::Missing(text) => {
                    drop(pending.take());
                    if let Some(text) = text.filter(|_| !is_told) {
                        is_told = true;
                        tracing::warn!("{text}: left alone until it is there");
                    }
                    self.every
                }
                Said::Nothing(error) => {
                    tracing::warn!(error, "can't tell whether a kind is there: asked again");
                    if !self.is_vital {
                        drop(pending.take());
                    }
                    self.again
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::ready};

    use lull_process::readiness::Readiness;
    use parking_lot::Mutex;

    use super::*;

    /// Whether readiness waited at each question, and whether it does at the end.
    async fn waits(is_vital: bool, answers: Vec<Said<()>>) -> (Vec<bool>, bool) {
        let (readiness, answers) = (Readiness::default(), Mutex::new(VecDeque::from(answers)));
        let search = Search {
            every: Duration::ZERO,
            again: Duration::ZERO,
            is_vital,
        };
        let waited = Mutex::new(Vec::new());
        let ask = || {
            waited.lock().push(!readiness.missing().is_empty());
            ready(answers.lock().pop_front().expect("one more answer"))
        };
        let ((), pending) = search.run(readiness.expect("kind"), ask).await;
        (waited.into_inner(), pending.is_some())
    }

    #[tokio::test]
    async fn nobody_waits_for_a_missing_kind_and_only_a_vital_one_is_waited_for_without_an_answer()
    {
        let silent = || Said::Nothing("no answer".to_owned());
        let missing = || Said::Missing(Some("no such kind".to_owned()));
        let rows = [
            (true, vec![Said::There(())], (vec![true], true)),
            (
                true,
                vec![silent(), silent(), Said::There(())],
                (vec![true, true, true], true),
            ),
            (
                true,
                vec![silent(), missing(), Said::There(())],
                (vec![true, true, false], false),
            ),
            (
                false,
                vec![silent(), missing(), missing(), Said::There(())],
                (vec![true, false, false, false], false),
            ),
        ];
        for (is_vital, answers, expected) in rows {
            let row = format!("{is_vital} {answers:?}");
            assert_eq!(waits(is_vital, answers).await, expected, "{row}");
        }
    }
}
