//! `lull-cluster`: a real Kubernetes cluster on this machine, without Docker.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use lull_cluster::{Components, Families, ImageSpec, Kubernetes, Options, line};

/// A real Kubernetes cluster on this machine, without Docker.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, clap::Args)]
struct Name {
    /// Which cluster; clusters of different names stand side by side.
    #[arg(long, env = "LULL_CLUSTER", default_value = "lull")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install packages and build programs that the cluster needs (once: about 10 minutes).
    Build,
    /// Bring a cluster up, or find it up; prints its kubeconfig's path.
    Up {
        #[command(flatten)]
        cluster: Name,
        /// How many nodes; 0: etcd and the API server alone.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
        nodes: u8,
        /// The API server of the oldest supported Kubernetes, with `--nodes 0` (once: about 5 minutes
        /// more to build).
        #[arg(long)]
        oldest: bool,
        /// Enforce NetworkPolicies (once: about 2 minutes more to build).
        #[arg(long)]
        network_policies: bool,
        /// IPv6 addresses beside the IPv4 ones for nodes, pods and the Services that ask for them.
        #[arg(long)]
        dual_stack: bool,
    },
    /// Install Istio on a running cluster, mutual TLS required (once: about 5 minutes more to build).
    Mesh {
        #[command(flatten)]
        cluster: Name,
    },
    /// Take a cluster away, all of it, in whatever state it is.
    Down {
        #[command(flatten)]
        cluster: Name,
    },
    /// List the clusters.
    Status,
    /// Print the path of a cluster's kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        cluster: Name,
    },
    /// Run a command in a node's network namespace.
    Exec {
        #[command(flatten)]
        cluster: Name,
        /// Which node.
        #[arg(long, default_value_t = 0)]
        node: usize,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Make a process of the cluster stand still.
    Pause {
        #[command(flatten)]
        cluster: Name,
        /// Which process (`kube-apiserver`, `kubelet-n0`, ...).
        component: String,
    },
    /// Make a process that stands still go on.
    Resume {
        #[command(flatten)]
        cluster: Name,
        /// Which process.
        component: String,
    },
    /// Show what a process of the cluster logs.
    Logs {
        #[command(flatten)]
        cluster: Name,
        /// Which process (`kube-apiserver`, `kubelet-n0` or just `kubelet`, ...); none: all.
        component: Option<String>,
        /// Keep showing what comes.
        #[arg(short, long)]
        follow: bool,
    },
    /// Import image tars on every node.
    LoadImage {
        #[command(flatten)]
        cluster: Name,
        /// docker-archive or OCI tars.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make an image tar from plain files, the same bytes for the same files.
    MakeImage(MakeImage),
    /// Print the path of one of the programs, or of a chart or folder of manifests.
    Path {
        /// kubectl, helm, kubernetes, coredns, pause, envoy, hey, cert-manager, cert-manager-chart,
        /// istio-kinds (the file with the definitions of Istio's kinds), or of Knative Serving:
        /// knative-controller, knative-activator, knative-autoscaler, knative-queue, knative-webhook,
        /// knative-manifests, knative-networking-manifests, knative-caching-manifests.
        program: String,
    },
}

#[derive(Debug, clap::Args)]
struct MakeImage {
    /// The image's name with tag.
    image: String,
    /// The docker-archive tar to write.
    out: PathBuf,
    /// The command as a JSON list: '["/app"]'.
    #[arg(long)]
    entrypoint: String,
    /// User, or user:group.
    #[arg(long, default_value = "65532")]
    user: String,
    /// A file and where it lies in the image, SRC:DST.
    #[arg(long = "file", num_args = 1.., value_parser = source_and_target)]
    files: Vec<(PathBuf, String)>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Task::Build => lull_cluster::build().map(drop),
        Task::Up {
            cluster,
            nodes,
            oldest,
            network_policies,
            dual_stack,
        } => {
            let kubernetes = if oldest {
                Kubernetes::Oldest
            } else {
                Kubernetes::Newest
            };
            let families = if dual_stack {
                Families::Dual
            } else {
                Families::Ipv4
            };
            let options = Options {
                name: cluster.name,
                nodes: nodes.into(),
                kubernetes,
                network_policies,
                families,
            };
            line(lull_cluster::up(&options)?.kubeconfig.display());
            Ok(())
        }
        Task::Mesh { cluster } => lull_cluster::mesh(&cluster.name),
        Task::Down { cluster } => lull_cluster::down(&cluster.name),
        Task::Status => status(),
        Task::Kubeconfig { cluster } => {
            line(lull_cluster::find(&cluster.name)?.kubeconfig.display());
            Ok(())
        }
        Task::Exec {
            cluster,
            node,
            words,
        } => exec(&cluster.name, node, &words),
        Task::Pause { cluster, component } => lull_cluster::pause(&cluster.name, &component),
        Task::Resume { cluster, component } => lull_cluster::resume(&cluster.name, &component),
        Task::Logs {
            cluster,
            component,
            follow,
        } => logs(&cluster.name, component.as_deref(), follow),
        Task::LoadImage { cluster, files } => lull_cluster::load_image(&cluster.name, &files),
        Task::MakeImage(image) => make_image(image),
        Task::Path { program } => path(&program),
    }
}

