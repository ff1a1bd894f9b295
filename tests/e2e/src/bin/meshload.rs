//! A load from zero through the ingress gateway of a mesh: hey calls a workload that sleeps, and the page
//! on performance says what came of it.
//!
//! hey calls the gateway's address, so this must run where that can be reached: on a node.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use jiff::Timestamp;
use lull_contract::{Settings, view::WakeView};
use lull_e2e::{
    App, Namespace, Workload, book,
    course::{self, Course, Span},
    eventually,
    hey::Summary,
    in_mesh_for,
    performance::{LoadRun, PAGE, with_section},
    routes::{self, Door},
    say,
};
use rustix::process::{Pid, Signal, kill_process};
use sample_app::unix_us;
use serde_json::json;
use tokio::{process::Command, time::timeout};

/// Longest wait for what Kubernetes, Istio or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time until the workload sleeps behind its route.
const SET_UP: Duration = Duration::from_secs(480);
/// Longest time of a single request, as hey takes it: seconds.
const PATIENCE: u64 = 60;
/// Longest time until hey ends that was told to.
const STOP: Duration = Duration::from_secs(PATIENCE + 30);
/// The shortest, so that it soon sleeps; before the load it gets the default.
const WINDOW: &str = "lull.dev/window";

/// Measures on the cluster of the current kubeconfig, on which Istio is.
#[derive(Debug, Parser)]
struct Args {
    /// The program hey.
    #[arg(long)]
    hey: PathBuf,
    /// Requests; each connection sends the same whole number of them.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 300)]
    connections: u64,
    /// The workload's lull.dev/container-concurrency; 0: none.
    #[arg(long, default_value_t = 0)]
    container_concurrency: u32,
    /// Longest time of the load, minutes.
    #[arg(long, default_value_t = 25)]
    minutes: u32,
}

/// hey, and whom it calls.
#[derive(Debug)]
struct Hey {
    program: PathBuf,
    url: String,
    host: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        args.connections > 0 && args.requests >= args.connections && args.minutes > 0,
        "--connections and --minutes: must be at least 1; --requests: at least one for each connection"
    );
    let limit = SET_UP + args.limit() + STOP + FOLLOW;
    let mut run = None;
    in_mesh_for(limit, "load", async |namespace| {
        run = Some(load(namespace, &args).await?);
        Ok(())
    })
    .await?;
    let run = run.context("the load left nothing")?;
    let section = run.section();
    say(&section);
    let page = book::folder().join(PAGE);
    let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    std::fs::write(&page, with_section(&text, &section)?)
        .with_context(|| page.display().to_string())?;
    ensure!(
        run.all_ok(),
        "of {} requests {} were answered 200",
        run.sent(),
        run.summary.ok()
    );
    Ok(())
}

/// Has a workload called that sleeps, and watches it.
async fn load(namespace: &Namespace, args: &Args) -> anyhow::Result<LoadRun> {
    let annotations = args.annotations();
    let app = annotations
        .iter()
        .fold(App::new("shop"), |app, (key, value)| {
            app.annotate(key, value)
        });
    let workload = app.deploy_awake(namespace).await?;
    let hey = Hey::through_gateway(&args.hey, namespace, &workload).await?;
    say("the gateway's route leads to the workload");
    workload.put_to_sleep().await?;
    as_users_have_it(&workload).await?;
    say("it sleeps, and no pod is left");

    let course = Course::start(&workload).await?;
    let from_us = unix_us();
    let summary = hey
        .call((args.requests, args.connections), args.limit())
        .await?;
    let load = Span {
        from_us,
        until_us: unix_us(),
    };
    settle(&course, from_us).await;
    Ok(LoadRun {
        day: day(),
        cores: std::thread::available_parallelism()?.get(),
        command: format!(
            "hey -n {} -c {} -t {PATIENCE}",
            args.requests, args.connections
        ),
        requests: args.requests,
        connections: args.connections,
        annotations,
        summary,
        load,
        until_us: unix_us(),
        moments: course.moments(),
        wake: wake(&workload).await?,
    })
}

/// Gives the sleeping workload the default window: the one until now was for the sake of time.
async fn as_users_have_it(workload: &Workload) -> anyhow::Result<()> {
    workload.annotate(&[(WINDOW, None)]).await?;
    let wanted = Settings::default().window;
    eventually("the default window", FOLLOW, async || {
        let scaled = workload.scaled().await?;
        let scaled = scaled.context("there is no ScaledWorkload")?;
        let window = scaled.spec.settings.window;
        ensure!(window == wanted, "it is {window}");
        Ok(())
    })
    .await?;
    workload.asleep().await?;
    workload.pods_gone().await
}

