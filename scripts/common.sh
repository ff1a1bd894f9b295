# Sourced by the other scripts: where things are, and how progress is shown.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${LULL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lull}
build=$root/.build
# One for each clone: cargo names artifacts by their path within the workspace, and would take those
# of another clone for its own.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target/$(basename "$root")-$(cksum <<<"$root" | cut -d' ' -f1)}
components=(queue-proxy activator autoscaler webhook)
# Which cluster: builtin (ours, without Docker), kind, or current (the current kubeconfig).
CLUSTER=${CLUSTER:-builtin}
LULL_CLUSTER=${LULL_CLUSTER:-lull}
export LULL_CLUSTER
export LULL_NAMESPACE=${LULL_NAMESPACE:-lull-system}

# What goes before a command that is typed later, to mean the same cluster.
by_cluster() { [ "$CLUSTER" = builtin ] || echo "CLUSTER=$CLUSTER "; }

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command and says how long it took; what it prints goes to a log that is shown if it fails.
step() {
  local what=$1 began=$SECONDS log; shift
  log=$(mktemp)
  printf '    %-58s' "$what" >&2
  if "$@" >"$log" 2>&1; then
    printf '%4d s\n' $((SECONDS - began)) >&2; rm -f "$log"
  else
    local code=$?
    printf 'FAILED after %d s\n' $((SECONDS - began)) >&2; cat "$log" >&2; rm -f "$log"; return $code
  fi
}

within() { # SECONDS, COMMAND..., until it succeeds
  local end=$((SECONDS + $1))
  until "${@:2}"; do
    [ $SECONDS -lt $end ] || { echo "not within $1 s: ${*:2}"; return 1; }
    sleep 0.2
  done
}

# Debian packages that are missing, installed; elsewhere a message that names them.
need_packages() { # PACKAGE...; APT_ARGS: more for apt-get install
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "install these with your package manager: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "run as root, or install: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q ${APT_ARGS:-} "${missing[@]}" >/dev/null
}

# Path of Chromium: one that is there, or Debian's without what that recommends, which is for desks.
# Beside what the suite needs anyway it takes 160 MB to fetch and 570 MB on the disk.
chromium_program() {
  command -v chromium && return
  APT_ARGS=--no-install-recommends need_packages chromium >&2
  command -v chromium
}

# Folder of prometheus and promtool: those on the PATH, or Debian's. That package is only unpacked, since
# one that is installed starts a server.
prometheus_folder() {
  local found folder=$cache/prometheus
  if found=$(command -v promtool) && [ -x "$(dirname "$found")/prometheus" ]; then dirname "$found"; return; fi
  [ -x "$folder/usr/bin/promtool" ] || unpack_package prometheus "$folder" || return
  echo "$folder/usr/bin"
}

unpack_package() { # PACKAGE FOLDER
  local work
  command -v apt-get >/dev/null || die "$1 is missing: install it with your package manager"
  say "fetching $1"
  mkdir -p "$cache" && work=$(mktemp -d "$cache/package.XXXXXX") || return
  (
    trap 'rm -rf "$work"' EXIT
    cd "$work" && { apt-get download -q "$1" || { apt-get update -q && apt-get download -q "$1"; }; } &&
      dpkg-deb -x "$1"_*.deb files && rm -rf "$2" && mv files "$2"
  ) >&2 || die "$1 can't be had: install it with your package manager"
}

# Builds take up to 20 GiB. Where the disk has less, what earlier builds left goes: it is only a cache.
need_space() {
  local needed=20 folder checkout
  mkdir -p "$CARGO_TARGET_DIR" && echo "$root" >"$CARGO_TARGET_DIR/checkout"
  [ "$(free_gib)" -lt $needed ] || return 0
  say "less than $needed GiB free for $cache: old build results go"
  rm -rf "$CARGO_TARGET_DIR"/*/incremental
  for folder in "$cache"/target/*/; do
    checkout=$(cat "$folder/checkout" 2>/dev/null) || checkout=
    [ -n "$checkout" ] && [ -d "$checkout" ] || rm -rf "$folder"
  done
  [ "$(free_gib)" -ge $needed ] ||
    say "$(free_gib) GiB free: a build from nothing takes $needed (make room, or set LULL_CACHE to a larger disk)"
}

free_gib() { echo $(($(df --output=avail -k "$CARGO_TARGET_DIR" | tail -1) >> 20)); }

need_toolchains() {
  need_space
  command -v cargo >/dev/null || die "cargo is missing: install Rust 1.95 (https://rustup.rs), then run this again"
  [ "$CLUSTER" != builtin ] || command -v go >/dev/null ||
    die "go is missing: install Go 1.26 or later (https://go.dev/dl), or use CLUSTER=kind or CLUSTER=current"
}

# Builds a component (or an example of it) as it ships and says where the binary is.
release_binary() { # COMPONENT [EXAMPLE]
  local target=x86_64-unknown-linux-gnu
  say "building $1${2:+, $2} (release)"
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $target -p "$1" ${2:+--example "$2"} >&2 || return
  echo "$CARGO_TARGET_DIR/$target/release/${2:+examples/}${2:-$1}"
}

