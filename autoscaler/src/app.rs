//! Assembly: watches, leadership, one poller per activator, one task per workload, admin pages.

mod pollers;

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use http::StatusCode;
use kube::{Client, ResourceExt};
use lull_cluster_settings::{Settings, Watcher};
use lull_process::{readiness::Readiness, server, shutdown};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use self::pollers::Pollers;
use crate::{
    absence, allocate, cluster_settings,
    config::Args,
    context::{Context, Key, Mailbox, Parts},
    crash::Crash,
    lease::{Election, Leadership},
    machine::Delays,
    metrics::Metrics,
    page, panics,
    stores::{Changes, OnTouched, Stores, Teller, Touched, Watched},
    unwritten, workload,
};

/// How often everything is looked at, whatever the watches said.
const SCAN_EVERY: Duration = Duration::from_secs(5);

/// Runs the controller until SIGTERM.
///
/// # Errors
/// Where a port is taken or the cluster's address is unknown, and where a task has ended without which
/// nothing can be decided: Kubernetes begins the process anew.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let client = lull_kubernetes::connect()
        .await
        .context("no access to a Kubernetes API server")?;
    let (readiness, mut registry) = (Readiness::default(), Registry::default());
    let metrics = Metrics::register(&mut registry);
    let rejected = metrics.settings_rejected.clone();
    let settings_map = (args.namespace.as_str(), args.settings.as_str());
    let (watcher, settings) = Watcher::new(&client, settings_map, &readiness, rejected);
    let changes = Arc::new(Changes::default());
    let added = Arc::clone(&changes);
    let on_touched: OnTouched = Arc::new(move |touched| added.add(touched));
    let vital = |name: &str| Teller::new(name, &on_touched);
    vital("settings").spawn(watcher.run(stop.clone()));
    let crash = Crash::new(args.crash_on_request);
    let shown = (args.clone(), settings.clone(), crash.clone());
    spawn_admin(shown, &stop, &readiness, registry, &on_touched).await?;

    let stores = start_stores(&args, (&client, &metrics), &readiness, &on_touched);
    metrics.shards.set(args.shards.count().into());
    let leadership = Leadership::new(args.shards);
    let election = election(&args, (&client, &stores), &readiness, &metrics);
    let leases_end = CancellationToken::new();
    let leases = leadership.clone().run(election, leases_end.clone());
    let leases = vital("leases").spawn(leases);
    let ctx = Arc::new(Context::new(Parts {
        client,
        stores,
        leadership,
        settings,
        metrics,
        delays: delays(&args),
        activator_ports: args.activator_ports.clone(),
        reporter: args.pod_name.clone(),
        lull: args.components(),
        name_callers: args.name_callers,
        crash,
    }));
    let selector = args.activator_selector.clone();
    let watch = absence::watch(Arc::clone(&ctx), selector, readiness.clone(), stop.clone());
    vital("absence").spawn(watch);
    let shown = page::spawn(&ctx, &args, &stop).await;
    shown.context("status page port")?;
    let ended = manage(&ctx, &readiness, &changes, &stop).await;
    // Also where this process has failed: another replica leads at once.
    leases_end.cancel();
    leases.await.context("the leases' task failed")?;
    if let Some(task) = ended {
        bail!("the task {task:?} has ended, and nothing can be decided without it");
    }
    Ok(())
}

fn start_stores(
    args: &Args,
    (client, metrics): (&Client, &Metrics),
    readiness: &Readiness,
    on_touched: &OnTouched,
) -> Stores {
    let watched = Watched {
        namespace: &args.namespace,
        activators: &args.activator_selector,
        autoscalers: &args.peers,
        targets: &args.targets.0,
        namespaces: &args.namespaces.clone().beside(&args.namespace),
        mesh: &args.mesh_options(),
        unread: &metrics.unread,
    };
    Stores::start(client, &watched, readiness, on_touched)
}

fn delays(args: &Args) -> Delays {
    Delays {
        propagation: args.propagation_delay.0,
        wake_deadline: args.wake_deadline.0,
        ..Delays::default()
    }
}

fn election(
    args: &Args,
    (client, stores): (&Client, &Stores),
    readiness: &Readiness,
    metrics: &Metrics,
) -> Election {
    Election {
        client: client.clone(),
        namespace: args.namespace.clone(),
        identity: args.pod_name.clone(),
        replicas: stores.autoscalers.clone(),
        readiness: readiness.clone(),
        held: metrics.shards_held.clone(),
    }
}

