#!/usr/bin/env bash
# make status-page: the status page of the current cluster in a real browser, as the suite looks at it; pictures
# go to docs/pictures.
. "$(dirname "$0")/common.sh"
cd "$root"
KUBECONFIG=${KUBECONFIG:-$(scripts/cluster.sh kubeconfig)}; export KUBECONFIG
E2E_KUBECTL=$(tool kubectl); export E2E_KUBECTL
E2E_CHROMIUM=$(chromium_program); export E2E_CHROMIUM
export E2E_PICTURES=$root/docs/pictures
build_tests
run_tests browser -- --test-threads 1 --nocapture page::
