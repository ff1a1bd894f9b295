#!/usr/bin/env bash
# make kubectl-lull: the command line for users, one static binary: .build/bin/kubectl-lull.
# Built by itself: with the components it would give its port-forward to their Kubernetes client too.
. "$(dirname "$0")/common.sh"
profile=${1:-release} # quick-release: the same without the link-time optimisation
need_packages gcc libc6-dev
cd "$root"
target=x86_64-unknown-linux-gnu
mkdir -p "$build/bin"
say "building kubectl-lull ($profile)"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile "$profile" --target $target -p kubectl-lull
cp "$CARGO_TARGET_DIR/$target/$profile/kubectl-lull" "$build/bin/kubectl-lull.new"
strip --strip-debug "$build/bin/kubectl-lull.new"
mv "$build/bin/kubectl-lull.new" "$build/bin/kubectl-lull"
say "$build/bin/kubectl-lull ($(du -h "$build/bin/kubectl-lull" | cut -f1)): put it on the PATH, then: kubectl lull"
