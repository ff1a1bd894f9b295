//! The bench's own load and its processes, against a server of a few lines.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use lull_bench::{
    Child, Scratch,
    load::{Connection, REQUEST, paced},
};
use tokio::{process::Command, time::Instant};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers every request on every connection with `answer`, until the test ends.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream, answer));
        }
    });
    address
}

/// Ends with the connection.
fn serve(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut request = vec![0; REQUEST.len()];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(answer)?;
    }
}

#[test]
fn a_connection_carries_many_requests() {
    let mut connection = Connection::open(server(ANSWER)).unwrap();
    for _ in 0..3 {
        connection.get().unwrap();
    }
}

#[test]
fn an_answer_that_is_no_200_fails() {
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let mut connection = Connection::open(server(refusal)).unwrap();
    let error = connection.get().unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
}

#[test]
fn the_paced_load_keeps_its_rate() {
    let taken = paced(server(ANSWER), 8, 1_000.0, Duration::from_secs(1)).unwrap();
    // A thousand on average; the spread of a Poisson process is 32, so 200 is more than chance.
    let count = taken.all.len();
    assert!((800..=1_200).contains(&count), "{count}");
    assert_eq!(taken.slices.len(), 10);
    assert!(taken.calm_p99() > taken.all.quantile(0.0));
}

#[tokio::test]
async fn a_child_dies_with_its_owner() {
    let child = Child::spawn("sleep", sleep()).unwrap();
    let state = PathBuf::from(format!("/proc/{}/stat", child.pid()));
    assert!(child.memory().unwrap().resident_mib > 0.0);
    drop(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    // Gone, or dead and not asked for its end yet.
    while std::fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "it lives on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_child_that_ended_by_itself_is_noticed() {
    let mut child = Child::spawn("false", Command::new("false")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.check().is_ok() {
        assert!(Instant::now() < deadline, "nobody notices");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_scratch_folder_goes_with_its_owner() {
    let scratch = Scratch::try_new().unwrap();
    let path = scratch.path().to_owned();
    std::fs::write(path.join("file"), "text").unwrap();
    drop(scratch);
    assert!(!path.exists());
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("60");
    command
}
