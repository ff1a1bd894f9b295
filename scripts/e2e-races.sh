#!/usr/bin/env bash
# make e2e-races: everything at once on a cluster of its own, and what replaces or kills parts of Lull
# besides; E2E_SEED repeats an order, E2E_RACES_SECONDS sets the length, E2E_FULL=1 is an hour
# (docs/races.md).
. "$(dirname "$0")/common.sh"
cd "$root"
[ "$CLUSTER" = builtin ] || die "CLUSTER=$CLUSTER: only the processes of CLUSTER=builtin can be killed and held from here"
build_tests
with_lull e2e-races
E2E_HELM=$(tool helm); export E2E_HELM
say "the last pod is evicted, its node drained; what is in flight then"
run_tests drains -- --nocapture --test-threads 1
say "an upgrade and its rollback"
run_tests upgrade
say "races"
run_tests races -- --nocapture
