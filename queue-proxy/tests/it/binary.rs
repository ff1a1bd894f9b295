//! The program's exit codes and commands.

use std::process::Output;

use crate::{harness::soon, program::command};

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
