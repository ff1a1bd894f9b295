//! Bringing a cluster up, as much of it side by side as the order allows:
//!
//! ```text
//! network, cgroups, mounts, files -+- etcd -> API server ---------+- controllers, scheduler, DNS,
//!                                  +- containerd -> pause image --+  kubelet, kube-proxy -> Ready
//! ```
//!
//! Without nodes it ends at the API server.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::build::{self, Components, Kubernetes};
use crate::exec::{checked, poll};
use crate::families::Families;
use crate::image::{ImageSpec, import, write_image};
use crate::network::enter;
use crate::paths::Paths;
use crate::process::{Service, check_running};
use crate::report::{note, step};
use crate::services::{Services, agent_name, dns_service, dns_slice};
use crate::state::{ClusterInfo, Lock, State};
use crate::{cgroup, config, down, mounts, network};

/// How long one part may take. Generous: a loaded machine is slow, a broken part is noticed by its
/// death and not by this.
const LIMIT: Duration = Duration::from_secs(90);

/// What cluster to bring up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name: clusters of different names stand side by side.
    pub name: String,
    /// How many nodes, up to 2; 0: etcd and the API server alone.
    pub nodes: usize,
    /// Of which Kubernetes; the oldest has no nodes.
    pub kubernetes: Kubernetes,
    /// Whether NetworkPolicies are enforced, as many network plugins do and ours doesn't.
    pub network_policies: bool,
    /// Which addresses nodes, pods and Services have.
    pub families: Families,
}

/// Brings a cluster up, or finds that it is up already. One that is there but not healthy is taken
/// down first: its state is disposable.
///
/// # Errors
/// When something is missing, fails or isn't ready in time; what was started stays for a look at its
/// logs until `down`.
pub fn up(options: &Options) -> Result<ClusterInfo> {
    let paths = Paths::try_new(&options.name)?;
    ensure!(
        options.nodes <= 2,
        "a cluster has up to 2 nodes, not {}",
        options.nodes
    );
    ensure!(
        options.nodes == 0 || options.kubernetes == Kubernetes::Newest,
        "the oldest Kubernetes is an API server alone: ask for 0 nodes"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can make network namespaces: sudo?"
    );
    let lock = Lock::cluster(&paths)?;
    if let Some(info) = standing(&paths, options)? {
        return Ok(info);
    }
    // Building takes minutes the first time; nobody waits for this name meanwhile but us.
    let components = build::ensure_for(options.kubernetes)?;
    let agent = options
        .network_policies
        .then(build::ensure_network_policies)
        .transpose()?;
    let start = Instant::now();
    note(format_args!("Bringing up cluster {:?}:", options.name));
    let state = State::allocate(&paths, options)?;
    bring_up(&paths, &state, (&components, agent.as_deref())).with_context(|| {
        let name = &options.name;
        format!("cluster {name:?} is not up; see lull-cluster logs, then lull-cluster down --name {name}")
    })?;
    drop(lock);
    note(format_args!(
        "Up in {:.1} s.",
        start.elapsed().as_secs_f64()
    ));
    Ok(state.info(&paths))
}

/// Gives what a thread gives; a panic in it becomes an error.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a worker thread panicked"))?
}

/// The cluster if it is healthy; else whatever is left of it is taken down.
fn standing(paths: &Paths, options: &Options) -> Result<Option<ClusterInfo>> {
    let Some(state) = State::load(paths)? else {
        if !down::leftovers(&paths.name)?.is_empty() {
            down::take_down(paths)?;
        }
        return Ok(None);
    };
    let Some(trouble) = state.trouble(paths) else {
        let asked = (
            options.nodes,
            options.kubernetes,
            options.families,
            options.network_policies,
        );
        let (nodes, kubernetes, families) = (state.nodes, state.kubernetes, state.families);
        let enforces = state.network_policies;
        if asked != (nodes, kubernetes, families, enforces) {
            let name = &paths.name;
            bail!(
                "cluster {name:?} is up with {nodes} node(s), {kubernetes:?}, {families:?}, NetworkPolicies \
                 enforced: {enforces}; take it down first"
            );
        }
        note(format_args!("Cluster {:?} is up already.", paths.name));
        return Ok(Some(state.info(paths)));
    };
    note(format_args!(
        "Cluster {:?} is broken ({trouble}): taking it down first.",
        paths.name
    ));
    down::take_down(paths)?;
    Ok(None)
}

fn bring_up(
    paths: &Paths,
    state: &State,
    (components, agent): (&Components, Option<&Path>),
) -> Result<()> {
    let services = Services {
        components,
        paths,
        subnet: &state.subnet,
        families: state.families,
    };
    step("network", || {
        network::create(paths, (&state.subnet, state.families), state.nodes)?;
        let mut watched = (0..state.nodes).filter(|_| agent.is_some());
        watched.try_for_each(|node| network::queue_for_agent(paths, node))
    })?;
    let system = step("cgroups, mounts, keys", || {
        let system = cgroup::create(paths, state.nodes)?;
        let dns = state.subnet.node(0);
        (0..state.nodes).try_for_each(|node| mounts::hold(paths, node, &system, &dns))?;
        config::write(paths, state)?;
        Ok(system)
    })?;
    let up = Up {
        paths,
        state,
        services,
        agent,
        system: &system,
    };
    let pause = pause_image(paths, components)?;
    std::thread::scope(|scope| {
        let control_plane = scope.spawn(|| up.control_plane());
        let (up, pause) = (&up, &pause);
        let nodes = (0..state.nodes).map(|node| scope.spawn(move || up.containerd(node, pause)));
        let nodes: Vec<_> = nodes.collect();
        join(control_plane)?;
        nodes.into_iter().try_for_each(join)
    })?;
    if state.nodes == 0 {
        return up.wait_for_namespace("default");
    }
    up.start_the_rest()?;
    up.wait_until_usable()
}

