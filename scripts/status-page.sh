#!/usr/bin/env bash
# make status-page: the status page of the current cluster in a real browser; pictures go to docs/pictures.
. "$(dirname "$0")/common.sh"
cd "$root"
need_packages chromium
KUBECONFIG=${KUBECONFIG:-$(scripts/cluster.sh kubeconfig)}; export KUBECONFIG
kubectl=$(tool kubectl)
pictures=docs/pictures
mkdir -p "$pictures"
work=$(mktemp -d)
"$kubectl" proxy --port 0 >"$work/proxy" 2>&1 &
proxy=$!
trap 'kill "$proxy"; rm -rf "$work"' EXIT
for _ in $(seq 50); do grep -q 'Starting to serve' "$work/proxy" && break; sleep 0.1; done
address=$(sed -n 's/.*Starting to serve on //p' "$work/proxy")
[ -n "$address" ] || die "kubectl proxy did not start: $(cat "$work/proxy")"
page="http://$address/api/v1/namespaces/$LULL_NAMESPACE/services/lull-autoscaler:8023/proxy/"

# The stream of events never ends, so the browser is told when to look.
browse() { # FRAGMENT, then Chromium's arguments
  local fragment=$1; shift
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --timeout=5000 "$@" "$page$fragment" 2>"$work/chromium"
}

workload=$("$kubectl" get scaledworkloads -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}' | sed -n 1p)
[ -n "$workload" ] || die "there is no workload to show: enrol one first"
say "what the browser has made of it"
browse "#$workload" --dump-dom >"$work/dom"
for part in "href=\"#$workload\"" 'data-state="live"' '<polyline class="load"' 'id="wakes"><li'; do
  grep -qF "$part" "$work/dom" || die "the page lacks $part: $(cat "$work/chromium")"
done
for scheme in 1:light 0:dark; do
  for size in 1280,900:desk 390,844:phone; do
    name="status-${size#*:}-${scheme#*:}.png"
    step "$name" browse "" --blink-settings="preferredColorScheme=${scheme%%:*}" \
      --window-size="${size%%:*}" --screenshot="$root/$pictures/$name"
  done
done
step status-workload.png browse "#$workload" --window-size=1280,900 --screenshot="$root/$pictures/status-workload.png"
