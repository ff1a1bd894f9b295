//! `kubectl lull` as a user has it: the built binary against the cluster.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    App, Namespace, Original,
    background::{PlainClient, Program, Scratch},
    eventually, in_namespace,
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

/// The shortest window.
const WINDOW: (&str, Option<&str>) = ("lull.dev/window", Some("6s"));
/// Longest wait for its end: it waits for an enrolment, a wake or a sleep itself.
const ENDED: Duration = Duration::from_secs(150);
/// Longest wait for what other tests have left to be gone.
const SETTLED: Duration = Duration::from_secs(120);

/// What the binary said, and how it ended.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// The answer, where it ended with `code`.
    fn ended(self, code: i32) -> anyhow::Result<Self> {
        ensure!(self.code == Some(code), "not {code}: {self:?}");
        Ok(self)
    }

    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// The binary with `words`, about the test's namespace.
fn command(namespace: &Namespace, words: &[&str]) -> anyhow::Result<Command> {
    let binary = std::env::var_os("E2E_KUBECTL_LULL").map(PathBuf::from);
    let binary = binary.context("E2E_KUBECTL_LULL must be the path of kubectl-lull")?;
    let mut command = Command::new(binary);
    command.args(words).args(["--namespace", &namespace.name]);
    command.args(["--lull-namespace", &namespace.cluster.lull_namespace]);
    Ok(command)
}

/// Runs it to its end.
async fn lull(namespace: &Namespace, words: &[&str]) -> anyhow::Result<Answer> {
    let mut command = command(namespace, words)?;
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(ENDED, command.output()).await;
    let output = output.with_context(|| format!("{words:?} doesn't end"))??;
    let answer = Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    };
    eprintln!("$ kubectl lull {}\n{}", words.join(" "), answer.stdout);
    Ok(answer)
}

#[tokio::test]
async fn a_workload_is_planned_enrolled_explained_woken_and_given_back() -> anyhow::Result<()> {
    in_namespace("kubectl-lull", async |namespace| {
        let workload = App::plain("shop").deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        let none = lull(namespace, &["list"]).await?.ended(0)?;
        ensure!(none.stdout.contains("runs no workload"), "{none:?}");
        let plan = ["plan", "deploy/shop", "-o", "json"];
        let plan = lull(namespace, &plan).await?.ended(0)?.json()?;
        ensure!(plan["verdict"] == "would-enrol", "{plan}");
        ensure!(
            !original.is_changed(&workload).await?,
            "a plan has changed it"
        );

        workload.annotate(&[WINDOW]).await?;
        lull(namespace, &["on", "deploy/shop"]).await?.ended(0)?;
        workload.enrolled().await?;
        workload.asleep().await?;
        let list = lull(namespace, &["list"]).await?.ended(0)?;
        ensure!(list.stdout.contains("deployment/shop"), "{list:?}");

        let woken = lull(namespace, &["wake", "deploy/shop"]).await?.ended(0)?;
        ensure!(woken.stdout.contains("is awake"), "{woken:?}");
        ensure!(workload.replicas().await? > 0, "not woken");
        let why = lull(namespace, &["why", "deploy/shop", "-o", "json"]).await?;
        let why = why.ended(0)?.json()?;
        ensure!(why["workload"]["targetName"] == "shop", "{why}");
        let slept = lull(namespace, &["sleep", "deploy/shop", "--force"]).await?;
        slept.ended(0)?;
        workload.asleep().await?;
        let history = lull(namespace, &["history", "deploy/shop", "-o", "json"]).await?;
        let history = history.ended(0)?.json()?;
        let entries = history["entries"].as_array().context("no entries")?;
        ensure!(!entries.is_empty(), "{history}");

        lull(namespace, &["off", "deploy/shop"]).await?.ended(0)?;
        workload.annotate(&[(WINDOW.0, None)]).await?;
        eventually("everything to be given back", SETTLED, async || {
            original.given_back(&workload).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_cluster_on_which_all_is_well_passes_the_doctor() -> anyhow::Result<()> {
    in_namespace("doctor", async |namespace| {
        eventually("a doctor without findings", SETTLED, async || {
            let answer = lull(namespace, &["doctor", "-o", "json"]).await?;
            let findings = answer.ended(0)?.json()?["findings"].clone();
            let findings = findings.as_array().context("no findings")?;
            let is_seen = |area: &str| findings.iter().any(|found| found["area"] == area);
            for area in [
                "install",
                "webhook",
                "certificates",
                "permissions",
                "slices",
            ] {
                ensure!(is_seen(area), "nothing about {area}: {findings:?}");
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn how_it_ends_tells_what_was_wrong() -> anyhow::Result<()> {
    in_namespace("exit-codes", async |namespace| {
        let wrong = lull(namespace, &["wake", "deploy/"]).await?.ended(2)?;
        ensure!(wrong.stderr.contains("deploy/NAME"), "{wrong:?}");
        let other = lull(namespace, &["wake", "pod/x"]).await?.ended(1)?;
        ensure!(other.stderr.contains("Lull runs no pod x"), "{other:?}");
        let missing = lull(namespace, &["plan", "deploy/none"]).await?.ended(1)?;
        ensure!(
            missing.stderr.contains("there is no Deployment none"),
            "{missing:?}"
        );
        let plain = App::plain("plain").deploy(namespace).await?;
        let refused = lull(namespace, &["wake", "deploy/plain"]).await?.ended(1)?;
        ensure!(refused.stderr.contains("is not run by Lull"), "{refused:?}");
        let left = lull(namespace, &["off", "deploy/plain"]).await?.ended(0)?;
        ensure!(left.stdout.contains("nothing was changed"), "{left:?}");
        let path = format!("/api/v1/namespaces/{}/services/plain", namespace.name);
        plain.cluster.text("DELETE", &path, Vec::new()).await?;
        let plan = lull(namespace, &["plan", "deploy/plain"]).await?.ended(3)?;
        ensure!(plan.stdout.contains("NoService"), "{plan:?}");
        lull(namespace, &["on", "deploy/plain"]).await?.ended(3)?;
        let object = plain.object_json().await?;
        let annotation = &object["metadata"]["annotations"]["lull.dev/scale"];
        ensure!(annotation.is_null(), "it was changed: {object}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plan_tells_of_a_slice_with_the_name_of_lull_s_own() -> anyhow::Result<()> {
    in_namespace("plan-taken", async |namespace| {
        App::plain("shop").deploy(namespace).await?;
        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
            namespace.name
        );
        let theirs = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "shop-lull" }, "addressType": "IPv4", "endpoints": [],
        });
        namespace.cluster.create(&slices, &theirs).await?;
        let plan = ["plan", "deploy/shop", "-o", "json"];
        let plan = lull(namespace, &plan).await?.ended(3)?.json()?;
        let refusal = &plan["refusals"][0];
        ensure!(
            refusal["reason"] == "NameTaken" && refusal["object"] == "EndpointSlice shop-lull",
            "{plan}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_status_page_is_on_this_machine() -> anyhow::Result<()> {
    in_namespace("ui", async |namespace| {
        let scratch = Scratch::try_new("ui")?;
        let command = command(namespace, &["ui"])?;
        let mut ui = Program::start("kubectl-lull-ui", command, &scratch)?;
        let address = ui.address(&["http://"]).await?;
        let answer = PlainClient::try_new(address)?.get("/workloads").await?;
        ensure!(answer.contains("\"workloads\""), "{answer}");
        ui.stop().await
    })
    .await
}
