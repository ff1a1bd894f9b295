//! Running other programs and waiting for things, with errors that say what was tried.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at again. Short, because start-up time is what users feel.
const POLL: Duration = Duration::from_millis(50);

/// Runs `program` with `line` split at blanks and gives its stdout.
///
/// # Errors
/// When it can't be started or doesn't exit with 0; the error carries its stderr.
pub(crate) fn run(program: &str, line: &str) -> Result<String> {
    checked(Command::new(program).args(line.split_whitespace()))
}

/// Runs a prepared command and gives its stdout.
///
/// # Errors
/// As for [`run`].
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {}", shown(command)))?;
    stdout_of(command, &output)
}

/// Runs a prepared command with `input` on its stdin and gives its stdout.
///
/// # Errors
/// As for [`run`].
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", shown(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input)
            .with_context(|| format!("can't feed {}", shown(command)))?;
    }
    let output = child.wait_with_output()?;
    stdout_of(command, &output)
}

/// True if `program` is an executable file in `PATH`.
pub(crate) fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Looks every 50 ms until `probe` gives a value.
///
/// # Errors
/// When `limit` is over, naming `what`, or as soon as `probe` fails.
pub(crate) fn poll<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("{what}: not there after {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

fn stdout_of(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_shows_its_line_and_stderr() {
        let error = run("ls", "/no/such/folder").unwrap_err().to_string();
        assert!(error.contains("ls /no/such/folder"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(fed(&mut Command::new("cat"), b"hello").unwrap(), "hello");
    }

    #[test]
    fn a_poll_that_never_comes_names_what_it_waited_for() {
        let error = poll::<()>("the moon", Duration::ZERO, || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
