//! The queue-proxy beside HAProxy and Envoy: what a request costs.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use lull_bench::{
    Bound, Cores, Kind, Nginx, Protocol, Proxy, Row, Sample, Scratch, load, progress,
    proxies::{Programs, Setup},
    say,
    table::{self, Limit},
};

const CONNECTIONS: u32 = 64;
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures the queue-proxy beside HAProxy and Envoy on loopback.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; each measures every proxy once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The queue-proxy.
    #[arg(long)]
    binary: PathBuf,
    /// Envoy.
    #[arg(long)]
    envoy: PathBuf,
    /// Exit with 1 where a figure is missed.
    #[arg(long)]
    check: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let stop = lull_process::shutdown::on_signal().context("install signal handlers")?;
    tokio::select! {
        // What was started is dropped with the future, and dies.
        () = stop.cancelled() => anyhow::bail!("interrupted"),
        done = run(&args) => done,
    }
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cores = Cores::divide()?;
    let scratch = Scratch::try_new()?;
    let mut nginx = Nginx::start(scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        programs: Programs {
            queue_proxy: &args.binary,
            envoy: &args.envoy,
        },
        scratch: scratch.path(),
        cores: &cores,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    let kinds = [Kind::QueueProxy, Kind::Limited, Kind::Haproxy, Kind::Envoy];
    let mut cpu = kinds.map(|_| Sample::default());
    let mut rate = kinds.map(|_| Sample::default());
    for round in 0..args.rounds {
        for turn in 0..kinds.len() {
            let index = (round + turn) % kinds.len();
            let proxy = Proxy::start(kinds[index], &setup).await?;
            load::wrk(proxy.address, CONNECTIONS, WARM_UP).await?;
            let before = proxy.cpu()?;
            let time = Duration::from_secs(args.seconds);
            let done = load::wrk(proxy.address, CONNECTIONS, time).await?;
            let used = (proxy.cpu()? - before).as_secs_f64();
            proxy.stop().await?;
            cpu[index].push(used * 1e6 / done.requests);
            rate[index].push(done.requests / done.seconds);
            progress(format!(
                "round {}/{}: {}: {:.1} µs per request, {:.0} requests/s, core busy {:.0} %",
                round + 1,
                args.rounds,
                kinds[index].name(),
                used * 1e6 / done.requests,
                done.requests / done.seconds,
                used / done.seconds * 100.0
            ));
        }
    }
    nginx.check()?;
    let [ours, limited, haproxy, envoy] = cpu;
    let most = |value: Sample, of: &str, limit| Bound {
        of: of.to_owned(),
        value,
        limit: Limit::Most(limit),
    };
    let rows = vec![
        Row {
            figure: "CPU per request, HTTP/1.1, 64 connections, µs".to_owned(),
            bounds: vec![
                most(ours.over(&envoy), "x Envoy", 0.45),
                most(ours.over(&haproxy), "x HAProxy", 1.5),
            ],
            cells: vec![ours.clone(), haproxy, envoy],
        },
        Row {
            figure: "same with a concurrency limit of 100, µs".to_owned(),
            bounds: vec![most(limited.over(&ours), "x ours without", 1.05)],
            cells: vec![limited, Sample::default(), Sample::default()],
        },
        {
            let [ours, _, haproxy, envoy] = rate;
            Row {
                figure: "requests per second, one core".to_owned(),
                bounds: vec![Bound {
                    of: "x Envoy".to_owned(),
                    value: ours.over(&envoy),
                    limit: Limit::Least(2.0),
                }],
                cells: vec![ours, haproxy, envoy],
            }
        },
    ];
    say(table::markdown(&["queue-proxy", "HAProxy", "Envoy"], &rows));
    let (reached, of) = table::verdict(&rows);
    say(format!("\n{reached} of {of} figures reached"));
    Ok(if args.check && reached < of {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
