//! Starts the program itself, as in a pod, and listens to what it says.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::{
    app::App,
    harness::{environment, get, local, soon},
};

/// A queue-proxy before an app in this process; it is killed with this value.
pub(crate) struct Program {
    child: Child,
    socket: String,
    pub(crate) traffic: SocketAddr,
    metrics: SocketAddr,
    pub(crate) stdout: BufReader<ChildStdout>,
    stderr: Lines<BufReader<ChildStderr>>,
}

/// The program with nothing in its environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-proxy"));
    command.env_clear().kill_on_drop(true);
    command
}

// === impl Program ===

impl Program {
    pub(crate) async fn start(overrides: &[(&str, &str)]) -> Self {
        let (_, app) = App::start().await;
        let variables = environment(&format!("0={}/http", app.port()), overrides);
        let mut child = command()
            .envs(&variables)
            .env("QP_LOG_JSON", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let addresses = addresses(&mut stderr).await;
        let address = |value: &Value| -> SocketAddr { value.as_str().unwrap().parse().unwrap() };
        Self {
            traffic: local(address(&addresses["traffic"][0])),
            metrics: local(address(&addresses["metrics"])),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            stderr,
            socket: variables["QP_DRAIN_SOCKET"].clone(),
            child,
        }
    }

    /// Runs a command of the program beside it, as its pod does.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = command();
        command.args(arguments).env("QP_DRAIN_SOCKET", &self.socket);
        soon(command.output()).await.unwrap()
    }

    /// The next log line.
    pub(crate) async fn logged(&mut self) -> Value {
        next_line(&mut self.stderr).await
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.metrics, "/metrics").await.body
    }

    /// Asks it to end and waits until it has, by itself and with success.
    pub(crate) async fn end(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = soon(self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

async fn next_line(stderr: &mut Lines<BufReader<ChildStderr>>) -> Value {
    let line = soon(stderr.next_line()).await.unwrap();
    serde_json::from_str(&line.expect("it ended")).unwrap()
}

/// Where it listens, from the log line of its start.
async fn addresses(stderr: &mut Lines<BufReader<ChildStderr>>) -> Value {
    loop {
        let line = next_line(stderr).await;
        if let Some(listens) = line["fields"]["listens"].as_str() {
            return serde_json::from_str(listens).unwrap();
        }
    }
}
