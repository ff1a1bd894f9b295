//! Ends a bench early.

use anyhow::Context as _;

/// Runs `bench` until it ends or a signal asks this process to; what it had started is dropped with
/// it, and dies.
///
/// # Errors
/// The bench's own, or where it was interrupted.
pub async fn until_interrupted<T>(
    bench: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let stop = lull_process::shutdown::on_signal().context("install signal handlers")?;
    tokio::select! {
        () = stop.cancelled() => anyhow::bail!("interrupted"),
        done = bench => done,
    }
}
