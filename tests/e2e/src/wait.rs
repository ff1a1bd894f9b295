//! Waiting for a condition, with a cap and an error that says what was last seen.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time of one look: the Kubernetes client itself has no limit.
const LOOK: Duration = Duration::from_secs(15);

/// Looks every 100 ms until `check` succeeds; its errors say what is still missing.
///
/// # Errors
/// After `cap`: `what` was waited for, and what the last look saw.
pub async fn eventually<T>(
    what: &str,
    cap: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let look = timeout(LOOK, check()).await;
        let missing = match look.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {LOOK:?}"))) {
            Ok(value) => return Ok(value),
            Err(missing) => missing,
        };
        if started.elapsed() >= cap {
            return Err(missing).with_context(|| format!("waited {cap:?} for {what}; last seen"));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_says_what_was_waited_for_and_last_seen() {
        let mut looks = 0;
        let never = eventually("five pods", Duration::from_millis(1), async || {
            looks += 1;
            anyhow::ensure!(false, "{looks} pods");
            Ok(())
        });
        let text = format!("{:#}", never.await.unwrap_err());
        assert!(
            text.contains("for five pods; last seen: ") && text.ends_with("pods"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn it_ends_with_the_first_success() {
        let mut looks = 0;
        let value = eventually("a third look", Duration::from_secs(5), async || {
            looks += 1;
            anyhow::ensure!(looks == 3, "look {looks}");
            Ok(looks)
        });
        assert_eq!(value.await.unwrap(), 3);
    }
}
