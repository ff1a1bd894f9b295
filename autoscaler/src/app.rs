//! Assembly: watches, leadership, one poller per activator, one task per workload, admin pages.

mod pollers;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use http::StatusCode;
use kube::{Client, ResourceExt};
use lull_cluster_settings::{Settings, Watcher};
use lull_process::{readiness::Readiness, server, shutdown};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::pollers::Pollers;
use crate::{
    absence, cluster_settings,
    config::Args,
    context::{Context, Key, Parts},
    crash::Crash,
    lease::{Election, Leadership},
    machine::Delays,
    metrics::Metrics,
    page,
    stores::{OnTouched, Stores, Touched, Watched},
    unwritten, workload,
};

/// Changes that wait for the manager; beyond it the regular scan finds them.
const TOUCHED_CAPACITY: usize = 4096;
/// How often everything is looked at, whatever the watches said.
const SCAN_EVERY: Duration = Duration::from_secs(5);

/// Runs the controller until SIGTERM.
///
/// # Errors
/// Where a port is taken or the cluster's address is unknown.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let client = Client::try_default()
        .await
        .context("no access to a Kubernetes API server")?;
    let (readiness, mut registry) = (Readiness::default(), Registry::default());
    let metrics = Metrics::register(&mut registry);
    let rejected = metrics.settings_rejected.clone();
    let settings_map = (args.namespace.as_str(), args.settings.as_str());
    let (watcher, settings) = Watcher::new(&client, settings_map, &readiness, rejected);
    tokio::spawn(watcher.run(stop.clone()));
    let shown = (args.clone(), settings.clone());
    let crash = Crash::new(args.crash_on_request);
    spawn_admin(shown, &stop, &readiness, registry, crash.clone()).await?;

    let (touched_tx, touched_rx) = mpsc::channel(TOUCHED_CAPACITY);
    let on_touched: OnTouched = Arc::new(move |touched| {
        // A full channel loses nothing: the scan looks at everything.
        let _ = touched_tx.try_send(touched);
    });
    let watched = Watched {
        namespace: &args.namespace,
        activators: &args.activator_selector,
        autoscalers: &args.peers,
        targets: &args.targets.0,
        namespaces: &args.namespaces,
        mesh: &args.mesh_options(),
    };
    let stores = Stores::start(&client, &watched, &readiness, &on_touched);
    metrics.shards.set(args.shards.count().into());
    let leadership = Leadership::new(args.shards);
    let election = Election {
        client: client.clone(),
        namespace: args.namespace.clone(),
        identity: args.pod_name.clone(),
        replicas: stores.autoscalers.clone(),
        readiness: readiness.clone(),
        held: metrics.shards_held.clone(),
    };
    let leases_end = CancellationToken::new();
    let leases = tokio::spawn(leadership.clone().run(election, leases_end.clone()));
    let ctx = Arc::new(Context::new(Parts {
        client,
        stores,
        leadership,
        settings,
        metrics,
        delays: Delays {
            propagation: args.propagation_delay.0,
            wake_deadline: args.wake_deadline.0,
            ..Delays::default()
        },
        activator_ports: args.activator_ports.clone(),
        reporter: args.pod_name.clone(),
        lull: args.components(),
        crash,
    }));
    let selector = args.activator_selector.clone();
    let watch = absence::watch(Arc::clone(&ctx), selector, readiness.clone(), stop.clone());
    tokio::spawn(watch);
    let shown = page::spawn(&ctx, &args, &stop).await;
    shown.context("status page port")?;
    manage(&ctx, &readiness, touched_rx, &stop).await;
    leases_end.cancel();
    leases.await.context("the leases' task failed")?;
    Ok(())
}

async fn spawn_admin(
    (args, settings): (Args, Settings),
    stop: &CancellationToken,
    readiness: &Readiness,
    registry: Registry,
    crash: Crash,
) -> anyhow::Result<()> {
    let admin = server::bind(args.admin_port).await.context("admin port")?;
    let metrics = server::bind(args.metrics_port)
        .await
        .context("metrics port")?;
    let readiness = readiness.clone();
    tokio::spawn(server::serve(admin, stop.clone(), move |request| {
        let missing = readiness.missing();
        let config = || cluster_settings::page(&args, &settings.borrow());
        let config = (request.uri().path() == "/config").then(config);
        let query = request.uri().query().unwrap_or_default();
        let is_taken = request.uri().path() == "/crash" && crash.request(query);
        async move {
            match request.uri().path() {
                "/live" => server::text(StatusCode::OK, "ok\n"),
                "/config" => server::json(&config),
                "/crash" if is_taken => server::text(StatusCode::OK, "ok\n"),
                "/ready" if missing.is_empty() => server::text(StatusCode::OK, "ok\n"),
                "/ready" => {
                    let text = format!("waiting for {}\n", missing.join(", "));
                    server::text(StatusCode::SERVICE_UNAVAILABLE, text)
                }
                _ => server::text(StatusCode::NOT_FOUND, "pages: /live /ready /config\n"),
            }
        }
    }));
    let registry = Arc::new(registry);
    tokio::spawn(server::serve(metrics, stop.clone(), move |_| {
        let registry = Arc::clone(&registry);
        async move { server::metrics(&registry) }
    }));
    Ok(())
}

