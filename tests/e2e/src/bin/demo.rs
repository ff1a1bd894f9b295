//! `make demo`: tells the story of one workload, with figures, on a cluster that has Lull and the
//! sample app's image. A second run takes up what the first left.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use lull_contract::{annotations::SCALE, scaled_workload::State};
use lull_e2e::{
    Agent, App, Cluster, Namespace, Workload, all_answered,
    cluster::call,
    eventually, say, slices,
    timeline::{Observer, Timeline},
};
use sample_app::wire::{ACTIVATOR_HEADER, ProbeAnswer, RunResult, RunSpec};

/// Where the demo lives; it stays there for the person who ran it.
const NAMESPACE: &str = "demo";
/// The workload.
const NAME: &str = "hello";
/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// Callers at once: at 70 % of 100 per pod they want 3 pods.
const CALLERS: u32 = 200;
/// Longest wait for pods and endpoints to follow.
const FOLLOW: Duration = Duration::from_secs(60);

/// Says lines with the time since the demo began.
struct Story {
    began: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let story = Story {
        began: Instant::now(),
    };
    let cluster = Cluster::connect().await?;
    let namespace = Namespace::named(cluster, NAMESPACE).await?;
    let agent = Agent::redeploy(&namespace).await?;
    let workload = opted_in(&story, &namespace).await?;

    story.say("nobody calls; waiting for it to fall asleep (window: 6s)");
    story.progress(&workload, workload.asleep()).await?;
    story.progress(&workload, workload.pods_gone()).await?;
    story.say("asleep: 0 pods, the Service's endpoints are Lull's activators");

    first_request(&story, &agent, &workload).await?;
    load(&story, &agent, &workload).await?;

    story.say("the callers are gone; waiting for sleep");
    let took = story.progress(&workload, workload.asleep()).await?;
    story.say(format!(
        "asleep again: 0 replicas, {:.1} s after the last request",
        took.as_secs_f64()
    ));
    by_hand(&workload);
    Ok(())
}

/// The workload, deployed as a plain one and then opted in, unless an earlier run has.
async fn opted_in(story: &Story, namespace: &Namespace) -> anyhow::Result<Workload> {
    let deployments = namespace.api::<Deployment>();
    let workload = Workload::new(namespace, NAME);
    if call("look for the Deployment", deployments.get_opt(NAME))
        .await?
        .is_none()
    {
        App::plain(NAME).deploy(namespace).await?;
        workload.rolled_out().await?;
        story.say(format!(
            "a plain Deployment \"{NAME}\" with its Service: 1 pod, no sidecar"
        ));
    }
    workload
        .annotate(&[
            (SCALE, Some("true")),
            ("lull.dev/window", Some("6s")),
            ("lull.dev/max-scale", Some("4")),
        ])
        .await?;
    story.say(format!(
        "annotated with {SCALE}=\"true\"; nothing else was changed by hand"
    ));
    story.progress(&workload, workload.enrolled()).await?;
    story.say("enrolled: the pods carry the queue-proxy and the Service points at it by name");
    Ok(workload)
}

async fn first_request(story: &Story, agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let ahead_us = agent.clock_ahead_us().await?;
    let observer = Observer::start(workload).await?;
    story.say("a client in the cluster sends one request to the sleeping Service ...");
    let answer = agent.get(&workload.url("/")).await?;
    let timeline = observer.caught_up(FOLLOW).await?;
    let pod = answer.pod.as_deref().unwrap_or("?");
    story.say(format!(
        "answered with 200 by {pod} in {:.0} ms:",
        answer.ms
    ));
    for line in phases(&answer, timeline, ahead_us) {
        say(line);
    }
    Ok(())
}

/// One line for each phase: when it began to be so, and how long after the one before.
fn phases(answer: &ProbeAnswer, timeline: Timeline, ahead_us: i64) -> Vec<String> {
    let sent_us = answer.started_at_unix_us.cast_signed() - ahead_us;
    let answered_us = answer.answered_at_unix_us.cast_signed() - ahead_us;
    let steps = [
        (
            "held       request sent, an activator holds it",
            Some(sent_us),
        ),
        (
            "patched    /scale 0 -> 1",
            timeline.patched_us.map(u64::cast_signed),
        ),
        (
            "scheduled  the pod has a node",
            timeline.scheduled_us.map(u64::cast_signed),
        ),
        (
            "started    the app's container runs",
            timeline.running_us.map(u64::cast_signed),
        ),
        ("answering  the client has its answer", Some(answered_us)),
    ];
    let ms = |us: i64| sample_app::ms(Duration::from_micros(us.max(0).unsigned_abs()));
    let mut before = sent_us;
    let mut lines = Vec::new();
    for (step, at) in steps {
        let Some(at) = at else {
            lines.push(format!("      {step:<46} not seen"));
            continue;
        };
        let (since_start, since_before) = (ms(at - sent_us), ms(at - before));
        lines.push(format!(
            "      {step:<46} {since_start:>6.0} ms  (+{since_before:.0})"
        ));
        before = before.max(at);
    }
    if let Some(timing) = answer.headers.get(ACTIVATOR_HEADER) {
        lines.push(format!(
            "      the activator itself says: {ACTIVATOR_HEADER}: {timing}"
        ));
    }
    lines
}

