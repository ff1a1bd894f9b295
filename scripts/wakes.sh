#!/usr/bin/env bash
# make wakes: 50 wakes a second among 1,000 sleeping workloads, beside as many patches of /scale.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
with_lull wakes
cargo build --locked -q -p lull-e2e --bin wakes
on_a_node "$CARGO_TARGET_DIR/debug/wakes" --workloads "${WORKLOADS:-1000}" --rate "${RATE:-50}" --seconds "${RUN_SECONDS:-60}"
