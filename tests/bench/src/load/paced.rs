//! HTTP/1.1 at a rate that does not depend on the answers.
//!
//! wrk and h2load send when an answer has come, or in bursts of 10 ms. Here each connection has a
//! thread that sends at times drawn beforehand (exponential gaps: many callers that don't know of
//! each other); a request that has to wait for the one before it counts from its own time.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU64,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::thread::set_current_timer_slack;

use super::Connection;
use crate::Sample;

/// Shortest timer slack that Linux takes: nanoseconds. The default, 50 us, is as long as a request.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;

/// Not counted: connections are made, pools fill.
const WARM_UP: Duration = Duration::from_secs(1);

/// Parts of the time that are also looked at alone.
const SLICE: Duration = Duration::from_millis(100);

/// How long requests took from the time at which they should have been sent, microseconds.
#[derive(Debug, Clone, Default)]
pub struct Paced {
    /// All of them.
    pub all: Sample,
    /// Those of each tenth of a second.
    pub slices: Vec<Sample>,
}

/// Sends `rate` requests per second over `connections` for `time` after a warm-up.
///
/// # Errors
/// Where any request fails.
pub fn paced(
    address: SocketAddr,
    connections: u32,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Paced> {
    let gap = Duration::from_secs_f64(f64::from(connections) / rate);
    let warm = Instant::now() + WARM_UP;
    let threads: Vec<_> = (0..connections)
        .map(|_| thread::spawn(move || one(address, gap, warm, time)))
        .collect();
    let mut paced = Paced::default();
    for thread in threads {
        let taken = thread.join().map_err(|_| io::Error::other("it panicked"));
        for (slice, taken) in taken.flatten().context("a paced request")? {
            if paced.slices.len() <= slice {
                paced.slices.resize_with(slice + 1, Sample::default);
            }
            paced.slices[slice].push(taken);
            paced.all.push(taken);
        }
    }
    Ok(paced)
}

// === impl Paced ===

impl Paced {
    /// What one in a hundred exceeds in the middle slice. A machine that stops for a millisecond
    /// now and then, as virtual ones do, hides in `all` what the proxy does; here it does not,
    /// nor does what the proxy does less often.
    #[must_use]
    pub fn calm_p99(&self) -> f64 {
        let each = self.slices.iter().map(|slice| slice.quantile(0.99));
        each.collect::<Sample>().median()
    }
}

/// One connection's requests: the slice in which each was due, and how long it took.
fn one(
    address: SocketAddr,
    gap: Duration,
    warm: Instant,
    time: Duration,
) -> io::Result<Vec<(usize, f64)>> {
    set_current_timer_slack(Some(TIMER_SLACK))?;
    let mut connection = Connection::open(address)?;
    let mut due = Instant::now() + exponential(gap);
    let mut taken = Vec::new();
    while due < warm + time {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.get()?;
        if let Some(since) = due.checked_duration_since(warm) {
            let slice = usize::try_from(since.as_millis() / SLICE.as_millis());
            let slice = slice.map_err(io::Error::other)?;
            taken.push((slice, due.elapsed().as_secs_f64() * 1e6));
        }
        due += exponential(gap);
    }
    Ok(taken)
}

/// A random gap of this mean.
fn exponential(mean: Duration) -> Duration {
    // 1 - [0, 1) is never 0, whose logarithm is infinite.
    mean.mul_f64(-(1.0 - rand::random::<f64>()).ln())
}
