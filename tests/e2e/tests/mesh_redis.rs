//! A real server of a raw TCP protocol in the mesh, and its own client: Debian's Redis
//! (`scripts/redis-image.sh`).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use lull_e2e::{
    App, Namespace, Workload,
    app::{Port, security_context},
    cluster::call,
    eventually, in_mesh,
};
use serde_json::json;

/// Image of server and client unless `E2E_REDIS_IMAGE` names another.
const IMAGE: &str = "lull-test/redis:dev";
/// Redis' port.
const PORT: u16 = 6379;
/// What the server works out: its answer doesn't depend on what it was told in another life.
const QUESTION: [&str; 4] = ["EVAL", "return redis.sha1hex(ARGV[1])", "0", "lull"];
/// Longest wait for a client's pod to start, ask and end.
const FOLLOW: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_redis_is_woken_by_its_client_s_first_connection_and_answers_as_it_does_awake()
-> anyhow::Result<()> {
    in_mesh("redis", async |namespace| {
        let port = Port {
            name: "redis",
            container: PORT,
            service: PORT,
            app_protocol: Some("tcp"),
            ..Port::http()
        };
        // The queue-proxy dials the pod's address.
        let args = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""];
        let app = App::new("cache")
            .run(&image(), &args)
            .ports([port])
            .annotate("lull.dev/ports", &format!("{PORT}/tcp"));
        let workload = app.deploy_awake(namespace).await?;
        let awake = answer(namespace, "awake", &workload).await?;
        ensure!(awake.len() == 40, "no hash: {awake:?}");

        for client in ["woken", "again"] {
            workload.put_to_sleep().await?;
            let woken = answer(namespace, client, &workload).await?;
            ensure!(woken == awake, "{client}: awake {awake:?}, now {woken:?}");
        }
        Ok(())
    })
    .await
}

fn image() -> String {
    let named = std::env::var("E2E_REDIS_IMAGE").ok();
    let named = named.filter(|name| !name.is_empty());
    named.unwrap_or_else(|| IMAGE.to_owned())
}

/// What redis-cli, in a pod of its own called `name`, says that the server has answered.
async fn answer(namespace: &Namespace, name: &str, workload: &Workload) -> anyhow::Result<String> {
    let (host, port) = (workload.host(), PORT.to_string());
    let mut command = vec!["/usr/bin/redis-cli", "-h", &host, "-p", &port];
    command.extend(QUESTION);
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "client",
                "image": image(),
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                "securityContext": security_context(),
            }],
        },
    }))?;
    let pods: Api<Pod> = namespace.api();
    let params = PostParams::default();
    let created = pods.create(&params, &pod);
    call("create the client", created).await?;
    let code = eventually("the client to end", FOLLOW, async || {
        let pod = call("look at the client", pods.get(name)).await?;
        exit_code(&pod).with_context(|| format!("{:?}", pod.status))
    })
    .await?;
    let path = format!(
        "/api/v1/namespaces/{}/pods/{name}/log?container=client",
        namespace.name
    );
    let said = namespace.cluster.text("GET", &path, Vec::new()).await?;
    ensure!(code == 0, "the client ended with {code}: {said}");
    Ok(said.trim().to_owned())
}

/// Of its one container that is the user's.
fn exit_code(pod: &Pod) -> Option<i32> {
    let all = pod.status.as_ref()?.container_statuses.as_ref()?;
    let client = all.iter().find(|status| status.name == "client")?;
    let over = client.state.as_ref()?.terminated.as_ref()?;
    Some(over.exit_code)
}
