//! The program's exit codes and commands.

use std::process::Output;

use lull_process::logging::LogFilter;
use serde_json::Value;

use crate::{
    harness::{get, soon},
    program::{Program, command},
};

async fn queue_proxy(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = command();
    command.args(arguments).envs(env.iter().copied());
    soon(command.output()).await.unwrap()
}

#[tokio::test]
async fn three_faults_are_listed_at_once_and_the_exit_code_is_64() {
    let env = [
        ("QP_PORTS", "8012=8080/udp"),
        ("QP_POD_IP", "10.0.0.7"),
        ("QP_POD_NAMESPACE", "default"),
        ("QP_TIMEOUT", "5"),
    ];
    let output = queue_proxy(&[], &env).await;
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let faults: Vec<&str> = said.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        faults,
        [
            r#"QP_PORTS="8012=8080/udp": must list listen=app/protocol by commas, as in 8012=8080/http,8013=5432/tcp"#,
            "QP_POD_NAME is not set: must be the pod's name",
            r#"QP_TIMEOUT="5": must be a duration above zero such as 90s or 500ms"#,
        ]
    );
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_refused_with_those_that_do() {
    let output = queue_proxy(&["dance"], &[]).await;
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"dance\" is not a command"), "{said}");
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, err)
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let mut program = Program::start(&[("QP_RESPONSE_START_TIMEOUT", "10ms")]).await;
    let shown = said(&program.command(&["log-level"]).await);
    assert_eq!(shown, (Some(0), "info\n".into(), String::new()));
    // A debug line that nobody sees.
    get(program.traffic, "/gate").await;

    let filter = "info,queue_proxy=debug";
    let set = said(&program.command(&["log-level", filter]).await);
    assert_eq!(set, (Some(0), String::new(), String::new()));
    let shown = said(&program.command(&["log-level"]).await);
    assert_eq!(shown.1, format!("{filter}\n"));
    get(program.traffic, "/gate").await;
    let mut levels = Vec::new();
    while levels.last() != Some(&Value::from("DEBUG")) {
        let line = program.logged().await;
        // The app may be found ready at any time.
        if line["fields"]["message"] != "the app is ready" {
            levels.push(line["level"].clone());
        }
    }
    assert_eq!(levels, ["INFO", "DEBUG"], "the change, then the request");
}

#[tokio::test]
async fn a_wrong_log_level_is_refused_with_what_is_allowed_and_changes_nothing() {
    let program = Program::start(&[("QP_LOG", "info")]).await;
    for wrong in ["loud", "", "queue_proxy", "info\ndrain"] {
        let (code, out, err) = said(&program.command(&["log-level", wrong]).await);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{wrong:?}");
        assert!(err.contains(LogFilter::ALLOWED), "{wrong:?}: {err}");
    }
    let shown = said(&program.command(&["log-level"]).await);
    assert_eq!(shown.1, "info\n");
}

#[tokio::test]
async fn where_no_proxy_runs_there_is_no_log_level() {
    let env = [("QP_DRAIN_SOCKET", "lull-test-nobody-there")];
    let (code, _, err) = said(&queue_proxy(&["log-level"], &env).await);
    assert_eq!(code, Some(1));
    assert!(err.contains("no queue-proxy listens"), "{err}");
}

#[tokio::test]
async fn a_wrong_log_level_in_the_environment_is_a_fault() {
    let (code, _, err) = said(&queue_proxy(&[], &[("QP_LOG", "loud")]).await);
    assert_eq!(code, Some(64));
    let fault = format!("QP_LOG=\"loud\": {}", LogFilter::ALLOWED);
    assert!(err.contains(&fault), "{err}");
}
