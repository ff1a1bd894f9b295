//! A reader of the documentation, who types its commands into a shell.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{
    Cluster,
    background::Scratch,
    book::{self, Block},
    command,
};

/// Longest time of one block, seconds: its own waits end before.
const LONGEST: &str = "600";
/// Programs that a reader has, by the variables with their paths.
const PROGRAMS: [&str; 3] = ["E2E_KUBECTL", "E2E_KUBECTL_LULL", "E2E_HELM"];
/// The reader has it in the home folder.
const NO_KUBECONFIG: &str = "KUBECONFIG=";
/// Namespace in which the documentation has Lull.
const LULL_NAMESPACE: &str = "lull-system";
/// The values of the reader's own installation, as the documentation names them; here they are at home.
const VALUES: &str = "your-values.yaml";
/// How the documentation names the namespace of its workload where it has to.
const OF_THE_WORKLOAD: [&str; 2] = ["-n shop", "namespace: shop"];

/// A shell in the repository, with a home of its own.
#[derive(Debug)]
pub struct Reader {
    home: Scratch,
    root: PathBuf,
    path: String,
    /// Whose workload it is that the documentation speaks of.
    namespace: String,
    lull_namespace: String,
}

// === impl Reader ===

impl Reader {
    /// One whose kubectl is in `namespace` unless a command says otherwise. `E2E_KUBECTL` names kubectl,
    /// `E2E_KUBECTL_LULL` and `E2E_HELM` the others where they are needed.
    ///
    /// # Errors
    /// Where there is no kubectl or no cluster.
    pub async fn try_new(cluster: &Cluster, namespace: &str) -> anyhow::Result<Self> {
        let kubectl = env::var_os("E2E_KUBECTL");
        ensure!(kubectl.is_some(), "E2E_KUBECTL must be the path of kubectl");
        let reader = Self {
            home: Scratch::try_new("reader")?,
            root: book::root().canonicalize()?,
            path: path(),
            namespace: namespace.to_owned(),
            lull_namespace: cluster.lull_namespace.clone(),
        };
        let kubeconfig = "mkdir -p ~/.kube ~/.local/bin
            kubectl config view --raw --minify --flatten >~/.kube/config";
        let context = "kubectl config set-context --current --namespace";
        reader.shell(&[&own_kubeconfig()], kubeconfig).await?;
        reader
            .shell(&[NO_KUBECONFIG], &format!("{context} {namespace}"))
            .await?;
        Ok(reader)
    }

    /// Types the commands of blocks; the first that fails ends them.
    ///
    /// # Errors
    /// Of that one, with its block.
    pub async fn types(&self, blocks: &[Block]) -> anyhow::Result<()> {
        for block in blocks {
            let typed = self.run(&block.commands()).await;
            typed.with_context(|| format!("the block at line {}", block.line))?;
        }
        Ok(())
    }

    /// Runs commands as they stand in the documentation; the first that fails ends them.
    ///
    /// # Errors
    /// Of that one.
    pub async fn run(&self, commands: &str) -> anyhow::Result<()> {
        let commands = self.here(commands);
        self.shell(&[NO_KUBECONFIG], &commands).await
    }

    /// The commands with the names that things have on this cluster.
    fn here(&self, commands: &str) -> String {
        let mut commands = commands.replace(LULL_NAMESPACE, &self.lull_namespace);
        for named in OF_THE_WORKLOAD {
            let here = named.replace("shop", &self.namespace);
            commands = commands.replace(named, &here);
        }
        commands.replace(VALUES, &format!("~/{VALUES}"))
    }

    async fn shell(&self, variables: &[&str], commands: &str) -> anyhow::Result<()> {
        let root = self.root.display().to_string();
        let home = format!("HOME={}", self.home.path().display());
        let place = ["-C", root.as_str(), home.as_str(), self.path.as_str()];
        let limited = ["timeout", "--kill-after=10", LONGEST];
        let bash = ["bash", "-euo", "pipefail", "-c", commands];
        let args = [&place[..], variables, &limited[..], &bash[..]].concat();
        command::run("env", &args).await
    }
}

/// The kubeconfig that the suite has, which the reader's home would hide.
fn own_kubeconfig() -> String {
    let named = env::var("KUBECONFIG").ok().filter(|path| !path.is_empty());
    let home = || env::var("HOME").unwrap_or_default();
    let path = named.unwrap_or_else(|| format!("{}/.kube/config", home()));
    format!("KUBECONFIG={path}")
}

/// `PATH` with the suite's programs first.
fn path() -> String {
    let named = PROGRAMS.iter().filter_map(env::var_os).map(PathBuf::from);
    let folders = named.filter_map(|program| program.parent().map(Path::to_owned));
    let folders: Vec<_> = folders
        .map(|folder| folder.display().to_string())
        .chain(env::var("PATH"))
        .collect();
    format!("PATH={}", folders.join(":"))
}
