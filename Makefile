# make help lists what there is.
SHELL := /bin/bash
# Outside the tree; scripts/common.sh says where.
export CARGO_TARGET_DIR := $(shell . scripts/common.sh; echo $$CARGO_TARGET_DIR)

# Clients and servers that the queue-proxy is tested with (queue-proxy/tests/peers).
PEERS := curl iproute2 nghttp2-client nghttp2-server nginx-light openssl postgresql util-linux

.PHONY: help demo demo-down test test-full check fmt lint doc docs unit slow fuzz chart chart-update chart-dry-run e2e e2e-races mesh e2e-mesh e2e-mesh-short mesh-cost mesh-load tour guard network-policies cert-manager coldstart many wakes dead-activators dual-stack status-page dashboard simulate bench knative bench-queue-proxy bench-activator bench-autoscaler instructions instructions-update images crd

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "%-22s %s\n", $$1, $$2 }'

demo: ## A real cluster, Lull on it, a workload that sleeps and wakes (CLUSTER=builtin|kind|current)
	@scripts/demo.sh

demo-down: ## Take the demo's cluster away
	@scripts/cluster.sh down

test: check chart instructions e2e e2e-mesh-short ## Every test, in order of time to first failure

test-full: export E2E_FULL := 1
# Its CRD, reports and chart are others than those of today, and it passed this suite. Empty: no such upgrade.
test-full: export E2E_UPGRADE_FROM ?= 433ec43
# A test leaves the tree as it is.
test-full: export TOUR_PAGE := .build/tour-page.md
test-full: test chart-dry-run guard e2e-races e2e-mesh network-policies dual-stack cert-manager tour slow coldstart ## Also what takes longer

check: fmt lint doc unit ## Everything that needs no cluster

fmt: ## Formatting
	cargo fmt --all --check

lint: packages ## Clippy, warnings denied
	cargo clippy --locked --workspace --all-targets --features lull-e2e/cluster,lull-cluster/cluster-tests -- -D warnings

doc: ## Documentation builds without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

docs: ## The documentation as a book in .build/book
	@command -v mdbook >/dev/null || { echo "error: mdbook is missing (cargo install mdbook); docs/SUMMARY.md leads through the same pages" >&2; exit 1; }
	mdbook build docs

unit: packages ## Unit, property and integration tests, also with foreign clients and servers; the cluster tool's own tests
	cargo test --locked --workspace

slow: packages ## Tests that wait for long timeouts or move many bytes
	cargo test --locked --workspace --test peers --test it -- --ignored slow::

fuzz: ## What parses foreign bytes, 60 s a target (needs a nightly toolchain)
	@scripts/fuzz.sh

chart: ## Chart checks; alerts in their scenarios, by promtool
	@scripts/chart.sh

chart-update: ## Golden renders (charts/golden) and the table of values (docs/chart.md) as the chart has them now
	@scripts/chart.sh --update

chart-dry-run: ## API servers of the oldest and newest Kubernetes judge every object of the chart, in a dry run (CLUSTER=builtin|kind|current)
	@scripts/chart-dry-run.sh

e2e: ## End-to-end suite on a real cluster, short races among it (CLUSTER=builtin|kind|current)
	@scripts/e2e.sh

e2e-races: ## Everything at once, upgrade, drains: every request is counted (E2E_SEED, E2E_RACES_SECONDS, E2E_UPGRADE_FROM=<commit>; E2E_FULL=1: an hour)
	@scripts/e2e-races.sh

mesh: ## A real cluster with Istio, mutual TLS required, and Lull on it (CLUSTER=builtin|kind|current)
	@scripts/mesh.sh

e2e-mesh: ## End-to-end suite inside a real Istio mesh (E2E_FULL=1: with long wakes and faults of the mesh)
	@scripts/e2e-mesh.sh

e2e-mesh-short: ## The part of it that fits into 4 minutes
	@E2E_SHORT=1 scripts/e2e-mesh.sh

mesh-cost: ## istiod's pushes for a sleep and a wake, and cold starts inside the mesh by phase
	@scripts/mesh-cost.sh

mesh-load: ## A million requests from zero through the ingress gateway, by hey: docs/performance.md (REQUESTS, CONNECTIONS, CONTAINER_CONCURRENCY, MINUTES)
	@scripts/mesh-load.sh

dual-stack: ## Services of one and two address families on a cluster of its own that has IPv4 and IPv6
	@scripts/dual-stack.sh

tour: ## From install to uninstall, as somebody types it who has never seen Lull: docs/tour.md (CLUSTER=builtin|kind|current)
	@scripts/tour.sh

guard: ## What the chart's guard.enabled lets the autoscaler write, on a real API server
	@scripts/guard.sh

network-policies: ## Under NetworkPolicies that are enforced, users' and Lull's own, on a cluster of its own (CLUSTER=builtin|kind|current)
	@scripts/network-policies.sh

cert-manager: ## The webhook's certificate by a real cert-manager, also renewed, on a cluster of its own
	@scripts/cert-manager.sh

coldstart: ## Cold start table on a real cluster
	@scripts/coldstart.sh

many: ## 5,000 sleeping workloads on a real cluster: activators' memory and start, cold starts among them
	@scripts/many.sh

wakes: ## 50 wakes a second among 1,000 workloads on a real cluster, beside bare patches of /scale (RATE, WORKLOADS, RUN_SECONDS)
	@scripts/wakes.sh

dead-activators: ## A lost activator leaves the endpoints of 1,000 sleeping workloads, of those called lately first
	@scripts/dead-activators.sh

status-page: ## The status page of the running cluster in headless Chromium, as the suite looks at it: docs/pictures
	@scripts/status-page.sh

dashboard: ## The dashboard's panels of the running cluster, by a real Prometheus: docs/pictures/dashboard-*.svg
	@scripts/dashboard.sh

simulate: ## The autoscaler's decisions against modelled traffic: docs/simulations.md (or ARGS="--only spike --seed 7")
	cargo run --locked -q -p lull-simulator -- $(or $(ARGS),--docs docs)

knative: ## Lull beside Knative Serving, built from its Go modules: queue-proxies on loopback, cold starts on one cluster (WAKES, ROUNDS)
	@scripts/knative.sh

bench: bench-queue-proxy bench-activator bench-autoscaler ## Every performance bench, one table each

bench-queue-proxy: ## The queue-proxy beside HAProxy and Envoy (ARGS="--rounds 3 --only http1")
	@scripts/bench.sh queue-proxy $(ARGS)

bench-activator: ## The activator beside HAProxy and Envoy (ARGS="--rounds 3 --only splice")
	@scripts/bench.sh activator $(ARGS)

bench-autoscaler: ## 10,000 workloads x 10 pods on one core, and pulls (ARGS="--rounds 1")
	@scripts/bench.sh autoscaler $(ARGS)

instructions: ## Instructions per request of the queue-proxy, against what is committed
	@scripts/instructions.sh

instructions-update: ## Commits to what they are now (tests/bench/instructions.json)
	@scripts/instructions.sh --update

images: ## Static binaries and image tars in .build/
	@scripts/images.sh

.PHONY: kubectl-lull
kubectl-lull: ## The command line for users: .build/bin/kubectl-lull, static
	@scripts/kubectl-lull.sh

crd: ## Write the CRD of the code into the chart
	cargo run --locked -q -p autoscaler -- crd > charts/lull/templates/scaledworkloads.yaml

.PHONY: packages
packages:
	@. scripts/common.sh; need_packages gcc libc6-dev cmake make git $(PEERS); CLUSTER=kind need_toolchains
