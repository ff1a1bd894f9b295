//! What may stand next on the command line, as kubectl asks its plugins for it.
//!
//! kubectl calls `kubectl_complete-lull` with the words after `kubectl lull` and reads one candidate
//! a line, then a line with a directive (<https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective>).

use clap::{Arg, Command};

/// What `completions` prints.
pub(crate) const SCRIPT: &str = "#!/bin/sh
# Completes `kubectl lull`: save it as kubectl_complete-lull on the PATH, executable.
exec kubectl lull __complete -- \"$@\"
";

/// No names of files, for there are none to complete.
const NO_FILES: &str = ":4\n";

/// The answer for `words`, of which the last one is unfinished.
pub(crate) fn answer(command: &Command, words: &[String]) -> String {
    let mut text: String = candidates(command, words)
        .into_iter()
        .map(|candidate| candidate + "\n")
        .collect();
    text.push_str(NO_FILES);
    text
}

fn candidates(command: &Command, words: &[String]) -> Vec<String> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let sub = before
        .iter()
        .find_map(|word| command.find_subcommand(word.as_str()));
    let args = || {
        let own = sub.into_iter().flat_map(Command::get_arguments);
        own.chain(command.get_arguments())
    };
    let valued = before
        .last()
        .and_then(|word| args().find(|arg| is_called(arg, word)));
    let all: Vec<String> = match (valued, sub) {
        (Some(arg), _) if arg.get_action().takes_values() => values(arg),
        _ if last.starts_with('-') => flags(args()),
        (_, None) => names(command),
        (_, Some(_)) => Vec::new(),
    };
    let fits = |candidate: &String| {
        let word = candidate.split('\t').next().unwrap_or_default();
        word.starts_with(last)
    };
    all.into_iter().filter(fits).collect()
}

/// Whether `word` is the flag.
fn is_called(arg: &Arg, word: &str) -> bool {
    let long = word.strip_prefix("--");
    let short = word.strip_prefix('-').and_then(|rest| rest.chars().next());
    match long {
        Some(long) => arg.get_long() == Some(long),
        None => short.is_some() && arg.get_short() == short,
    }
}

/// Values that a flag may have, where there are few.
fn values(arg: &Arg) -> Vec<String> {
    let values = arg.get_possible_values();
    values
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect()
}

fn flags<'a>(args: impl Iterator<Item = &'a Arg>) -> Vec<String> {
    args.filter_map(|arg| Some(described(&format!("--{}", arg.get_long()?), arg.get_help())))
        .collect()
}

fn names(command: &Command) -> Vec<String> {
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    visible
        .map(|sub| described(sub.get_name(), sub.get_about()))
        .collect()
}

fn described(word: &str, help: Option<&clap::builder::StyledStr>) -> String {
    match help {
        Some(help) => format!("{word}\t{help}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Args;

    fn complete(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = answer(&Args::command(), &words);
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.pop(), Some(":4"), "{text}");
        let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        lines.into_iter().map(word).collect()
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert_eq!(complete(&["wh"]), ["why"]);
        assert_eq!(complete(&["-n", "web", "sl"]), ["sleep"]);
        assert_eq!(complete(&["on", "--fo"]), ["--force"]);
        assert_eq!(complete(&["why", "--name"]), ["--namespace"]);
        assert_eq!(complete(&["list", "-o", ""]), ["text", "json"]);
        assert_eq!(complete(&["list", "--output", "j"]), ["json"]);
        assert!(complete(&["why", ""]).is_empty());
        assert!(complete(&[""]).contains(&"doctor".to_owned()));
        assert!(!complete(&[""]).contains(&"__complete".to_owned()));
    }

    #[test]
    fn the_script_asks_the_hidden_command() {
        let command = Args::command();
        assert!(command.find_subcommand("__complete").is_some());
        assert!(SCRIPT.contains("__complete -- \"$@\""));
    }
}
