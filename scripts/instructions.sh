#!/usr/bin/env bash
# make instructions: counts the queue-proxy's instructions per request, which no busy machine changes.
. "$(dirname "$0")/common.sh"
cd "$root"
need_packages gcc libc6-dev cmake make nginx-light nghttp2-client valgrind
CLUSTER=kind need_toolchains
binary=$(release_binary queue-proxy)
cargo run --locked -q -p lull-bench --bin bench-instructions -- \
  --binary "$binary" --baseline tests/bench/instructions.json "$@"
