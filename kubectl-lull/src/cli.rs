//! Command line.

use std::{borrow::Cow, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use lull_contract::HumanDuration;

use crate::name::WorkloadName;

/// Where Lull is where nobody says it.
const LULL_NAMESPACE: &str = "lull-system";

/// Lull's workloads: what sleeps, why, and what stands in the way.
#[derive(Debug, Clone, Parser)]
#[command(name = "kubectl lull", bin_name = "kubectl lull", version)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where, and how it is said.
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Where, and how it is said.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Access {
    /// Namespace of the workload; else that of the kubeconfig's context.
    #[arg(short, long, global = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig; else its current one.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Kubeconfig; else KUBECONFIG, then ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace of Lull itself.
    #[arg(
        long,
        env = "LULL_NAMESPACE",
        default_value = LULL_NAMESPACE,
        global = true,
        value_name = "NAMESPACE",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) lull_namespace: String,
    /// Text for people, or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) output: Format,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// What can be asked for.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Show the workloads that Lull runs.
    List(ListArgs),
    /// Say what enrolment would do with a workload and what stands in its way; changes nothing.
    Plan(Which),
    /// Let Lull run a workload.
    On(OnArgs),
    /// Give a workload back as it was.
    Off(OffArgs),
    /// Say why a workload is awake or asleep, who keeps it awake, and who woke it.
    Why(Which),
    /// Wake a workload now.
    Wake(WakeArgs),
    /// Put a workload to sleep now, where nobody uses it.
    Sleep(SleepArgs),
    /// Show when a workload's count changed, and why.
    History(Which),
    /// Look for what is wrong with Lull on this cluster, each with its fix.
    Doctor,
    /// Open the status page here until Ctrl-C.
    Ui(UiArgs),
    /// Print the script that completes `kubectl lull`: save it as `kubectl_complete-lull` on the PATH.
    Completions,
    /// Say what may stand next; for the script of `completions`.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// Words after `kubectl lull`, the last one unfinished.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// One workload.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// deploy/NAME, sts/NAME or GROUP/VERSION/PLURAL/NAME, or as `list` shows it; NAME alone is a Deployment.
    pub(crate) workload: WorkloadName,
}

/// Of `list`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ListArgs {
    /// Those of every namespace.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

/// Whether and how long a command waits for what it has asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wait {
    /// Don't wait until it is so.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Longest wait.
    #[arg(long, default_value = "5m", value_name = "DURATION")]
    pub(crate) timeout: HumanDuration,
}

/// Of `on`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OnArgs {
    /// Which workload.
    #[command(flatten)]
    pub(crate) which: Which,
    /// Also where something stands in the way: Lull enrols it when that has gone.
    #[arg(long)]
    pub(crate) force: bool,
    /// How long it waits.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Of `off`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OffArgs {
    /// Which workload.
    #[command(flatten)]
    pub(crate) which: Which,
    /// How long it waits.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Of `wake`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WakeArgs {
    /// Which workload.
    #[command(flatten)]
    pub(crate) which: Which,
    /// Pods to start; else as many as a request would.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replicas: Option<u32>,
    /// How long it waits.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Of `sleep`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SleepArgs {
    /// Which workload.
    #[command(flatten)]
    pub(crate) which: Which,
    /// Also with requests in flight, or where it can't be told whether there are any.
    #[arg(long)]
    pub(crate) force: bool,
    /// How long it waits.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Of `ui`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct UiArgs {
    /// Port on this machine; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}

// === impl Access ===

impl Access {
    /// The flags by which another command means the same cluster and the same Lull, each with a space
    /// before it; the namespace of the workload is not among them.
    pub(crate) fn again(&self) -> String {
        let file = self.kubeconfig.as_ref().map(|path| path.to_string_lossy());
        let lull = Some(self.lull_namespace.as_str()).filter(|name| *name != LULL_NAMESPACE);
        let flags = [
            ("--kubeconfig", file),
            ("--context", self.context.as_deref().map(Cow::from)),
            ("--lull-namespace", lull.map(Cow::from)),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value?)));
        given
            .map(|(flag, value)| format!(" {flag} {}", quoted(&value)))
            .collect()
    }
}

/// `word` as a shell reads it as one.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use lull_process::docs;

    use super::*;

    /// What the documentation's tables are compared with.
    const MANUAL: &str = include_str!("../../docs/kubectl-lull.md");

    fn documented(section: &str, column: &str) -> BTreeSet<String> {
        let rows = docs::table(MANUAL, section);
        let first = |row: &docs::Row| {
            let words = docs::quoted(row.get(column)?);
            words.first()?.split(' ').next().map(str::to_owned)
        };
        rows.iter().filter_map(first).collect()
    }

    #[test]
    fn the_manual_has_every_command_and_no_other() {
        let command = Args::command();
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let names: BTreeSet<String> = visible.map(|sub| sub.get_name().to_owned()).collect();
        assert_eq!(documented("Commands", "command"), names);
    }

    #[test]
    fn the_manual_has_every_flag_of_all_commands() {
        let command = Args::command();
        let long = command.get_arguments().filter(|arg| arg.is_global_set());
        let flags: BTreeSet<String> = long
            .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
            .collect();
        assert_eq!(documented("Flags of every command", "flag"), flags);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_namespace_without_a_name_is_no_namespace() {
        // As a script writes it whose variable is not set.
        for flag in ["--namespace", "--lull-namespace"] {
            let wrong = Args::try_parse_from(["kubectl-lull", "list", flag, ""]).unwrap_err();
            assert_eq!(wrong.exit_code(), 2, "{wrong}");
            assert!(wrong.to_string().contains(flag), "{wrong}");
        }
    }

    #[test]
    fn a_command_that_is_proposed_means_the_same_cluster() {
        let again = |words: &[&str]| {
            let command = ["kubectl-lull", "plan", "shop", "--lull-namespace"];
            let args = Args::try_parse_from(command.iter().chain(words)).unwrap();
            args.access.again()
        };
        assert_eq!(again(&["lull-system", "-n", "web"]), "");
        let context = "arn:aws:eks:eu-west-1:1:cluster/web";
        let file = "some 'kube' config";
        assert_eq!(
            again(&["lull", "--context", context, "--kubeconfig", file]),
            format!(
                r" --kubeconfig 'some '\''kube'\'' config' --context {context} --lull-namespace lull"
            )
        );
    }

    #[test]
    fn flags_may_stand_before_and_behind_the_command() {
        for words in [
            ["kubectl-lull", "-n", "web", "why", "deploy/shop"],
            ["kubectl-lull", "why", "deploy/shop", "-n", "web"],
        ] {
            let args = Args::try_parse_from(words).unwrap();
            assert_eq!(args.access.namespace.as_deref(), Some("web"));
            assert_eq!(args.access.output, Format::Text);
        }
        let wrong = Args::try_parse_from(["kubectl-lull", "wake", "deploy/"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2, "{wrong}");
        assert!(wrong.to_string().contains("deploy/NAME"), "{wrong}");
    }
}