async fn load(story: &Story, agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let spec = RunSpec {
        url: workload.url("/?sleep_ms=200"),
        connections: CALLERS,
        seconds: Some(10.0),
        ..RunSpec::default()
    };
    story.say(format!("{CALLERS} callers at once, for 10 s"));
    let run = agent.start(&spec).await?;
    let result = story.progress(workload, run.finished()).await?;
    all_answered(&result)?;
    story.say(told(&result));
    let backends = eventually("only pods behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 2).await
    })
    .await?;
    let second = agent
        .run(&RunSpec {
            seconds: Some(2.0),
            ..spec
        })
        .await?;
    all_answered(&second)?;
    story.say(told(&second));
    story.say(format!(
        "{} pods behind the Service and no activator: {} of the last {} answers came direct",
        backends.pods.len(),
        second.ok - second.via_activator,
        second.ok
    ));
    Ok(())
}

fn told(result: &RunResult) -> String {
    format!(
        "{} requests, {} failed, p50 {:.0} ms, p99 {:.0} ms, from {} pods, {} through an activator",
        result.sent,
        result.failed,
        result.latency_ms.p50,
        result.latency_ms.p99,
        result.by_pod.len(),
        result.via_activator
    )
}

fn by_hand(workload: &Workload) {
    let url = workload.url("/");
    say(format!(
        "\nTry it by hand (KUBECONFIG as for this demo):\n  \
         kubectl get sw -A -w                      # mode, state, ready, desired, in flight, why\n  \
         kubectl -n {NAMESPACE} get pods,endpointslices\n  \
         kubectl -n {NAMESPACE} get events --field-selector involvedObject.name={NAME}\n  \
         echo '{{\"url\":\"{url}\"}}' | kubectl create -f - --raw \\\n    \
         /api/v1/namespaces/{NAMESPACE}/pods/agent:8080/proxy/probe    # one request, from inside\n  \
         kubectl -n {NAMESPACE} annotate deployment {NAME} {SCALE}-      # Lull lets go of it\n\
         Take it down: make demo-down"
    ));
}

// === impl Story ===

impl Story {
    fn say(&self, line: impl AsRef<str>) {
        let clock = jiff::Timestamp::now().strftime("%H:%M:%S");
        let since = self.began.elapsed().as_secs_f64();
        say(format!("{clock} UTC {since:>5.1}s  {}", line.as_ref()));
    }

    /// Waits for `future` and says every 2 s how the workload is.
    async fn progress<T>(
        &self,
        workload: &Workload,
        future: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::pin!(future);
        let mut ticks = tokio::time::interval(PROGRESS);
        ticks.tick().await;
        loop {
            tokio::select! {
                ended = &mut future => return ended,
                _ = ticks.tick() => {
                    let line = progress_line(workload).await;
                    self.say(format!("  ... {line}"));
                }
            }
        }
    }
}

async fn progress_line(workload: &Workload) -> String {
    let status = match workload.scaled().await {
        Ok(scaled) => scaled.and_then(|scaled| scaled.status).unwrap_or_default(),
        Err(error) => return format!("{error:#}"),
    };
    let pods = workload.pods().await.map_or(0, |pods| pods.len());
    let going = if status.state == State::Asleep && pods > 0 {
        " (still ending)"
    } else {
        ""
    };
    format!(
        "{} pods{going}, {} ready, {} in flight, {}: {}",
        pods, status.ready, status.in_flight, status.state, status.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_time_since_the_request_and_since_the_phase_before() {
        let answer = ProbeAnswer {
            started_at_unix_us: 1_000_000,
            answered_at_unix_us: 1_700_000,
            ..ProbeAnswer::default()
        };
        let timeline = Timeline {
            patched_us: Some(1_012_000),
            scheduled_us: Some(1_030_000),
            running_us: Some(1_600_000),
            ..Timeline::default()
        };
        let lines = phases(&answer, timeline, 0);
        assert!(lines[1].contains("12 ms  (+12)"), "{lines:?}");
        assert!(lines[3].contains("600 ms  (+570)"), "{lines:?}");
        assert!(lines[4].contains("700 ms  (+100)"), "{lines:?}");
        assert!(phases(&answer, Timeline::default(), 0)[1].ends_with("not seen"));
    }
}
