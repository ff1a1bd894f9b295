//! Who has called the pods of a workload lately, as they tell it. No decision follows from it.

use std::time::Duration;

use lull_contract::report::{CallerRequests, Lately, QueueProxyReport};

use super::Demand;

/// Callers of a workload that are added up, the busiest ones.
const MAX_ADDED: usize = 32;
/// What pods have told is added up where the last call is no more apart than this, or a stable window.
const REACH: Duration = Duration::from_secs(120);

/// What a pod has told last.
#[derive(Debug)]
pub(super) struct Told {
    /// When somebody called last.
    last: Duration,
    lately: Lately,
}

// === impl Demand ===

impl Demand {
    /// Takes what the report of a pod that arrived at `at` tells of its callers.
    pub(super) fn note_called(&mut self, pod: &str, report: &QueueProxyReport, at: Duration) {
        let told = &report.lately;
        let ago = report.now_us.saturating_sub(told.last_us);
        let last = at.saturating_sub(Duration::from_micros(ago));
        match self.called.get_mut(pod) {
            Some(known) => known.renew(told, last),
            None if told.is_empty() => {}
            None => {
                let lately = told.clone();
                self.called.insert(pod.into(), Told { last, lately });
            }
        }
    }

    /// When somebody called last, and who has lately, the busiest first; `None` where no pod knows of
    /// anybody. A pod that nobody has called for long tells of other times than the one that is called.
    #[must_use]
    pub fn called(&self) -> Option<(Duration, Lately)> {
        let told = || self.called.values().filter(|told| !told.lately.is_empty());
        let last = told().map(|told| told.last).max()?;
        let reach = self.lengths.0.max(REACH);
        let mut sum = Lately::default();
        for told in told().filter(|told| last.saturating_sub(told.last) <= reach) {
            sum.add(&told.lately);
            // Of hundreds of pods each may have callers of its own.
            if sum.callers.len() > 4 * MAX_ADDED {
                sum.keep(2 * MAX_ADDED);
            }
        }
        sum.keep(MAX_ADDED);
        Some((last, sum))
    }
}

// === impl Told ===

impl Told {
    /// Takes over what is told now; in the place of what was told before, which mostly was the same with
    /// other numbers.
    fn renew(&mut self, now: &Lately, last: Duration) {
        self.last = last;
        self.lately.last_us = now.last_us;
        self.lately.requests = now.requests;
        let known = &mut self.lately.callers;
        known.truncate(now.callers.len());
        let (there, new) = now.callers.split_at(known.len());
        for (known, now) in known.iter_mut().zip(there) {
            renew(known, now);
        }
        known.extend_from_slice(new);
    }
}

fn renew(known: &mut CallerRequests, now: &CallerRequests) {
    known.caller.clone_from(&now.caller);
    known.requests = now.requests;
    known.asked.truncate(now.asked.len());
    let (there, new) = now.asked.split_at(known.asked.len());
    for ((class, requests), (now, of)) in known.asked.iter_mut().zip(there) {
        class.clone_from(now);
        *requests = *of;
    }
    known.asked.extend_from_slice(new);
}

#[cfg(test)]
mod tests {
    use lull_contract::{
        Settings,
        report::{Load, VERSION},
    };

    use super::*;
    use crate::demand::Reporter;

    const SECOND: u64 = 1_000_000;

    /// Of a pod that has run for so many seconds; somebody called it last a second ago.
    fn report(now: u64, callers: &[(&str, u64)]) -> QueueProxyReport {
        let told = callers.iter().map(|(caller, requests)| CallerRequests {
            caller: (*caller).to_owned(),
            requests: *requests,
            asked: vec![("GET /".to_owned(), *requests)],
        });
        QueueProxyReport {
            v: VERSION,
            pod: "p".into(),
            boot: 1,
            now_us: now * SECOND,
            load: Load::default(),
            queued: 0,
            limit: 0,
            app_ready: true,
            draining: false,
            bypass: 0,
            lately: Lately {
                last_us: (now - 1) * SECOND,
                requests: callers.iter().map(|(_, requests)| requests).sum(),
                callers: told.collect(),
            },
            loopback_only: Vec::new(),
        }
    }

    /// When it was called last, in seconds, and by whom.
    fn called(demand: &Demand) -> Option<(u64, Vec<(String, u64)>)> {
        let (last, lately) = demand.called()?;
        let callers = lately.callers.into_iter();
        let callers = callers.map(|told| (told.caller, told.requests));
        Some((last.as_secs(), callers.collect()))
    }

    fn owned(callers: &[(&str, u64)]) -> Vec<(String, u64)> {
        let callers = callers.iter();
        callers
            .map(|(caller, requests)| ((*caller).to_owned(), *requests))
            .collect()
    }

    #[test]
    fn what_all_pods_tell_is_added_up_and_what_they_told_before_is_not() {
        let (mut demand, at) = (Demand::new(&Settings::default()), Duration::from_secs);
        assert_eq!(called(&demand), None);
        demand.pod_reported(
            "p",
            &report(5, &[("10.0.0.1", 9), ("10.0.0.2", 1)]),
            at(100),
        );
        demand.pod_reported("q", &report(5, &[("10.0.0.2", 3)]), at(101));
        let both = owned(&[("10.0.0.1", 9), ("10.0.0.2", 4)]);
        assert_eq!(called(&demand), Some((100, both)));
        let now = [("web/shop", 2), ("10.0.0.2", 2), ("10.0.0.3", 1)];
        demand.pod_reported("p", &report(6, &now), at(101));
        let both = owned(&[("10.0.0.2", 5), ("web/shop", 2), ("10.0.0.3", 1)]);
        assert_eq!(called(&demand), Some((100, both)));
        demand.pod_reported("p", &report(7, &[]), at(102));
        assert_eq!(called(&demand), Some((100, owned(&[("10.0.0.2", 3)]))));
    }

    #[test]
    fn a_pod_that_was_called_long_ago_or_is_gone_tells_nothing_of_now() {
        let (mut demand, at) = (Demand::new(&Settings::default()), Duration::from_secs);
        demand.pod_reported("p", &report(5, &[("10.0.0.1", 9)]), at(100));
        demand.pod_reported("q", &report(5, &[("10.0.0.2", 1)]), at(100 + 3_600));
        assert_eq!(called(&demand), Some((3_699, owned(&[("10.0.0.2", 1)]))));
        let p = Reporter {
            name: "p",
            ready: true,
        };
        demand.keep_only(&[p].into_iter(), &std::iter::empty());
        assert_eq!(called(&demand), Some((99, owned(&[("10.0.0.1", 9)]))));
        demand.begin(at(4_000));
        assert_eq!(called(&demand), None, "another replica has led since");
    }

    #[test]
    fn of_many_pods_the_busiest_callers_are_added_up() {
        let mut demand = Demand::new(&Settings::default());
        for pod in 0..100 {
            let callers = (0..8).map(|of| (format!("10.1.{pod}.{of}"), 1));
            let callers: Vec<(String, u64)> = callers.collect();
            let mut told: Vec<(&str, u64)> = vec![("10.0.0.1", 2)];
            told.extend(callers.iter().map(|(caller, of)| (caller.as_str(), *of)));
            let at = Duration::from_secs(100);
            demand.pod_reported(&format!("p-{pod}"), &report(5, &told), at);
        }
        let (_, lately) = demand.called().unwrap();
        assert_eq!(lately.callers.len(), MAX_ADDED);
        assert_eq!((lately.requests, lately.callers[0].requests), (1_000, 200));
    }
}
