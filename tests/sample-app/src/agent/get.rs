//! One request, for a person: what the documentation's examples call a workload with.

use anyhow::ensure;

use super::probe::probe;
use crate::wire::{ProbeAnswer, ProbeSpec};

/// Says how long the request was held, and for what.
const SERVER_TIMING: &str = "server-timing";

/// What is asked for, once.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    /// `http://host:port/path`.
    pub url: String,
}

/// Sends one GET and says what came back.
///
/// # Errors
/// Where the answer is neither 2xx nor 3xx, or none came.
pub async fn get(args: &GetArgs) -> anyhow::Result<()> {
    let spec = ProbeSpec {
        url: args.url.clone(),
        ..ProbeSpec::default()
    };
    let answer = Box::pin(probe(&spec)).await;
    let text = told(&answer);
    ensure!(answer.ok, "{text}");
    #[expect(
        clippy::print_stdout,
        reason = "the answer is for the person who asked"
    )]
    {
        println!("{text}");
    }
    Ok(())
}

/// The answer in a line, and where the time went in another, where the answer says so.
fn told(answer: &ProbeAnswer) -> String {
    let what = match (answer.status, &answer.error) {
        (Some(status), _) => status.to_string(),
        (None, error) => error.as_deref().unwrap_or("no answer").to_owned(),
    };
    let pod = answer.pod.as_deref();
    let pod = pod.map_or_else(String::new, |pod| format!(" from {pod}"));
    let timing = answer.headers.get(SERVER_TIMING);
    let timing = timing.map_or_else(String::new, |timing| format!("\n{SERVER_TIMING}: {timing}"));
    format!("{what}{pod} in {:.0} ms{timing}", answer.ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_its_pod_and_its_phases() {
        let mut answer = ProbeAnswer {
            status: Some(200),
            pod: Some("hello-1".to_owned()),
            ms: 612.4,
            ..ProbeAnswer::default()
        };
        assert_eq!(told(&answer), "200 from hello-1 in 612 ms");
        let timing = ("server-timing".to_owned(), "hold;dur=600".to_owned());
        answer.headers.extend([timing]);
        assert_eq!(
            told(&answer),
            "200 from hello-1 in 612 ms\nserver-timing: hold;dur=600"
        );
    }

    #[test]
    fn no_answer_is_told_with_its_cause() {
        let answer = ProbeAnswer {
            error: Some("connection refused".to_owned()),
            ..ProbeAnswer::default()
        };
        assert_eq!(told(&answer), "connection refused in 0 ms");
    }
}
