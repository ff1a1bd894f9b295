//! A whole life of a real cluster, with a crash in it. Needs root; run with
//! `cargo test -p lull-cluster --features cluster-tests`.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lull_cluster::{
    Families, ImageSpec, Kubernetes, Options, build, down, load_image, up, write_image,
};

/// Takes the cluster down even when the test fails.
struct Cluster(String);

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", down(&self.0));
        }
    }
}

#[test]
fn a_crashed_cluster_goes_away_without_a_trace() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes namespaces: run it as root"
    );
    let cluster = Cluster(format!("lifecycle-{}", std::process::id()));
    let name = &cluster.0;
    let options = Options {
        name: name.clone(),
        nodes: 2,
        kubernetes: Kubernetes::Newest,
        network_policies: false,
        families: Families::Ipv4,
    };
    let info = up(&options).unwrap();

    let kubectl = |line: &str| kubectl(&info.kubeconfig, line);
    let ready = "get nodes -o jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(kubectl(ready), "True True");
    a_pod_runs_on_each_node(name, &info.kubeconfig);

    let start = Instant::now();
    assert_eq!(up(&options).unwrap().kubeconfig, info.kubeconfig);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "a second up took {:?}",
        start.elapsed()
    );

    let state = info.kubeconfig.parent().unwrap();
    for process in [
        "kube-apiserver",
        "kubelet-n0",
        "containerd-n0",
        "containerd-n1",
    ] {
        kill(&state.join("pids").join(process));
    }
    down(name).unwrap();
    assert_eq!(traces(name, state), Vec::<String>::new());
    down(name).unwrap();
}

#[test]
fn a_half_made_cluster_goes_away_too() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes namespaces: run it as root"
    );
    let name = format!("half-{}", std::process::id());
    run("ip", &["netns", "add", &format!("lull-{name}")]);
    fs::create_dir(format!("/sys/fs/cgroup/pids/lull-{name}"))
        .or_else(|_| fs::create_dir(format!("/sys/fs/cgroup/lull-{name}")))
        .unwrap();
    down(&name).unwrap();
    assert_eq!(
        traces(&name, Path::new("/no/such/state")),
        Vec::<String>::new()
    );
}

/// Two pods, one a node, made of nothing but the pause program.
fn a_pod_runs_on_each_node(cluster: &str, kubeconfig: &Path) {
    let tar = std::env::temp_dir().join(format!("{cluster}.tar"));
    let image = ImageSpec {
        name: "localhost/idle:1".into(),
        entrypoint: vec!["/idle".into()],
        user: "65532".into(),
        files: vec![(build().unwrap().pause, "/idle".into())],
    };
    write_image(&image, &tar).unwrap();
    load_image(cluster, std::slice::from_ref(&tar)).unwrap();
    fs::remove_file(tar).unwrap();
    for node in ["node0", "node1"] {
        let place = format!(r#"{{"spec":{{"nodeName":"{node}"}}}}"#);
        let line = format!("run idle-{node} --image=localhost/idle:1 --overrides={place}");
        kubectl(kubeconfig, &line);
    }
    kubectl(
        kubeconfig,
        "wait --for=condition=Ready --timeout=60s pod/idle-node0 pod/idle-node1",
    );
}

fn kubectl(kubeconfig: &Path, line: &str) -> String {
    let program = build().unwrap().kubectl;
    let mut command = Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(line.split(' '));
    let output = command.output().unwrap();
    assert!(output.status.success(), "kubectl {line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn kill(pid_file: &Path) {
    let text = fs::read_to_string(pid_file).unwrap();
    run("kill", &["-KILL", text.split(' ').next().unwrap()]);
}

fn run(program: &str, arguments: &[&str]) {
    assert!(
        Command::new(program)
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

/// Everything on the machine that names the cluster, found without the library's help.
fn traces(name: &str, state: &Path) -> Vec<String> {
    let (mark, state) = (format!("lull-{name}"), state.display().to_string());
    let mut found = processes(&mark, &state);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&mark) || l.contains(&state))
            .map(str::to_owned),
    );
    found.extend(
        children("/run/netns")
            .filter(|path| names(path, &mark))
            .map(shown),
    );
    for root in children("/sys/fs/cgroup").chain([PathBuf::from("/sys/fs/cgroup")]) {
        found.extend(children(root).filter(|path| names(path, &mark)).map(shown));
    }
    let links = Command::new("ip")
        .args(["route", "show", "table", "all"])
        .output()
        .unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    // Clusters of other runs may be up; ours was the only one that this process could have made.
    let known: Vec<_> = lull_cluster::status()
        .unwrap()
        .into_iter()
        .map(|s| s.info.name)
        .collect();
    if known.is_empty() {
        found.extend(
            links
                .lines()
                .filter(|line| line.contains("lull-"))
                .map(str::to_owned),
        );
    }
    found.extend(Path::new(&state).exists().then_some(state));
    found
}

/// Processes whose command line or cgroup names the cluster; zombies have neither.
fn processes(mark: &str, state: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in children("/proc") {
        let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let (line, cgroup) = (read("cmdline"), read("cgroup"));
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cgroup = String::from_utf8_lossy(&cgroup);
        if line.contains(state) || (!line.is_empty() && cgroup.contains(mark)) {
            found.push(format!("{}: {line}", path.display()));
        }
    }
    found
}

fn children(folder: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn names(path: &Path, mark: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(mark))
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
