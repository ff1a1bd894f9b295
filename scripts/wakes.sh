#!/usr/bin/env bash
# make wakes: 50 wakes a second among 1,000 sleeping workloads, beside ten bare patches of /scale a second.
# RATE may name several, 20,50,50: one round after the other among the same workloads.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
with_lull wakes
# As the images are: a debug build would take the processors from what it measures.
target=x86_64-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked -q --profile quick-release --target $target -p lull-e2e --bin wakes
on_a_node "$CARGO_TARGET_DIR/$target/quick-release/wakes" --workloads "${WORKLOADS:-1000}" --rate "${RATE:-50}" --seconds "${RUN_SECONDS:-60}"
