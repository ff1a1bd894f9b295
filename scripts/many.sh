#!/usr/bin/env bash
# make many: 5,000 sleeping workloads, what they cost the activators, and cold starts among them.
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull many
cargo build --locked -q -p lull-e2e --bins
cargo run --locked -q -p lull-e2e --bin many -- --workloads "${WORKLOADS:-5000}"
cargo run --locked -q -p lull-e2e --bin coldstart -- --wakes "${WAKES:-20}"
