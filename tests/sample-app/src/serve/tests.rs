use super::*;
use tokio::io::{AsyncBufReadExt as _, BufReader};

async fn started(
    ready_after: Duration,
) -> (
    Arc<App>,
    std::net::SocketAddr,
    CancellationToken,
    tokio::task::JoinHandle<()>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (app, stop) = (
        App::new("pod-1".into(), ready_after),
        CancellationToken::new(),
    );
    let (served, stopped) = (Arc::clone(&app), stop.clone());
    let server = tokio::spawn(async move { served.serve(vec![listener], None, stopped).await });
    (app, addr, stop, server)
}

async fn ask(addr: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_app_that_is_told_so_listens_on_ipv4_alone() {
    let listener = listen(0, Some(Ipv4Addr::UNSPECIFIED)).await.unwrap();
    assert!(listener.local_addr().unwrap().is_ipv4());
}

#[tokio::test]
async fn an_answer_says_which_pod_and_port_gave_it() {
    let (_app, addr, _stop, _server) = started(Duration::ZERO).await;
    let answer = ask(addr, "GET /?headers=1").await;
    assert!(answer.contains("x-pod: pod-1"), "{answer}");
    assert!(
        answer.contains(&format!("\"port\":{}", addr.port())),
        "{answer}"
    );
    assert!(answer.contains("\"host\":\"a\""), "{answer}");
    assert!(
        ask(addr, "GET /?bytes=7")
            .await
            .ends_with("\r\n\r\nxxxxxxx")
    );
    assert!(ask(addr, "GET /stats").await.contains("\"requests\":2"));
}

#[tokio::test]
async fn a_stream_of_events_comes_piece_by_piece() {
    let (_app, addr, _stop, _server) = started(Duration::ZERO).await;
    let answer = ask(addr, "GET /stream?ms=200").await;
    assert!(answer.contains("text/event-stream"), "{answer}");
    assert!(answer.contains("x-pod: pod-1"), "{answer}");
    assert_eq!(answer.matches("data: tick\n\n").count(), 3, "{answer}");
}

#[tokio::test]
async fn liveness_can_be_broken_and_readiness_can_be_late() {
    let (_app, addr, _stop, _server) = started(Duration::from_secs(3600)).await;
    assert!(ask(addr, "GET /healthz").await.starts_with("HTTP/1.1 503"));
    assert!(ask(addr, "GET /live").await.starts_with("HTTP/1.1 200"));
    assert!(
        ask(addr, "POST /break-liveness")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(ask(addr, "GET /live").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_stop_and_no_new_one_is_taken() {
    let (app, addr, stop, server) = started(Duration::ZERO).await;
    let slow = tokio::spawn(async move { ask(addr, "GET /?sleep_ms=300").await });
    while app.in_flight.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    assert!(slow.await.unwrap().starts_with("HTTP/1.1 200"));
    server.await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err(), "still listening");
}

#[tokio::test]
async fn the_tcp_port_speaks_first_and_echoes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = App::new("pod-1".into(), Duration::ZERO);
    let stop = CancellationToken::new();
    tokio::spawn(async move { app.serve(vec![], Some(listener), stop).await });
    let mut stream = BufReader::new(TcpStream::connect(addr).await.unwrap());
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello from pod-1\n");
    stream.write_all(b"ping\n").await.unwrap();
    line.clear();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "ping\n");
}

#[tokio::test]
async fn a_kept_connection_is_told_of_the_stop_before_it_is_closed() {
    let (_app, addr, stop, server) = started(Duration::ZERO).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut answer = [0; 4096];
    stream.write_all(request).await.unwrap();
    let length = stream.read(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer[..length]).contains("connection: close"));
    stop.cancel();
    stream.write_all(request).await.unwrap();
    let mut last = String::new();
    stream.read_to_string(&mut last).await.unwrap();
    assert!(
        last.contains("200 OK") && last.contains("connection: close"),
        "{last}"
    );
    server.await.unwrap();
}
