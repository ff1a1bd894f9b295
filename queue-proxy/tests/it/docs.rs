//! The documentation says what the proxy does.

use lull_process::docs;

use crate::harness::Proxy;

#[tokio::test]
async fn every_metric_is_documented_and_no_other() {
    let proxy = Proxy::start(&[]).await;
    let documented = include_str!("../../../docs/metrics.md");
    let exposed = proxy.metrics().await;
    let differences = docs::metric_differences(documented, "queue-proxy", &exposed);
    assert_eq!(differences, [""; 0]);
}

#[tokio::test]
async fn every_reason_is_documented_with_its_source() {
    let proxy = Proxy::start(&[]).await;
    let documented = include_str!("../../../docs/metrics.md");
    let mut expected: Vec<String> = docs::table(documented, "Reasons of the queue-proxy")
        .iter()
        .map(|row| {
            (
                docs::quoted(&row["reason"])[0],
                docs::quoted(&row["source"])[0],
            )
        })
        .map(|(reason, source)| format!(r#"{{reason="{reason}",source="{source}"}} 0"#))
        .collect();
    let metrics = proxy.metrics().await;
    let mut exposed: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("lull_queue_proxy_rejected_total"))
        .collect();
    expected.sort_unstable();
    exposed.sort_unstable();
    assert_eq!(exposed, expected);
}
