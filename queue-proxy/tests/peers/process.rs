//! Processes that a test starts: found by name, ended by pid, also when the test fails.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, time::Instant};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// State of a listening socket (`include/net/tcp_states.h`).
const LISTEN: &str = "0A";

static UNIQUE: AtomicU32 = AtomicU32::new(0);

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Process(Child);

/// A directory that goes with this value.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

/// `work`, which must end.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes too long")
}

/// Waits until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A number that no other caller in this process gets.
pub(crate) fn unique() -> u32 {
    UNIQUE.fetch_add(1, Ordering::Relaxed)
}

/// Debian package of a program that tests start.
fn package(program: &str) -> &'static str {
    match program {
        "curl" => "curl",
        "h2load" | "nghttp" => "nghttp2-client",
        "nghttpd" => "nghttp2-server",
        "nginx" => "nginx-light",
        "openssl" => "openssl",
        "ip" => "iproute2",
        "nsenter" | "setpriv" | "unshare" => "util-linux",
        "redis-cli" | "redis-server" => "redis-server",
        "initdb" | "postgres" | "psql" => "postgresql",
        other => panic!("no package is known for {other}"),
    }
}

/// Where `program` is; Debian keeps servers out of a user's `PATH`, and PostgreSQL's out of
/// everybody's.
pub(crate) fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgresql = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> = postgresql
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .chain(versions.into_iter().rev())
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            let package = package(program);
            panic!("{program} is missing: apt-get install {package} (make packages)")
        })
}

/// A command for `program`, which must be installed.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program));
    command.stdin(Stdio::null());
    command
}

/// Runs `command` to its end, with `input` if there is any.
pub(crate) async fn output(command: Command, input: Option<&[u8]>) -> Output {
    let mut command = tokio::process::Command::from(command);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let stdin = child.stdin.take();
    let writing = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // Who refuses a body does not read it.
            let _ = stdin.write_all(input).await;
        }
    };
    let (output, ()) = soon(async { tokio::join!(child.wait_with_output(), writing) }).await;
    output.unwrap()
}

/// Runs `program` to its end, which must be a success, and returns what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = command(program);
    command.args(arguments);
    let output = output(command, None).await;
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

// === impl Process ===

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{command:?} is missing"),
            Err(error) => panic!("{command:?}: {error}"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Tells the process to end, and waits until it has: for servers with children of their own.
    pub(crate) fn quit(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
        let _ = self.0.wait();
    }

    /// Ports on which the process listens, in the order in which it opened them.
    pub(crate) fn listening(&self) -> Vec<u16> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.id())) else {
            return Vec::new();
        };
        let mut sockets: Vec<(u32, String)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let target = fs::read_link(entry.path()).ok()?;
                let inode = target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?;
                Some((entry.file_name().to_str()?.parse().ok()?, inode.to_owned()))
            })
            .collect();
        sockets.sort_unstable();
        let tables: Vec<String> = ["tcp", "tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(format!("/proc/{}/net/{table}", self.id())).ok())
            .collect();
        sockets
            .iter()
            .filter_map(|(_, inode)| tables.iter().find_map(|table| port(table, inode)))
            .collect()
    }

    /// Waits until the process listens on `count` ports.
    pub(crate) async fn listens(&mut self, count: usize) -> Vec<u16> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ports = self.listening();
            if ports.len() == count {
                return ports;
            }
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("it ended: {status}");
            }
            assert!(Instant::now() < deadline, "it listens on {ports:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The most memory that the process ever had, KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that the process has, KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
        kib.unwrap_or_else(|| panic!("no {key} in {text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Port of the listening socket `inode`, from a table of the kernel.
fn port(table: &str, inode: &str) -> Option<u16> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let matches = fields.get(3) == Some(&LISTEN) && fields.get(9) == Some(&inode);
        let (_, port) = fields.get(1).filter(|_| matches)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    })
}

// === impl TempDir ===

impl TempDir {
    pub(crate) fn new() -> Self {
        let name = format!("peers-{}-{}", std::process::id(), unique());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left is in the build's own directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
