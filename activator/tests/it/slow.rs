//! What takes longer than a developer waits: `make slow`.

use crate::streams;

const GIB: usize = 1 << 30;
/// What the whole process may have had at most: callers, activator and pods, MiB.
const MEMORY_MIB: u64 = 512;

/// The most memory that this process has had.
fn assert_peak() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
    assert!(peak < MEMORY_MIB << 10, "{peak} KiB");
}

#[tokio::test]
#[ignore = "slow: make slow"]
async fn a_gib_up() {
    streams::upload(GIB).await;
    assert_peak();
}

#[tokio::test]
#[ignore = "slow: make slow"]
async fn a_gib_down() {
    streams::download(GIB).await;
    assert_peak();
}

#[tokio::test]
#[ignore = "slow: make slow"]
async fn a_gib_up_and_down_by_http2() {
    streams::up_and_down_h2(GIB).await;
    assert_peak();
}
