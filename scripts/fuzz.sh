#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60); what it finds stays in the cache for the next run.
. "$(dirname "$0")/common.sh"
seconds=${FUZZ_SECONDS:-60}
version=0.13.2
need_packages g++
rustup toolchain list | grep -q '^nightly' || die "a nightly toolchain is missing: rustup toolchain install nightly"
fuzz=$cache/tools/bin/cargo-fuzz
[ "$("$fuzz" --version 2>/dev/null)" = "cargo-fuzz $version" ] ||
  step "building cargo-fuzz $version" cargo install --locked --quiet --root "$cache/tools" "cargo-fuzz@$version"
cd "$root/fuzz"
# cargo-fuzz is its own cargo subcommand; nightly is for the sanitizers.
export RUSTUP_TOOLCHAIN=nightly
where=(--target-dir "$CARGO_TARGET_DIR/fuzz")
step "building the targets" "$fuzz" build "${where[@]}"
for target in $("$fuzz" list); do
  corpus=$cache/fuzz/$target
  mkdir -p "$corpus"
  step "$target for $seconds s" "$fuzz" run "${where[@]}" "$target" "$corpus" "seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024
done
