//! What the load generator hey prints of a run, read back. Pure.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

/// A run, as hey tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// From the first request to the last answer, seconds.
    pub total: f64,
    /// The slowest answer, seconds.
    pub slowest: f64,
    /// The mean of all answers, seconds.
    pub average: f64,
    /// Requests a second.
    pub rate: f64,
    /// Seconds that so many percent of the answers did not exceed, the fewest first.
    pub percentiles: Vec<(u32, f64)>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by what became of them.
    pub errors: BTreeMap<String, u64>,
}

/// A part of what hey prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing of interest.
    Other,
    Summary,
    Latencies,
    Statuses,
    Errors,
}

/// Requests that hey sends: each of its connections has the same whole number.
#[must_use]
pub fn sent(requests: u64, connections: u64) -> u64 {
    requests / connections.max(1) * connections
}

// === impl Summary ===

impl Summary {
    /// Reads what hey printed.
    ///
    /// # Errors
    /// Where it isn't hey's summary, or a line of it is not as it should be.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut summary = Self::default();
        let mut part = Part::Other;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match Part::begun_by(line) {
                Some(begun) => part = begun,
                None => {
                    let taken = summary.take(part, line.trim());
                    taken.with_context(|| format!("can't read hey's line {line:?}"))?;
                }
            }
        }
        ensure!(summary.total > 0.0, "no summary of hey: {text:?}");
        Ok(summary)
    }

    /// Answers, whatever their status.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Answers with 200.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or_default()
    }

    /// What did not go well, by status or by what became of it.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let statuses = self.statuses.iter().filter(|(status, _)| **status != 200);
        let statuses = statuses.map(|(status, count)| (status.to_string(), *count));
        let errors = self
            .errors
            .iter()
            .map(|(text, count)| (text.clone(), *count));
        statuses.chain(errors).collect()
    }

    fn take(&mut self, part: Part, line: &str) -> anyhow::Result<()> {
        match part {
            Part::Other => {}
            Part::Summary => self.take_total(line)?,
            Part::Latencies => {
                let (percent, took) = line.split_once(" in ").context("no \" in \"")?;
                let percent = percent.trim_end_matches('%').parse::<u32>()?;
                // Of a few answers there are percentiles that hey leaves empty.
                if percent > 0 {
                    self.percentiles.push((percent, seconds(took)?));
                }
            }
            Part::Statuses => {
                let (status, count) = bracketed(line)?;
                let count = count.split_whitespace().next().unwrap_or_default();
                self.statuses.insert(status.parse()?, count.parse()?);
            }
            Part::Errors => {
                let (count, text) = bracketed(line)?;
                *self.errors.entry(text.to_owned()).or_default() += count.parse::<u64>()?;
            }
        }
        Ok(())
    }

    fn take_total(&mut self, line: &str) -> anyhow::Result<()> {
        let (name, value) = line.split_once(':').context("no \":\"")?;
        match name {
            "Total" => self.total = seconds(value)?,
            "Slowest" => self.slowest = seconds(value)?,
            "Average" => self.average = seconds(value)?,
            "Requests/sec" => self.rate = value.trim().parse()?,
            _ => {}
        }
        Ok(())
    }
}

// === impl Part ===

impl Part {
    /// What begins with `line`, if anything: the only lines that are not indented.
    fn begun_by(line: &str) -> Option<Self> {
        if line.starts_with(char::is_whitespace) {
            return None;
        }
        Some(match line.trim_end() {
            "Summary:" => Self::Summary,
            "Latency distribution:" => Self::Latencies,
            "Status code distribution:" => Self::Statuses,
            "Error distribution:" => Self::Errors,
            _ => Self::Other,
        })
    }
}

/// `0.0123 secs`.
fn seconds(text: &str) -> anyhow::Result<f64> {
    let number = text.trim().strip_suffix("secs").context("no \"secs\"")?;
    Ok(number.trim().parse()?)
}

/// `[a] b`.
fn bracketed(line: &str) -> anyhow::Result<(&str, &str)> {
    let inner = line.strip_prefix('[').context("no \"[\"")?;
    let (inside, behind) = inner.split_once(']').context("no \"]\"")?;
    Ok((inside.trim(), behind.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1.5 prints it, two percent signs included.
    const GOOD: &str = "
Summary:
  Total:\t512.2041 secs
  Slowest:\t3.9120 secs
  Fastest:\t0.0012 secs
  Average:\t0.1531 secs
  Requests/sec:\t1952.1514
  
  Total data:\t124987500 bytes
  Size/request:\t125 bytes

Response time histogram:
  0.001 [1]\t|
  0.392 [999500]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  3.912 [3]\t|


Latency distribution:
  10%% in 0.0801 secs
  50%% in 0.1442 secs
  99%% in 0.3527 secs

Details (average, fastest, slowest):
  DNS+dialup:\t0.0001 secs, 0.0000 secs, 0.1211 secs
  resp wait:\t0.1529 secs, 0.0012 secs, 3.9118 secs

Status code distribution:
  [200]\t999900 responses



";

    #[test]
    fn a_run_without_failures_is_read() {
        let summary = Summary::parse(GOOD).unwrap();
        let expected = Summary {
            total: 512.2041,
            slowest: 3.912,
            average: 0.1531,
            rate: 1952.1514,
            percentiles: vec![(10, 0.0801), (50, 0.1442), (99, 0.3527)],
            statuses: BTreeMap::from([(200, 999_900)]),
            errors: BTreeMap::new(),
        };
        assert_eq!(summary, expected);
        assert_eq!((summary.answered(), summary.ok()), (999_900, 999_900));
        assert!(summary.failures().is_empty());
    }

    #[test]
    fn what_failed_is_read_by_status_and_by_what_became_of_it() {
        let failed = "Summary:
  Total:\t1.5000 secs
  Average:\tNaN secs

Latency distribution:
  50% in 0.1000 secs
  0% in 0.0000 secs

Status code distribution:
  [200]\t7 responses
  [503]\t2 responses

Error distribution:
  [3]\tGet \"http://10.96.0.7:8080/\": context deadline exceeded [sic]
";
        let summary = Summary::parse(failed).unwrap();
        assert_eq!(summary.percentiles, [(50, 0.1)]);
        assert_eq!((summary.answered(), summary.ok()), (9, 7));
        let text = "Get \"http://10.96.0.7:8080/\": context deadline exceeded [sic]";
        let expected = [("503", 2), (text, 3)].map(|(what, count)| (what.to_owned(), count));
        assert_eq!(summary.failures(), BTreeMap::from(expected));
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        for text in [
            "",
            "-n cannot be less than -c.\n",
            "Summary:\n  Total:\tsoon\n",
            "Summary:\n  Total:\t1.0 secs\n\nStatus code distribution:\n  200 5\n",
        ] {
            assert!(Summary::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_connection_sends_the_same_whole_number() {
        assert_eq!(sent(1_000_000, 300), 999_900);
        assert_eq!(sent(1_000, 10), 1_000);
        assert_eq!(sent(5, 0), 0);
    }
}
