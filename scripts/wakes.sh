#!/usr/bin/env bash
# make wakes: 50 wakes a second among 1,000 sleeping workloads, beside as many patches of /scale.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
with_lull wakes
cargo build --locked -q -p lull-e2e --bin wakes
# It calls Services directly, which a node can do.
case $CLUSTER in
  builtin) node() { lull_cluster exec -- "$@"; } ;;
  *) say "CLUSTER=$CLUSTER: the addresses of its Services must be reachable from here"
     node() { "$@"; } ;;
esac
node "$CARGO_TARGET_DIR/debug/wakes" --workloads "${WORKLOADS:-1000}" --rate "${RATE:-50}" --seconds "${RUN_SECONDS:-60}"
