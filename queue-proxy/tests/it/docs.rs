//! The documentation says what the proxy does.

use std::collections::BTreeMap;

use lull_process::docs;
use queue_proxy::Config;

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

#[test]
fn every_variable_is_documented_with_its_default_and_no_other() {
    let documented = include_str!("../../../docs/config.md");
    let required = [
        ("QP_PORTS", "8012=8080/http"),
        ("QP_POD_IP", "10.0.0.7"),
        ("QP_POD_NAME", "shop-1"),
        ("QP_POD_NAMESPACE", "default"),
    ];
    let required: BTreeMap<String, String> = required
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let place = ("queue-proxy", "QP_");
    let differences = docs::config_differences(documented, place, &required, Config::read);
    assert_eq!(differences, [""; 0]);
}