async fn spawn_admin(
    (args, settings, crash): (Args, Settings, Crash),
    stop: &CancellationToken,
    readiness: &Readiness,
    registry: Registry,
    on_touched: &OnTouched,
) -> anyhow::Result<()> {
    let admin = server::bind(args.admin_port).await.context("admin port")?;
    let metrics = server::bind(args.metrics_port)
        .await
        .context("metrics port")?;
    let readiness = readiness.clone();
    let admin = server::serve(admin, stop.clone(), move |request| {
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
    });
    Teller::new("admin", on_touched).spawn(admin);
    let registry = Arc::new(registry);
    let metrics = server::serve(metrics, stop.clone(), move |_| {
        let registry = Arc::clone(&registry);
        async move { server::metrics(&registry) }
    });
    Teller::new("metrics", on_touched).spawn(metrics);
    Ok(())
}

/// Starts and wakes tasks until `stop`, and has them write what would be lost; or until a vital task has
/// ended, whose name is returned.
async fn manage(
    ctx: &Arc<Context>,
    readiness: &Readiness,
    changes: &Changes,
    stop: &CancellationToken,
) -> Option<String> {
    let mut pollers = Pollers::new();
    let mut scan = tokio::time::interval(SCAN_EVERY);
    let (mut settings, mut rejected_told) = (ctx.settings.clone(), None);
    let ended = loop {
        cluster_settings::tell_rejected(ctx, &mut rejected_told);
        let (touched, is_scan) = tokio::select! {
            () = stop.cancelled() => break None,
            _ = scan.tick() => (HashSet::new(), true),
            () = all_anew(ctx, &mut settings) => (HashSet::from([Touched::Everything]), false),
            touched = changes.take() => (touched, false),
        };
        // With `stop` they end as they should.
        let ended = touched.iter().find_map(Touched::ended);
        if let Some(name) = ended.filter(|_| !stop.is_cancelled()) {
            break Some(name.to_owned());
        }
        if is_scan || touched.iter().any(Touched::is_of_activators) {
            pollers::keep(ctx, &mut pollers);
        }
        if !readiness.missing().is_empty() {
            // A task that saw half a cache would take a missing object for a deleted one. There is
            // none yet, and the scan starts them all.
            continue;
        }
        if is_scan {
            scan_all(ctx);
        }
        for touched in touched {
            tell(ctx, touched);
        }
        ctx.metrics
            .workloads
            .set(i64::try_from(ctx.mailboxes().len()).unwrap_or(i64::MAX));
    };
    if ended.is_none() {
        unwritten::write_all(ctx).await;
    }
    for (_, poller) in pollers.into_values() {
        poller.abort();
    }
    ended
}

/// Wakes, or starts, the tasks of the workloads that were touched.
fn tell(ctx: &Arc<Context>, touched: Touched) {
    let mailboxes = ctx.mailboxes();
    match touched {
        Touched::Workload(namespace, name) => look_after(ctx, Key { namespace, name }),
        Touched::Label(namespace, label) => {
            if let Some(mailbox) = mailboxes.by_label(&namespace, &label) {
                mailbox.changed.notify_one();
            }
        }
        Touched::Service(namespace, service) => mailboxes.wake_of_service(&namespace, &service),
        Touched::Namespace(namespace) => mailboxes.wake(|of| of == namespace),
        Touched::Namespaces(namespaces) => mailboxes.wake(|of| namespaces.contains(of)),
        Touched::Activators | Touched::Workloads => mailboxes.wake(|_| true),
        // Who leads what is seen by the election itself.
        Touched::Autoscalers | Touched::Ended(_) => {}
        Touched::Everything => {
            scan_all(ctx);
            mailboxes.wake(|_| true);
        }
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
    allocate::observe(ctx, &workloads);
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
        tokio::spawn(run_workload(Arc::clone(ctx), key, mailbox));
    }
}

/// Looks after the workload `key`, whatever its task panics on.
async fn run_workload(ctx: Arc<Context>, key: Key, mailbox: Arc<Mailbox>) {
    let mut first = Some(mailbox);
    let begin = || {
        // What was known may be what it has panicked on: the next one hears everything anew.
        let mailbox = first.take();
        let mailbox = mailbox.unwrap_or_else(|| ctx.mailboxes().renew(&key));
        Box::pin(workload::run(Arc::clone(&ctx), key.clone(), mailbox))
    };
    let tell = |panic: &str, pause: Duration| {
        ctx.metrics.panics.inc();
        tracing::error!(
            workload = %key, panic, ?pause,
            "the workload's task has failed: it begins anew"
        );
    };
    panics::begun_anew(begin, tell).await;
}
