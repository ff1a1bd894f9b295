#!/usr/bin/env bash
# make e2e-races: everything at once on a cluster of its own, and what replaces or kills parts of Lull
# besides; E2E_SEED repeats an order, E2E_RACES_SECONDS sets the length, E2E_FULL=1 is an hour
# (docs/races.md). E2E_UPGRADE_FROM=<commit>: also an upgrade from that commit's images and chart.
. "$(dirname "$0")/common.sh"
cd "$root"
[ "$CLUSTER" = builtin ] || die "CLUSTER=$CLUSTER: only the processes of CLUSTER=builtin can be killed and held from here"
build_tests
older=${E2E_UPGRADE_FROM:-}
[ -z "$older" ] || scripts/images.sh "$older"
with_lull e2e-races
E2E_HELM=$(tool helm); export E2E_HELM
say "the last pod is evicted, its node drained; what is in flight then"
run_tests drains -- --nocapture --test-threads 1
say "an upgrade and its rollback"
E2E_UPGRADE_FROM="" run_tests upgrade
if [ -n "$older" ]; then
  say "an upgrade from $older"
  scripts/cluster.sh install_older "$older"
  run_tests upgrade
  # It leaves values of its own.
  scripts/cluster.sh install
fi
say "races"
run_tests races -- --nocapture
