//! TLS is passed as bytes: the app ends it, with its own certificate and the caller's.

use std::fs;

use crate::{
    apps::{Nginx, certificate},
    client::curl,
    process::{self, Process, TempDir},
    proxy::Proxy,
};

/// nginx with a certificate for `shop`, which also asks callers for theirs.
async fn nginx(locations: &str) -> Nginx {
    let directory = TempDir::new();
    let (key, certificate) = certificate(directory.path()).await;
    let tls = format!(
        "ssl_certificate {certificate}; ssl_certificate_key {key}; \
         ssl_verify_client optional_no_ca; {locations}"
    );
    Nginx::in_directory(directory, "ssl http2", &tls).await
}

/// Arguments by which curl calls `https://shop/` at the proxy and believes the app only.
fn https(proxy: &Proxy, nginx: &Nginx) -> [String; 5] {
    let port = proxy.traffic().port();
    let certificate = nginx.directory.path().join("app.crt");
    [
        "--cacert".to_owned(),
        certificate.to_str().unwrap().to_owned(),
        "--resolve".to_owned(),
        format!("shop:{port}:127.0.0.1"),
        format!("https://shop:{port}/"),
    ]
}

#[tokio::test]
async fn curl_sees_the_apps_certificate_and_the_app_sees_curls() {
    let dn = r#"location / { return 200 "$server_protocol $ssl_client_s_dn\n"; }"#;
    let nginx = nginx(dn).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let call = https(&proxy, &nginx);
    let call: Vec<&str> = call.iter().map(String::as_str).collect();
    let path = nginx.directory.path();
    let own = TempDir::new();
    let (key, certificate) = certificate(own.path()).await;
    for (version, seen) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        assert_eq!(
            curl(&[&[version], &call[..]].concat()).await.ok(),
            format!("{seen} \n")
        );
        let identity = ["--cert", &certificate, "--key", &key];
        let with = curl(&[&[version], &identity[..], &call].concat()).await;
        assert_eq!(with.ok(), format!("{seen} CN=shop\n"));
    }
    assert!(path.join("app.key").exists());
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"connections_total{kind="tls"} 4"#),
        "{metrics}"
    );
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn a_large_file_comes_through_tls_whole() {
    let nginx = nginx("location / { }").await;
    let text: String = (0..1_000_000).map(|number| format!("{number}\n")).collect();
    fs::write(nginx.directory.path().join("index.html"), &text).unwrap();
    let proxy = Proxy::start(nginx.address, &[]).await;
    let call = https(&proxy, &nginx);
    let call: Vec<&str> = call.iter().map(String::as_str).collect();
    assert!(curl(&call).await.ok() == text, "curl got something else");
}

#[tokio::test]
async fn h2load_speaks_http2_within_tls() {
    let nginx = nginx("location / { return 200 ok; }").await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = format!("https://{}/", proxy.traffic());
    let printed = process::run("h2load", &["-n", "1000", "-c", "4", "-m", "8", &url]).await;
    assert!(printed.contains("Application protocol: h2\n"), "{printed}");
    assert!(
        printed.contains("1000 succeeded, 0 failed, 0 errored"),
        "{printed}"
    );
}

#[tokio::test]
async fn openssl_speaks_an_older_tls_to_openssl() {
    let directory = TempDir::new();
    let (key, certificate) = certificate(directory.path()).await;
    let mut server = process::command("openssl");
    server.args([
        "s_server",
        "-quiet",
        "-www",
        "-accept",
        "127.0.0.1:0",
        "-tls1_2",
    ]);
    server.args(["-key", &key, "-cert", &certificate]);
    let mut server = Process::spawn(&mut server);
    let port = server.listens(1).await[0];
    let proxy = Proxy::start(([127, 0, 0, 1], port).into(), &[]).await;
    let url = format!("https://{}/", proxy.traffic());
    let answer = curl(&["--insecure", "-v", &url]).await;
    assert!(
        answer.stderr.contains("SSL connection using TLSv1.2"),
        "{answer:?}"
    );
    // The page that it serves is about the connection.
    assert!(answer.ok().contains("s_server"));
}
