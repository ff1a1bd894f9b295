#!/usr/bin/env bash
# make instructions: counts the queue-proxy's instructions per request, which no busy machine changes.
. "$(dirname "$0")/common.sh"
cd "$root"
need_packages gcc libc6-dev cmake make nginx-light nghttp2-client valgrind
CLUSTER=kind need_toolchains
binary=$(release_binary queue-proxy)
build_as_tests bench-instructions
"$CARGO_TARGET_DIR/debug/bench-instructions" --binary "$binary" --baseline tests/bench/instructions.json "$@"