fn pause_image(paths: &Paths, components: &Components) -> Result<PathBuf> {
    let tar = paths.file("pause.tar");
    let spec = ImageSpec {
        name: config::PAUSE_IMAGE.into(),
        entrypoint: vec!["/pause".into()],
        user: "65535:65535".into(),
        files: vec![(components.pause.clone(), "/pause".into())],
    };
    write_image(&spec, &tar)?;
    Ok(tar)
}

/// One run of `up`.
#[derive(Debug, Clone, Copy)]
struct Up<'a> {
    paths: &'a Paths,
    state: &'a State,
    services: Services<'a>,
    /// What enforces NetworkPolicies, where they are enforced.
    agent: Option<&'a Path>,
    /// The cgroup of processes that aren't in pods.
    system: &'a Path,
}

// === impl Up ===

impl Up<'_> {
    fn control_plane(&self) -> Result<()> {
        step("etcd", || {
            self.start(&self.services.etcd())?;
            self.until("etcd", "etcd", || {
                let mut curl = enter(&self.paths.name, 0, "curl")?;
                curl.args(["--silent", "--fail", "http://127.0.0.1:2379/health"]);
                Ok(checked(&mut curl).is_ok())
            })
        })?;
        let api = self.state.api(self.paths);
        step("kube-apiserver", || {
            self.start(&self.services.api_server())?;
            self.until("kube-apiserver", "the API server's certificate", || {
                Ok(config::write_ca(self.paths)?.is_some())
            })?;
            self.until("kube-apiserver", "the API server", || Ok(api.is_ready()))
        })?;
        config::write_kubeconfig(self.paths, api.server())
    }

    fn containerd(&self, node: usize, pause: &Path) -> Result<()> {
        let service = self.services.containerd(node);
        step(&service.name, || {
            self.start(&service)?;
            let socket = self.paths.socket(node);
            self.until(&service.name, "containerd's socket", || {
                Ok(UnixStream::connect(&socket).is_ok())
            })?;
            import(self.paths, node, pause)
        })
    }

    fn start_the_rest(&self) -> Result<()> {
        for node in 0..self.state.nodes {
            self.start(&self.services.kubelet(node))?;
        }
        self.start(&self.services.controller_manager())?;
        self.start(&self.services.scheduler())?;
        for node in 0..self.state.nodes {
            self.start(&self.services.kube_proxy(node))?;
            if let Some(agent) = self.agent {
                self.start(&self.services.agent(agent, node))?;
            }
        }
        self.start(&self.services.coredns())?;
        Ok(())
    }

    /// A cluster is usable when pods can be made, scheduled, started and can look names up.
    fn wait_until_usable(&self) -> Result<()> {
        let api = self.state.api(self.paths);
        let ip = self.state.subnet.node(0);
        step("DNS", || {
            self.wait_for_namespace("kube-system")?;
            api.create("/api/v1/namespaces/kube-system/services", &dns_service())?;
            let slices = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices";
            api.create(slices, &dns_slice(&ip))?;
            self.until("coredns", "CoreDNS", || {
                Ok(TcpStream::connect((&*ip, 53)).is_ok())
            })
        })?;
        step("service accounts", || {
            self.until(
                "kube-controller-manager",
                "the default service account",
                || {
                    let account = api.get("/api/v1/namespaces/default/serviceaccounts/default")?;
                    let ca = api.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")?;
                    Ok(account.status == 200 && ca.status == 200)
                },
            )
        })?;
        for node in 0..self.state.nodes {
            let name = format!("kubelet-n{node}");
            step(&format!("node{node} Ready"), || {
                self.until(&name, "a Ready node", || {
                    Ok(api.unready_nodes(node + 1)?.is_empty())
                })
            })?;
        }
        for node in (0..self.state.nodes).filter(|_| self.agent.is_some()) {
            let name = agent_name(node);
            step(&name, || {
                self.until(&name, "the agent of NetworkPolicies", || {
                    network::is_queue_read(self.paths, node)
                })
            })?;
        }
        // Every part must have survived the start, also those that nothing waits for.
        let names = crate::services::names(self.state.nodes, self.agent.is_some());
        names
            .iter()
            .try_for_each(|name| check_running(self.paths, name))
    }

    /// The API server makes its own namespaces, a moment after it is ready.
    fn wait_for_namespace(&self, name: &str) -> Result<()> {
        let api = self.state.api(self.paths);
        self.until("kube-apiserver", &format!("the namespace {name}"), || {
            Ok(api.get(&format!("/api/v1/namespaces/{name}"))?.status == 200)
        })
    }

    fn start(&self, service: &Service) -> Result<()> {
        service.start(self.paths, self.system).map(drop)
    }

    /// Waits for `done`, but not for a process that has died.
    fn until(&self, process: &str, what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
        poll(what, LIMIT, || {
            check_running(self.paths, process)?;
            Ok(done()?.then_some(()))
        })
    }
}
