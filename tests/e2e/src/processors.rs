//! What this machine's processors had to do.

use std::fs;

use anyhow::Context as _;

/// Clock ticks a second, as Linux tells times in /proc (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Time of all processors and of this process since they began, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    busy: u64,
    all: u64,
    own: u64,
}

// === impl Processors ===

impl Processors {
    /// As it is now.
    ///
    /// # Errors
    /// Where the kernel doesn't tell.
    pub fn read() -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let (machine, own) = (read("/proc/stat")?, read("/proc/self/stat")?);
        Self::parse(&machine, &own).context("/proc is not as Linux has it")
    }

    fn parse(machine: &str, own: &str) -> Option<Self> {
        let ticks = |text: &str| text.parse::<u64>().ok();
        let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user.
        let times: Option<Vec<u64>> = line.split_whitespace().take(8).map(ticks).collect();
        let times = times?;
        let all: u64 = times.iter().sum();
        let idle = times.get(3)? + times.get(4)?;
        // The process' name may have anything in it.
        let (_, own) = own.rsplit_once(')')?;
        let own = own.split_whitespace().skip(11).take(2);
        let own: Option<Vec<u64>> = own.map(ticks).collect();
        Some(Self {
            busy: all.saturating_sub(idle),
            all,
            own: own?.iter().sum(),
        })
    }

    /// Which percentage of the time `before` until now was not idle.
    #[must_use]
    pub fn busy_since(&self, before: &Self) -> f64 {
        let (busy, all) = (self.busy - before.busy, self.all - before.all);
        100.0 * busy as f64 / all as f64
    }

    /// What this process took since `before`, seconds.
    #[must_use]
    pub fn own_since(&self, before: &Self) -> f64 {
        (self.own - before.own) as f64 / TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_waits_for_disks_are_not_busy() {
        let stat = |busy: u64| format!("cpu  {busy} 0 0 50 50 0 0 0 7 0\ncpu0 1 2 3 4 5 6 7 8\n");
        let own = |ticks: u64| format!("7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 {ticks} 20 0 0 20 0");
        let read = |busy, ticks| Processors::parse(&stat(busy), &own(ticks)).unwrap();
        let before = read(0, 10);
        assert_eq!((before.busy, before.all, before.own), (0, 100, 30));
        let after = Processors {
            all: 400,
            ..read(100, 110)
        };
        let rounded = after.busy_since(&before).round();
        assert_eq!((rounded, after.own_since(&before)), (33.0, 1.0));
        assert!(Processors::parse("", &own(1)).is_none());
        assert!(Processors::parse(&stat(1), "7 (a").is_none());
    }

    #[test]
    fn this_machine_tells() {
        let now = Processors::read().unwrap();
        assert!(now.all >= now.busy && now.all > 0, "{now:?}");
    }
}