/// Waits until pods alone are behind the Service: a short load may be over before. That they never are is
/// a figure like another one.
async fn settle(course: &Course, from_us: u64) {
    let settled = eventually("pods alone behind the Service", FOLLOW, async || {
        let moments = course.moments();
        let served = course::served_after(&moments, from_us);
        served.with_context(|| format!("{:?}", moments.last()))
    });
    if let Err(error) = settled.await {
        say(format!("{error:#}"));
    }
}

/// The wake that the load began, as Lull has written it down.
async fn wake(workload: &Workload) -> anyhow::Result<Option<WakeView>> {
    let wakes = workload.status().await?.wakes;
    Ok(wakes.into_iter().find(|wake| wake.total_ms.is_some()))
}

/// Today, in UTC.
fn day() -> String {
    let now = Timestamp::now().to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

// === impl Args ===

impl Args {
    fn limit(&self) -> Duration {
        Duration::from_secs(60) * self.minutes
    }

    /// What a user would write beside `lull.dev/scale`.
    fn annotations(&self) -> Vec<(String, String)> {
        let mut annotations = vec![("lull.dev/max-scale".to_owned(), "5".to_owned())];
        if self.container_concurrency > 0 {
            let limit = self.container_concurrency.to_string();
            annotations.push(("lull.dev/container-concurrency".to_owned(), limit));
        }
        annotations
    }
}

// === impl Hey ===

impl Hey {
    /// Routes a host that the world knows to `workload`, and waits until it is answered there.
    async fn through_gateway(
        program: &Path,
        namespace: &Namespace,
        workload: &Workload,
    ) -> anyhow::Result<Self> {
        let host = format!("{}.example.org", namespace.name);
        let http = json!([routes::route("shop", workload)]);
        Door::World.open(namespace, &host, &http).await?;
        let hey = Self {
            program: program.to_owned(),
            url: Door::World.url_by_address(&namespace.cluster, "/").await?,
            host,
        };
        eventually("the gateway to know the route", FOLLOW, async || {
            let summary = hey.call((1, 1), FOLLOW).await?;
            ensure!(summary.ok() == 1, "{:?}", summary.failures());
            Ok(())
        })
        .await?;
        Ok(hey)
    }

    /// Sends so many requests over so many connections, for `limit` at most: then hey tells what has
    /// come of those that were sent.
    async fn call(
        &self,
        (requests, connections): (u64, u64),
        limit: Duration,
    ) -> anyhow::Result<Summary> {
        let mut command = Command::new(&self.program);
        command
            .args(["-n", &requests.to_string()])
            .args(["-c", &connections.to_string()])
            .args(["-t", &PATIENCE.to_string()])
            .args(["-host", &self.host])
            .arg(&self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn();
        let child = child.with_context(|| format!("run {}", self.program.display()))?;
        let pid = child.id().context("hey has ended at once")?;
        let pid = Pid::from_raw(pid.try_into()?).context("hey has no process")?;
        let mut output = pin!(child.wait_with_output());
        let output = match timeout(limit, &mut output).await {
            Ok(output) => output,
            Err(_) => {
                say(format!("hey is stopped after {limit:?}"));
                kill_process(pid, Signal::INT)?;
                let late = timeout(STOP, output).await;
                late.context("hey doesn't end")?
            }
        }?;
        let (said, wrong) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "hey: {}: {wrong}", output.status);
        Summary::parse(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_limit_is_annotated_only_where_there_is_one() {
        let args = |more: &[&str]| {
            let words = ["meshload", "--hey", "hey"];
            Args::parse_from(words.iter().chain(more))
        };
        let plain = args(&[]);
        assert_eq!((plain.requests, plain.connections), (1_000_000, 300));
        assert_eq!(plain.annotations().len(), 1);
        let limited = args(&["--container-concurrency", "50", "--minutes", "2"]);
        let annotations = limited.annotations();
        assert_eq!(annotations[1].0, "lull.dev/container-concurrency");
        assert_eq!(annotations[1].1, "50");
        assert_eq!(limited.limit(), Duration::from_secs(120));
    }
}
