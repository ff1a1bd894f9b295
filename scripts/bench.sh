#!/usr/bin/env bash
# bench.sh NAME [ARGS]: builds the component NAME as it ships and measures it, a proxy beside others.
. "$(dirname "$0")/common.sh"
cd "$root"
name=$1; shift

need_packages gcc libc6-dev cmake make
CLUSTER=kind need_toolchains
if [ "$name" != autoscaler ]; then # its decisions are a part of the bench, beside nothing
  need_packages binutils haproxy nginx-light nghttp2-client nghttp2-server wrk
  cargo build --locked -q -p lull-cluster
  envoy=$(lull_cluster path envoy)
  # The activator is measured without Kubernetes: its example feeds it from the command line.
  case $name in
    activator) binary=$(release_binary activator standalone) ;;
    *) binary=$(release_binary "$name") ;;
  esac
  set -- --binary "$binary" --envoy "$envoy" "$@"
fi
cargo build --locked -q --release -p lull-bench
# 10,000 connections take two descriptors each in the proxy.
ulimit -n "$(ulimit -Hn)"
"$CARGO_TARGET_DIR/release/bench-$name" "$@"
