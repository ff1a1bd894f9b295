//! Activators that are ready and not heard, by name.
//!
//! One of them is enough to keep every workload from falling asleep, since what it holds is unknown. No
//! workload's reason says which one it is, so it is told here: in the log, by a metric and on the status
//! page, from which `kubectl lull doctor` has it.

use std::{collections::BTreeMap, time::Duration};

use crate::context::Context;

/// So long a ready activator is silent before it is named. Decisions take it for silent much sooner; a
/// report that is late for once is no reason to look at it.
const NAMED_AFTER: Duration = Duration::from_secs(10);

/// Since when which activators have been silent. All times are on the process's clock.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// When each ready activator was heard last, else when it was first seen; by name of its pod.
    since: BTreeMap<String, Duration>,
    /// Those that are named now.
    named: Vec<String>,
}

// === impl Silence ===

impl Silence {
    /// Tells which of `ctx`'s activators are silent at `now`.
    pub(crate) fn look(&mut self, ctx: &Context, now: Duration) {
        let activators = ctx.stores.activators.all();
        let ready = activators.iter().filter(|pod| pod.is_ready);
        let heard = ready.map(|pod| {
            let hearing = ctx.hearing(&pod.name);
            (pod.name.as_str(), hearing.map(|hearing| hearing.at))
        });
        let silent = self.see(heard, now);
        if silent == self.named {
            return;
        }
        for activator in silent.iter().filter(|name| !self.named.contains(name)) {
            tracing::warn!(
                activator,
                "an activator is ready and not heard: no workload falls asleep"
            );
        }
        for activator in self.named.iter().filter(|name| !silent.contains(name)) {
            tracing::info!(activator, "an activator is heard again, or gone");
        }
        ctx.set_silent_activators(silent.clone());
        self.named = silent;
    }

    /// Takes note of the `ready` activators, each with when it was heard last; names of those that have
    /// been silent for long at `now`, sorted.
    fn see<'a>(
        &mut self,
        ready: impl Iterator<Item = (&'a str, Option<Duration>)>,
        now: Duration,
    ) -> Vec<String> {
        let known = std::mem::take(&mut self.since);
        self.since = ready
            .map(|(name, heard)| {
                let since = heard.or_else(|| known.get(name).copied());
                (name.to_owned(), since.unwrap_or(now))
            })
            .collect();
        let silent = self.since.iter();
        silent
            .filter(|(_, since)| now.saturating_sub(**since) >= NAMED_AFTER)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_activator_is_named_when_it_has_been_ready_and_silent_for_a_while() {
        let mut silence = Silence::default();
        // `a` is heard until second 5, `b` always, `c` never, and `d` only comes in second 8.
        for second in 0..30_u32 {
            let now = SECOND * second;
            let mut ready = vec![
                ("a", Some(SECOND * second.min(5))),
                ("b", Some(now)),
                ("c", None),
            ];
            if second >= 8 {
                ready.push(("d", None));
            }
            let silent = silence.see(ready.into_iter(), now);
            let expected: &[&str] = match second {
                0..10 => &[],
                10..15 => &["c"],
                15..18 => &["a", "c"],
                _ => &["a", "c", "d"],
            };
            assert_eq!(silent, expected, "second {second}");
        }
    }

    #[test]
    fn one_that_is_heard_again_or_gone_is_not_named_and_begins_anew() {
        let mut silence = Silence::default();
        let mut names = |ready: &[(&str, Option<Duration>)], second: u32| {
            silence.see(ready.iter().copied(), SECOND * second)
        };
        let never = [("a", None)];
        assert_eq!(names(&never, 0), [""; 0]);
        assert_eq!(names(&never, 10), ["a"]);
        assert_eq!(names(&[("a", Some(SECOND * 11))], 11), [""; 0]);
        assert_eq!(names(&[], 12), [""; 0], "it is not ready, or not there");
        assert_eq!(names(&never, 13), [""; 0]);
        assert_eq!(names(&never, 22), [""; 0]);
        assert_eq!(names(&never, 23), ["a"]);
    }
}
