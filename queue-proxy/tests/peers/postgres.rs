//! PostgreSQL, as many trust it: whoever comes from loopback may do everything.
//!
//! A network namespace is the pod: it has loopback and one address of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::{
    process::{self, Process, command, find, output, unique, until},
    proxy::{Proxy, UNPROBED},
};

const POD_IP: &str = "10.99.0.7";
/// The namespace is ours: every port is free.
const PORT: u16 = 5432;
/// `remote` may come from everywhere, everybody else from loopback only.
const TRUST: &str = "host all remote all trust\n\
     host all all 127.0.0.1/32 trust\n\
     host all all all reject\n";

/// A pod with a PostgreSQL in it.
struct Pod {
    namespace: Process,
    data: PathBuf,
    server: Process,
}

impl Pod {
    async fn start() -> Self {
        let namespace = namespace();
        // PostgreSQL does not run as root, and its user can't look into root's directories.
        let name = format!("lull-postgres-{}-{}", std::process::id(), unique());
        let data = std::env::temp_dir().join(name);
        let mut init = as_postgres(&find("initdb"));
        init.args([
            "--no-sync",
            "--username",
            "postgres",
            "--auth",
            "trust",
            "--pgdata",
        ]);
        let made = output(
            {
                init.arg(&data);
                init
            },
            None,
        )
        .await;
        assert!(made.status.success(), "{made:?}");
        fs::write(data.join("pg_hba.conf"), TRUST).unwrap();
        let mut server = inside(&namespace, &find("setpriv"));
        server
            .args(POSTGRES_USER)
            .arg(find("postgres"))
            .arg("-D")
            .arg(&data);
        let settings = [
            "listen_addresses=*",
            "unix_socket_directories=",
            "fsync=off",
        ];
        let port = format!("port={PORT}");
        for setting in settings.iter().copied().chain([port.as_str()]) {
            server.args(["-c", setting]);
        }
        let server = Process::spawn(server.stderr(Stdio::null()));
        let pod = Self {
            namespace,
            data,
            server,
        };
        until(|| async {
            pod.psql("127.0.0.1", PORT, "postgres", "select 1")
                .await
                .status
                .success()
        })
        .await;
        pod
    }

    async fn psql(&self, host: &str, port: u16, user: &str, query: &str) -> Output {
        let mut psql = inside(&self.namespace, &find("psql"));
        let target =
            format!("host={host} port={port} user={user} dbname=postgres connect_timeout=9");
        psql.args([
            &target,
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "-c",
            query,
        ]);
        output(psql, None).await
    }

    /// A queue-proxy in this pod that dials the app at `pod_ip`.
    async fn proxy(&self, pod_ip: &str) -> Proxy {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_queue-proxy"));
        let pod_ip: IpAddr = pod_ip.parse().unwrap();
        let command = inside(&self.namespace, &binary);
        Proxy::spawn(command, pod_ip, &[(PORT, "tcp")], &[UNPROBED]).await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.server.quit();
        let _ = fs::remove_dir_all(&self.data);
    }
}

const POSTGRES_USER: [&str; 4] = [
    "--reuid=postgres",
    "--regid=postgres",
    "--clear-groups",
    "--",
];

fn as_postgres(program: &PathBuf) -> Command {
    let mut command = command("setpriv");
    command.args(POSTGRES_USER).arg(program).current_dir("/");
    command
}

/// A process that keeps a namespace.
fn namespace() -> Process {
    let ip = find("ip");
    let script = format!(
        "{ip} link set lo up && {ip} address add {POD_IP}/32 dev lo && echo made && exec sleep 600",
        ip = ip.display()
    );
    let mut unshare = command("unshare");
    unshare
        .args(["--net", "--", "sh", "-c", &script])
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut unshare);
    let stdout = process.child().stdout.take().unwrap();
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "made\n", "only root may make a network namespace");
    process
}

/// `program` in the namespace; it becomes that program, with the same process id.
fn inside(namespace: &Process, program: &PathBuf) -> Command {
    let mut command = process::command("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", namespace.id()));
    command.arg("--").arg(program).current_dir("/");
    command
}

#[tokio::test]
async fn a_remote_caller_is_not_taken_for_a_local_one() {
    let pod = Pod::start().await;
    let proxy = pod.proxy(POD_IP).await;
    let port = proxy.traffic().port();

    let refused = pod.psql(POD_IP, port, "postgres", "select 1").await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    let reason = format!("pg_hba.conf rejects connection for host \"{POD_IP}\"");
    assert!(said.contains(&reason), "{said}");

    // Who is local is trusted; a proxy that dialled loopback would let everybody in.
    let local = pod.psql("127.0.0.1", PORT, "postgres", "select 1").await;
    assert_eq!(local.stdout, b"1\n", "{local:?}");
    let careless = pod.proxy("127.0.0.1").await;
    let port = careless.traffic().port();
    let admitted = pod.psql(POD_IP, port, "postgres", "select 1").await;
    assert_eq!(admitted.stdout, b"1\n", "{admitted:?}");

    // And who may come from everywhere comes through: large results, large statements.
    let made = pod
        .psql("127.0.0.1", PORT, "postgres", "create role remote login")
        .await;
    assert!(made.status.success(), "{made:?}");
    let port = proxy.traffic().port();
    let rows = pod
        .psql(POD_IP, port, "remote", "select generate_series(1, 200000)")
        .await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(rows.stdout == expected.as_bytes(), "{:?}", rows.status);
    let statement = format!("select length('{}')", "x".repeat(100_000));
    let length = pod.psql(POD_IP, port, "remote", &statement).await;
    assert_eq!(length.stdout, b"100000\n", "{length:?}");
}