# Builds programs as `make unit` builds everything: with the features that all packages of the workspace and their
# tests ask for together, which takes a test among what is built. Those of a package by itself are others, with which
# nearly every dependency would be built once more.
build_as_tests() { # PROGRAM...
  local options=(--test formats) program # a small one
  for program in "$@"; do options+=(--bin "$program"); done
  cargo build --locked -q --workspace "${options[@]}"
}

# Builds the end-to-end suite's programs (tests/e2e/tests) that a script will run: what doesn't compile fails
# before there is a cluster. Those of others are only links more: `make lint` has compiled all of them.
build_tests() { # PROGRAM...; without any all of them
  local programs=() path
  need_packages gcc libc6-dev
  need_toolchains
  say "suite, built"
  [ $# -gt 0 ] || for path in "$root"/tests/e2e/tests/*; do path=${path##*/}; set -- "$@" "${path%.rs}"; done
  for path in "$@"; do programs+=(--test "$path"); done
  cargo test --locked --workspace --features lull-e2e/cluster "${programs[@]}" --no-run
}

# Runs some of them one after the other, in this order, until one fails. Every one must be named by a
# script in such a line: tests/e2e/src/programs.rs looks.
run_tests() { # PROGRAM... [-- ARGUMENT...]; E2E_ARGS, for instance the name of a test: no other is run
  local programs=() program
  while [ $# -gt 0 ] && [ "$1" != -- ]; do programs+=("$1"); shift; done
  for program in "${programs[@]}"; do
    # An error says itself where it comes from; a backtrace would push it out of the last lines of a log.
    RUST_LIB_BACKTRACE=0 cargo test --locked --workspace --features lull-e2e/cluster --test "$program" ${E2E_ARGS:-} "$@" || return
  done
}

# Folder of an older commit's sources and images, which `scripts/images.sh COMMIT` makes; its name is their tag.
older_folder() { # COMMIT
  local commit
  commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") ||
    die "$1 is no commit of this clone: is it a shallow one? (git fetch --unshallow)"
  # Not a number, which some commits are and helm would take for one.
  echo "$cache/older/commit-${commit:0:12}"
}

# A cluster with this tree's Lull on it, for the script alone: taken down at its end.
with_lull() { # NAME, where E2E_CLUSTER names no other; [COMMAND], as for lull_up
  LULL_CLUSTER=${E2E_CLUSTER:-$1}; export LULL_CLUSTER; shift
  lull_up down_at_exit "$@"
}

down_at_exit() { # [COMMAND], run then
  if [ "$CLUSTER" != current ] && [ -z "${E2E_KEEP:-}" ]; then trap 'scripts/cluster.sh down' EXIT; fi
  "${@:-true}"
}

# Istio on the cluster: on kind that of $ISTIO, the folder of a release, with its own images; on the
# current one the one that is there.
mesh_up() {
  say "Istio"
  scripts/cluster.sh mesh
}

# Of lull-cluster up, for a script whose own cluster needs some.
cluster_options=()

# A cluster, without Lull.
cluster_up() { # [OPTIONS] of lull-cluster up, besides
  if [ "$CLUSTER" = builtin ] && [ "$(id -u)" != 0 ]; then
    die "the built-in cluster needs root (network namespaces, containerd); or use CLUSTER=kind"
  fi
  say "cluster ($CLUSTER)"
  scripts/cluster.sh up "${cluster_options[@]}" "$@"
}

# A cluster with this tree's Lull on it; exports KUBECONFIG.
lull_up() { # [COMMAND], run when the cluster is up
  cluster_up
  "${@:-true}"
  # The nodes of the current one pull theirs.
  if [ "$CLUSTER" != current ]; then
    say "images"
    scripts/images.sh
  fi
  say "Lull"
  scripts/cluster.sh install
  KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
}

# Lull is installed with a kind that only the suite defines, and only once Lull runs.
lull_knows_rollouts() {
  local target='targets[0]'
  export HELM_ARGS="${HELM_ARGS:-} --set $target.apiGroup=e2e.lull.dev,$target.apiVersion=v1,$target.resource=rollouts"
}

# Runs what calls Services directly, which a node can do.
on_a_node() { # COMMAND...
  case $CLUSTER in
    builtin) lull_cluster exec -- "$@" ;;
    *) say "CLUSTER=$CLUSTER: the addresses of its Services must be reachable from here"
       "$@" ;;
  esac
}

lull_cluster() {
  local program=$CARGO_TARGET_DIR/debug/lull-cluster
  [ -x "$program" ] || die "no cluster was made from this clone yet: make demo makes one ($program is missing)"
  "$program" "$@"
}

tool() { # path of kubectl or helm
  if [ "$CLUSTER" = builtin ]; then lull_cluster path "$1"
  else command -v "$1" || die "$1 is missing: CLUSTER=$CLUSTER needs it on the PATH"; fi
}