fn status() -> Result<()> {
    line(format_args!(
        "{:<24} {:<5} {:<9} KUBECONFIG",
        "NAME", "NODES", "STATE"
    ));
    for cluster in lull_cluster::status()? {
        let info = cluster.info;
        let state = if cluster.trouble.is_none() {
            "up"
        } else {
            "broken"
        };
        let file = info.kubeconfig.display();
        line(format_args!(
            "{:<24} {:<5} {state:<9} {file}",
            info.name, info.nodes
        ));
        if let Some(trouble) = cluster.trouble {
            line(format_args!("    {trouble}"));
        }
    }
    Ok(())
}

/// Becomes the command, with `KUBECONFIG` set.
fn exec(cluster: &str, node: usize, words: &[String]) -> Result<()> {
    let kubeconfig = lull_cluster::find(cluster)?.kubeconfig;
    let (program, arguments) = words.split_first().context("no command given")?;
    let mut command = lull_cluster::enter(cluster, node, program)?;
    become_it(command.args(arguments).env("KUBECONFIG", kubeconfig))
}

fn logs(cluster: &str, component: Option<&str>, follow: bool) -> Result<()> {
    let info = lull_cluster::find(cluster)?;
    let folder = info.kubeconfig.with_file_name("logs");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.sort();
    if let Some(component) = component {
        let stem = |file: &PathBuf| file.file_stem().map(|s| s.to_string_lossy().into_owned());
        let node = format!("{component}-n");
        files.retain(|file| {
            stem(file).is_some_and(|stem| stem == component || stem.starts_with(&node))
        });
        if files.is_empty() {
            bail!("no log of {component:?} in {}", folder.display());
        }
    }
    let mut tail = Command::new("tail");
    if follow {
        tail.arg("--follow=name");
    } else {
        tail.args(["--lines", "+1"]);
    }
    become_it(tail.args(files))
}

fn make_image(image: MakeImage) -> Result<()> {
    let entrypoint = serde_json::from_str(&image.entrypoint).with_context(|| {
        format!(
            "--entrypoint {:?} is no JSON list of words: '[\"/app\"]'",
            image.entrypoint
        )
    })?;
    let MakeImage {
        image: name,
        user,
        files,
        out,
        ..
    } = image;
    lull_cluster::write_image(
        &ImageSpec {
            name,
            entrypoint,
            user,
            files,
        },
        &out,
    )
}

fn path(program: &str) -> Result<()> {
    let path = match program {
        of_knative if of_knative.starts_with("knative-") => part_of_knative(of_knative)?,
        // No parts of a cluster: who wants them need not wait for one to be built.
        "envoy" => lull_cluster::envoy()?,
        "hey" => lull_cluster::hey()?,
        "cert-manager" => lull_cluster::cert_manager()?.program,
        "cert-manager-chart" => lull_cluster::cert_manager()?.chart,
        "istio-kinds" => lull_cluster::istio_kinds()?,
        part => part_of_cluster(part, lull_cluster::build()?)?,
    };
    line(path.display());
    Ok(())
}

fn part_of_knative(name: &str) -> Result<PathBuf> {
    let mut knative = lull_cluster::knative()?;
    Ok(match name {
        "knative-manifests" => knative.manifests,
        "knative-networking-manifests" => knative.networking_manifests,
        "knative-caching-manifests" => knative.caching_manifests,
        program => match knative.programs.remove(program) {
            Some(path) => path,
            None => bail!(
                "{program:?} is none of {}, knative-manifests, knative-networking-manifests, \
                 knative-caching-manifests",
                knative.programs.into_keys().collect::<Vec<_>>().join(", ")
            ),
        },
    })
}

fn part_of_cluster(name: &str, components: Components) -> Result<PathBuf> {
    Ok(match name {
        "kubectl" => components.kubectl,
        "helm" => components.helm,
        "kubernetes" => components.kubernetes,
        "coredns" => components.coredns,
        "pause" => components.pause,
        other => bail!(
            "{other:?} is none of kubectl, helm, kubernetes, coredns, pause, envoy, hey, \
             cert-manager, cert-manager-chart, istio-kinds, or begins with knative-"
        ),
    })
}

fn become_it(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("can't run {}", command.get_program().to_string_lossy()))
}

fn source_and_target(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((source, target)) if target.starts_with('/') => Ok((source.into(), target.into())),
        _ => Err(format!("{text:?} is not SRC:/DST")),
    }
}
