//! Admission: the real API server refuses each wrong annotation, with the webhook's words.

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::PostParams};
use lull_contract::annotations::{PORTS, SCALE};
use lull_e2e::{App, in_namespace};

const WHOLE: &str = "must be a whole number from";
const DURATION: &str = "must be a duration from";
const PERCENT: &str = "must be a number from";
const PORT_LIST: &str = "must be a comma-separated list of different port numbers";

/// Key, wrong value, and the beginning of what is allowed instead.
const WRONG: [(&str, &str, &str); 33] = [
    (SCALE, "yes", "must be \"true\", \"false\" or \"dry-run\""),
    (SCALE, "", "must be \"true\", \"false\" or \"dry-run\""),
    (PORTS, "", PORT_LIST),
    (PORTS, "0", PORT_LIST),
    (PORTS, "http", PORT_LIST),
    (PORTS, "8080,8080", PORT_LIST),
    (PORTS, "70000", PORT_LIST),
    ("lull.dev/min-scale", "-1", WHOLE),
    ("lull.dev/min-scale", "1.5", WHOLE),
    ("lull.dev/max-scale", "many", WHOLE),
    ("lull.dev/max-scale", "99999999999", WHOLE),
    ("lull.dev/initial-scale", "0", WHOLE),
    ("lull.dev/activation-scale", "0", WHOLE),
    ("lull.dev/metric", "cpu", "must be concurrency or rps"),
    ("lull.dev/target", "0", "must be a number of at least 0.01"),
    (
        "lull.dev/target",
        "NaN",
        "must be a number of at least 0.01",
    ),
    ("lull.dev/target-utilization-percentage", "0", PERCENT),
    ("lull.dev/target-utilization-percentage", "70%", PERCENT),
    ("lull.dev/window", "5s", DURATION),
    ("lull.dev/window", "60", DURATION),
    ("lull.dev/window", "2h", DURATION),
    ("lull.dev/panic-window-percentage", "101", PERCENT),
    ("lull.dev/panic-threshold-percentage", "100", PERCENT),
    ("lull.dev/scale-down-delay", "-5s", DURATION),
    (
        "lull.dev/scale-to-zero-pod-retention-period",
        "soon",
        DURATION,
    ),
    (
        "lull.dev/target-burst-capacity",
        "-2",
        "must be -1 (activators always in the path)",
    ),
    ("lull.dev/container-concurrency", "+3", WHOLE),
    ("lull.dev/queue-depth", "0", WHOLE),
    ("lull.dev/timeout", "0s", DURATION),
    ("lull.dev/hold-timeout", "2h", DURATION),
    ("lull.dev/class", "vpa", "must be kpa, hpa or none"),
    (
        "lull.dev/sidecar-cpu-request",
        "-25m",
        "must be a Kubernetes quantity",
    ),
    ("lull.dev/min-scle", "1", "is not a key that Lull knows"),
];

#[tokio::test]
async fn each_wrong_annotation_is_refused() -> anyhow::Result<()> {
    in_namespace("admission", async |namespace| {
        let deployments: Api<Deployment> = namespace.api();
        let fits = App::new("shop");
        created(&deployments, &fits)
            .await
            .context("a right Deployment is refused")?;
        for (key, value, allowed) in WRONG {
            refused(
                &deployments,
                &fits.clone().annotate(key, value),
                &[key, value, allowed],
            )
            .await
            .with_context(|| format!("{key}={value:?}"))?;
        }
        let two = fits.annotate("lull.dev/max-scale", "2");
        let over = two.clone().annotate("lull.dev/min-scale", "3");
        let parts = [
            "lull.dev/min-scale",
            "3",
            "must not be more than lull.dev/max-scale",
        ];
        refused(&deployments, &over, &parts).await?;
        let twice = two
            .annotate("lull.dev/window", "1s")
            .annotate("lull.dev/metric", "cpu");
        let parts = ["lull.dev/window", "1s", "lull.dev/metric", "cpu"];
        refused(&deployments, &twice, &parts)
            .await
            .context("every fault is named at once")
    })
    .await
}

async fn created(deployments: &Api<Deployment>, app: &App) -> anyhow::Result<()> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    deployments.create(&dry_run, &app.deployment()?).await?;
    Ok(())
}

/// Fails unless the API server refuses `app` with a message that has all `parts`.
async fn refused(deployments: &Api<Deployment>, app: &App, parts: &[&str]) -> anyhow::Result<()> {
    let error = match created(deployments, app).await {
        Ok(()) => bail!("it was admitted"),
        Err(error) => error,
    };
    let Some(kube::Error::Api(status)) = error.downcast_ref() else {
        return Err(error.context("not an answer of the API server"));
    };
    for part in parts {
        ensure!(
            status.message.contains(part),
            "{part:?} is not in {:?}",
            status.message
        );
    }
    Ok(())
}
