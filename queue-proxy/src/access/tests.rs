use std::sync::Arc;

use super::*;

/// An output that waits for its turn before each line.
struct Slow {
    turns: Receiver<()>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Write for Slow {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.turns.recv().map_err(io::Error::other)?;
        self.lines
            .lock()
            .push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PEER: HeaderValue = HeaderValue::from_static("10.0.0.9");

fn log(log: &AccessLog, path: &str) {
    let request = Request::get(path).body(()).unwrap();
    let record = log.request(&request, &PEER).unwrap();
    log.end(record, Duration::ZERO);
}

#[test]
fn a_log_that_is_off_makes_no_records() {
    let off = AccessLog::off(Counter::default());
    assert!(off.request(&Request::new(()), &PEER).is_none());
    assert!(off.stream(Kind::Tcp, [10, 0, 0, 9].into()).record.is_none());
}

#[test]
fn a_slow_output_costs_lines_and_never_time() {
    let (turns_tx, turns) = mpsc::channel();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let output = Slow {
        turns,
        lines: Arc::clone(&lines),
    };
    let dropped = Counter::default();
    let access = AccessLog::to(output, dropped.clone()).unwrap();
    // The output takes nothing: the queue fills, and perhaps one line is in the writer's hand.
    let sent = QUEUE as u64 + 100;
    for number in 0..sent {
        log(&access, &format!("/{number}"));
    }
    assert!((99..=100).contains(&dropped.get()), "{}", dropped.get());
    for _ in 0..sent {
        turns_tx.send(()).unwrap();
    }
    drop(access);
    let lines = lines.lock();
    assert_eq!(lines.len() as u64 + dropped.get(), sent);
    for (number, line) in lines.iter().take(QUEUE).enumerate() {
        assert!(line.contains(&format!("\"path\":\"/{number}\"")), "{line}");
        assert!(line.ends_with("}\n"), "{line}");
    }
}

#[test]
fn an_output_that_fails_loses_its_lines_and_no_others() {
    let (turns_tx, turns) = mpsc::channel();
    drop(turns_tx);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let dropped = Counter::default();
    let access = AccessLog::to(Slow { turns, lines }, dropped.clone()).unwrap();
    log(&access, "/1");
    log(&access, "/2");
    drop(access);
    assert_eq!(dropped.get(), 2);
}
