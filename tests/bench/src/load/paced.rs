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

/// Sends `rate` requests per second over `connections` for `time` after a warm-up; returns how long each took from
/// the time at which it should have been sent, microseconds.
///
/// # Errors
/// Where any request fails.
pub fn paced(
    address: SocketAddr,
    connections: u32,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Sample> {
    let gap = Duration::from_secs_f64(f64::from(connections) / rate);
    let threads: Vec<_> = (0..connections)
        .map(|_| thread::spawn(move || one(address, gap, time)))
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        let taken = thread.join().map_err(|_| io::Error::other("it panicked"));
        all.extend(taken.flatten().context("a paced request")?);
    }
    Ok(all.into_iter().collect())
}

/// One connection's requests.
fn one(address: SocketAddr, gap: Duration, time: Duration) -> io::Result<Vec<f64>> {
    set_current_timer_slack(Some(TIMER_SLACK))?;
    let mut connection = Connection::open(address)?;
    let warm = Instant::now() + WARM_UP;
    let mut due = warm - WARM_UP + exponential(gap);
    let mut taken = Vec::new();
    while due < warm + time {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.get()?;
        if due >= warm {
            taken.push(due.elapsed().as_secs_f64() * 1e6);
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
