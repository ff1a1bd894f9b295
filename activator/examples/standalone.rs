//! An activator without Kubernetes, for benches: the workloads and the one pod are told on the
//! command line, everything else is the activator as it ships.
//!
//! The pod is any server on loopback; a `/ready` beside it, on a thread of its own, says that it
//! takes traffic.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use activator::{Config, Pod, WorkloadEntry};
use anyhow::Context as _;
use http::StatusCode;
use lull_contract::{AppProtocol, HumanDuration, Settings, scaled_workload::WorkloadPort};
use lull_process::{env::ProcessEnv, logging, server, shutdown};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Held for so long at most.
const HOLD: HumanDuration = HumanDuration::from_secs(600);
const USAGE: &str = "standalone <port to listen on> <http|tcp> <the app's address> <number of workloads that sleep, whose ports are on /workloads>";

/// What the command line says.
struct Args {
    port: u16,
    protocol: AppProtocol,
    app: SocketAddr,
    asleep: u32,
}

fn main() -> anyhow::Result<()> {
    let args = args().context(USAGE)?;
    let config = Config::read(&ProcessEnv).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    logging::init(&config.log, config.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, &args))?;
    runtime.shutdown_background();
    Ok(())
}

fn args() -> Option<Args> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next();
    Some(Args {
        port: next()?.parse().ok()?,
        protocol: match next()?.as_str() {
            "http" => AppProtocol::Http,
            "tcp" => AppProtocol::Tcp,
            _ => return None,
        },
        app: next()?.parse().ok()?,
        asleep: next()?.parse().ok()?,
    })
}

async fn serve(config: Config, args: &Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let ready = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let admin_port = ready.local_addr()?.port();
    tokio::spawn(server::serve(ready, CancellationToken::new(), |_| async {
        server::text(StatusCode::OK, "ready\n")
    }));
    let bound = activator::build(config).await?;
    let directory = bound.directory();
    directory.apply_workload(workload("awake".to_owned(), args.protocol, args.port));
    directory.apply_pod(Pod {
        namespace: "bench".to_owned(),
        name: "awake-1".to_owned(),
        uid: "pod".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "awake".to_owned())]),
        ip: Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        leaving: false,
        ready: true,
        node: Some("node".to_owned()),
        running: true,
        ports: BTreeMap::from([(80, args.app.port())]),
        admin_port: Some(admin_port),
    });
    for number in 0..args.asleep {
        let name = format!("asleep-{number}");
        directory.apply_workload(workload(name, AppProtocol::Http, 0));
    }
    bound.run(stop, None).await?;
    Ok(())
}

/// `port` 0 = any free one.
fn workload(name: String, protocol: AppProtocol, port: u16) -> WorkloadEntry {
    WorkloadEntry {
        namespace: "bench".to_owned(),
        uid: format!("uid-{name}"),
        selector: BTreeMap::from([("app".to_owned(), name.clone())]),
        ports: vec![WorkloadPort {
            app_port: 80,
            protocol,
            activator_port: port,
        }],
        settings: Settings {
            hold_timeout: HOLD,
            connection_hold_timeout: HOLD,
            ..Settings::default()
        },
        services: vec![],
        serve: false,
        plain: vec![],
        name,
    }
}
