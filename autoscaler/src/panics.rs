//! A task that panics begins anew, so that a fault in one evaluation does not end a workload's care.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use lull_process::backoff::doubled;
use tokio::time::{Instant, sleep};

/// Before a task begins anew after its first panic, and twice as long after each that follows: what
/// it has panicked on may still be there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses. Who has gone on for so long has got over it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Awaits what `begin` makes until it ends without a panic. After each panic `tell` gets its text and
/// the pause that follows, then `begin` is asked again.
///
/// # Cancel safety
/// As that of what `begin` makes.
pub(crate) async fn begun_anew<F>(
    mut begin: impl FnMut() -> F,
    mut tell: impl FnMut(&str, Duration),
) where
    F: Future<Output = ()>,
{
    let mut panics = 0;
    loop {
        let begun = Instant::now();
        // What it has panicked in goes with it.
        let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await else {
            return;
        };
        if begun.elapsed() >= LONGEST_PAUSE {
            panics = 0;
        }
        let pause = pause_after(panics);
        panics += 1;
        tell(text_of(&*panic), pause);
        drop(panic);
        sleep(pause).await;
    }
}

/// Before a task begins anew that has panicked so many times before.
fn pause_after(panics: u32) -> Duration {
    doubled(FIRST_PAUSE, panics, LONGEST_PAUSE)
}

/// What `panic!` was called with, which is text in all but odd cases.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Panics as often as `left` says.
    async fn panic_while(left: &Cell<u32>) {
        let now = left.get();
        if now > 0 {
            left.set(now - 1);
            panic!("{now} left");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_begins_anew_after_each_panic_and_ends_when_it_returns() {
        let (left, begin) = (Cell::new(3), Instant::now());
        let mut told = Vec::new();
        begun_anew(
            || panic_while(&left),
            |text, pause| told.push((text.to_owned(), pause.as_secs())),
        )
        .await;
        let expected = [("3 left", 1), ("2 left", 2), ("1 left", 4)];
        let expected = expected.map(|(text, pause)| (text.to_owned(), pause));
        assert_eq!(told, expected);
        assert_eq!(begin.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_went_on_for_long_is_not_kept_waiting_for_old_panics() {
        let left = &Cell::new(3);
        let mut pauses = Vec::new();
        let begin = || async move {
            if left.get() == 1 {
                sleep(LONGEST_PAUSE).await;
            }
            panic_while(left).await;
        };
        begun_anew(begin, |_, pause| pauses.push(pause.as_secs())).await;
        assert_eq!(pauses, [1, 2, 1]);
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 5, 6, u32::MAX]
            .map(|panics| pause_after(panics).as_secs())
            .into();
        assert_eq!(pauses, [1, 2, 32, 60, 60]);
    }

    #[test]
    fn a_panic_is_told_by_its_text() {
        let text: Box<dyn Any + Send> = Box::new("fixed");
        assert_eq!(text_of(&*text), "fixed");
        let text: Box<dyn Any + Send> = Box::new("made of 2 parts".to_owned());
        assert_eq!(text_of(&*text), "made of 2 parts");
        let other: Box<dyn Any + Send> = Box::new(7);
        assert_eq!(text_of(&*other), "no text");
    }
}