/// Starts and wakes tasks until `stop`, and has them write what would be lost.
async fn manage(
    ctx: &Arc<Context>,
    readiness: &Readiness,
    mut touched: mpsc::Receiver<Touched>,
    stop: &CancellationToken,
) {
    let mut pollers = Pollers::new();
    let mut scan = tokio::time::interval(SCAN_EVERY);
    let (mut settings, mut rejected_told) = (ctx.settings.clone(), None);
    loop {
        cluster_settings::tell_rejected(ctx, &mut rejected_told);
        let change = tokio::select! {
            () = stop.cancelled() => break,
            _ = scan.tick() => None,
            () = all_anew(ctx, &mut settings) => {
                ctx.mailboxes().wake(|_| true);
                None
            }
            change = touched.recv() => change,
        };
        if matches!(
            change,
            None | Some(Touched::Activators | Touched::Everything)
        ) {
            pollers::keep(ctx, &mut pollers);
        }
        if !readiness.missing().is_empty() {
            // A task that saw half a cache would take a missing object for a deleted one.
            continue;
        }
        match change {
            Some(Touched::Workload(namespace, name)) => look_after(ctx, Key { namespace, name }),
            Some(Touched::Label(namespace, label)) => {
                if let Some(mailbox) = ctx.mailboxes().by_label(&namespace, &label) {
                    mailbox.changed.notify_one();
                }
            }
            Some(Touched::Service(namespace, service)) => {
                ctx.mailboxes().wake_of_service(&namespace, &service);
            }
            Some(Touched::Namespace(namespace)) => ctx.mailboxes().wake(|of| of == namespace),
            Some(Touched::Namespaces(namespaces)) => {
                ctx.mailboxes().wake(|of| namespaces.contains(of));
            }
            Some(Touched::Activators | Touched::Workloads) => ctx.mailboxes().wake(|_| true),
            // Who leads what is seen by the election itself.
            Some(Touched::Autoscalers) => {}
            Some(Touched::Everything) => {
                scan_all(ctx);
                ctx.mailboxes().wake(|_| true);
            }
            None => scan_all(ctx),
        }
        ctx.metrics
            .workloads
            .set(i64::try_from(ctx.mailboxes().len()).unwrap_or(i64::MAX));
    }
    unwritten::write_all(ctx).await;
    for (_, poller) in pollers.into_values() {
        poller.abort();
    }
}

/// Returns when every workload must be looked at anew: this replica leads now, or the cluster-wide
/// settings have changed.
///
/// # Cancel safety
/// Safe: what has happened is told by the next call.
async fn all_anew(ctx: &Context, settings: &mut Settings) {
    tokio::select! {
        () = ctx.leadership.began.notified() => {}
        // An error says that the watcher has ended, as it does with the process.
        Ok(()) = settings.changed() => {}
    }
}

fn scan_all(ctx: &Arc<Context>) {
    let (targets, workloads) = (ctx.stores.targets.all(), ctx.stores.workloads.all());
    let targets = targets.iter().map(|t| (t.namespace.clone(), t.id()));
    let workloads = workloads
        .iter()
        .map(|w| (w.namespace().unwrap_or_default(), w.name_any()));
    for (namespace, name) in targets.chain(workloads) {
        // Those that have a task look around by themselves.
        if ctx.mailboxes().get(&namespace, &name).is_none() {
            start(ctx, Key { namespace, name });
        }
    }
}

/// Wakes the task of `key`, or starts one where one is needed.
fn look_after(ctx: &Arc<Context>, key: Key) {
    if let Some(mailbox) = ctx.mailboxes().get(&key.namespace, &key.name) {
        mailbox.changed.notify_one();
    } else {
        start(ctx, key);
    }
}

/// Starts the task of `key`, where one is needed.
fn start(ctx: &Arc<Context>, key: Key) {
    if workload::is_relevant(ctx, &key)
        && let Some(mailbox) = ctx.mailboxes().open(&key)
    {
        tokio::spawn(workload::run(Arc::clone(ctx), key, mailbox));
    }
}
