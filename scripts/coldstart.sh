#!/usr/bin/env bash
# make coldstart: phases of 50 wakes, beside the same app as a plain Deployment patched 0 -> 1.
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull coldstart
cargo run --locked -q -p lull-e2e --bin coldstart -- --wakes "${WAKES:-50}"
