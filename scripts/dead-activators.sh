#!/usr/bin/env bash
# make dead-activators: how soon a lost activator leaves the endpoints of 1,000 sleeping workloads.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
with_lull deadactivators
cargo build --locked -q -p lull-e2e --bin deadactivators
on_a_node "$CARGO_TARGET_DIR/debug/deadactivators" --workloads "${WORKLOADS:-1000}" --called "${CALLED:-100}"
