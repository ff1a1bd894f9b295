#!/usr/bin/env bash
# make dual-stack: Services of one and two address families, slept and woken over IPv4 and IPv6, on a cluster of
# its own that has both; then the uninstall (CLUSTER=current: a dual-stack cluster).
. "$(dirname "$0")/common.sh"
cd "$root"
[ "$CLUSTER" != kind ] || die "CLUSTER=kind: its clusters are made with IPv4 alone; make one with ipFamily: dual and use CLUSTER=current"
build_tests
cluster_options=(--dual-stack)
with_lull dual-stack
E2E_HELM=$(tool helm); export E2E_HELM
say "suite"
run_tests dual_stack -- --test-threads "${E2E_THREADS:-4}" --nocapture
# Namespaces that are kept never go, which is what this suite waits for.
[ -z "${E2E_KEEP:-}" ] || exit 0
say "uninstall"
run_tests uninstall
