//! What operators and tracers see through the proxy.

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    app::App,
    harness::{Proxy, body, h2_get, h2c, read_to, soon},
};

/// W3C trace context and baggage, B3 in both forms, Envoy's request id; a header may come twice.
const TRACING: [(&str, &str); 9] = [
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("tracestate", "congo=t61rcWkgMzE"),
    ("tracestate", "rojo=00f067aa0ba902b7"),
    ("baggage", "user=alice;p=1, key=%20v"),
    ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
    ("x-b3-traceid", "80F198EE56343BA864FE8B2A57D3EFF7"),
    ("x-b3-sampled", "0"),
    ("x-request-id", "r-1, not a uuid"),
    ("traceresponse", "00-4bf92f3577b34da6a3ce929d0e0e4736--01"),
];

/// In the order in which they were sent.
fn lines() -> Vec<String> {
    TRACING
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

fn tracing_lines<'a>(text: &'a str) -> Vec<&'a str> {
    let is_tracing = |line: &&'a str| {
        let name = line.split(':').next().unwrap_or_default();
        TRACING.iter().any(|(known, _)| *known == name)
    };
    text.lines().filter(is_tracing).collect()
}

#[tokio::test]
async fn what_belongs_to_tracing_passes_unchanged_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    let proxy = Proxy::before(App::new(), &format!("0={port}/http"), &probes).await;
    let headers = lines().join("\r\n");
    let mut caller = proxy.connect().await;
    let request = format!("GET / HTTP/1.1\r\nhost: shop\r\n{headers}\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    let seen = read_to(&mut app, "\r\n\r\n").await;
    assert_eq!(tracing_lines(&seen), lines());
    let answer = format!("HTTP/1.1 204 No Content\r\n{headers}\r\n\r\n");
    app.write_all(answer.as_bytes()).await.unwrap();
    let seen = read_to(&mut caller, "\r\n\r\n").await;
    assert_eq!(tracing_lines(&seen), lines());
}

#[tokio::test]
async fn what_belongs_to_tracing_passes_unchanged_in_http2() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let mut request = h2_get("/seen");
    let mut headers = HeaderMap::new();
    for (name, value) in TRACING {
        headers.append(name, value.parse().unwrap());
    }
    *request.headers_mut() = headers;
    let seen = body(soon(sender.send_request(request)).await.unwrap()).await;
    assert_eq!(tracing_lines(&seen), lines());
}

#[tokio::test]
async fn the_settings_in_effect_are_shown_for_people() {
    let overrides = [
        ("QP_CONTAINER_CONCURRENCY", "7"),
        ("QP_TIMEOUT", "1m30s"),
        ("QP_IDLE_TIMEOUT", "500ms"),
    ];
    let proxy = Proxy::start(&overrides).await;
    let answer = proxy.admin("/config").await;
    assert!(answer.has("content-type: application/json"), "{answer:?}");
    let config: Value = serde_json::from_str(&answer.body).unwrap();
    let port = config["ports"][0]["app"].clone();
    for (field, expected) in [
        (
            "ports",
            json!([{"listen": 0, "app": port, "protocol": "http"}]),
        ),
        ("podIp", json!("127.0.0.1")),
        ("podName", json!("shop-1")),
        ("containerConcurrency", json!(7)),
        // Not set, and so what follows from others or the default.
        ("queueDepth", json!(70)),
        ("responseStartTimeout", Value::Null),
        ("grace", json!("30s")),
        ("log", json!("info")),
        ("accessLog", json!(false)),
        // As people write them, whatever the form in which they were given.
        ("timeout", json!("90s")),
        ("idleTimeout", json!("500ms")),
    ] {
        assert_eq!(config[field], expected, "{field} in {config}");
    }
}

#[tokio::test]
async fn the_report_names_who_has_called_and_for_what() {
    let proxy = Proxy::start(&[]).await;
    assert!(proxy.report().await.lately.is_empty());
    for _ in 0..3 {
        proxy.get("/seen/7?token=secret").await;
    }
    let mut caller = proxy.connect().await;
    // As the pod's own Envoy does, on one connection for several callers.
    for account in ["checkout", "front"] {
        let cert = format!("By=spiffe://td/ns/web/sa/shop;URI=spiffe://td/ns/prod/sa/{account}");
        let headers = format!("host: shop\r\nx-forwarded-client-cert: {cert}");
        let request = format!("HEAD /seen HTTP/1.1\r\n{headers}\r\n\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        read_to(&mut caller, "\r\n\r\n").await;
    }
    let lately = proxy.report().await.lately;
    let told = lately.callers.iter().map(|told| {
        let (asked, of) = &told.asked[0];
        (told.caller.as_str(), told.requests, asked.as_str(), *of)
    });
    let expected = [
        ("127.0.0.1", 3, "GET /seen/*", 3),
        ("prod/checkout", 1, "HEAD /seen", 1),
        ("prod/front", 1, "HEAD /seen", 1),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(lately.requests, 5);
}
