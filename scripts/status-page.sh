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
started=()
trap ended EXIT

ended() {
  # Chromium writes into its profile until it has gone.
  [ ${#started[@]} -eq 0 ] || { kill "${started[@]}" || true; wait "${started[@]}" || true; } 2>/dev/null
  rm -rf "$work"
}

proxy_up() { # sets page
  local address
  "$kubectl" proxy --port 0 >"$work/proxy" 2>&1 &
  started+=($!)
  within 10 grep -q 'Starting to serve' "$work/proxy" || die "kubectl proxy did not start: $(cat "$work/proxy")"
  address=$(sed -n 's/.*Starting to serve on //p' "$work/proxy")
  # Of whichever replica: each shows all workloads live.
  page=http://$address/api/v1/namespaces/$LULL_NAMESPACE/services/lull-autoscaler:8023/proxy/
}

# Chromium is asked in its own protocol (https://chromedevtools.github.io/devtools-protocol) over two pipes: no
# option waits until the page is live, since it is loaded before.
browser_up() {
  mkfifo "$work/to" "$work/from"
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --remote-debugging-pipe 3<"$work/to" 4>"$work/from" >"$work/chromium" 2>&1 &
  started+=($!)
  exec 5>"$work/to" 6<"$work/from"
  ask Target.createTarget '{"url":"about:blank"}' || die "$answer"
  ask Target.attachToTarget "{\"targetId\":\"$(value_of targetId)\",\"flatten\":true}" || die "$answer"
  session=$(value_of sessionId)
}

number=0 session='' answer=''
ask() { # METHOD [PARAMETERS]; its answer, or what is wrong, is in $answer
  number=$((number + 1))
  printf '{"id":%d,%s"method":"%s","params":%s}\0' $number "${session:+"\"sessionId\":\"$session\","}" "$1" "${2-"{}"}" >&5
  while IFS= read -r -d '' -t 30 answer <&6; do
    case $answer in
      "{\"id\":$number,\"error\""*) return 1 ;;
      "{\"id\":$number,"*) return ;;
    esac
  done
  answer="Chromium has no answer to $1: $(cat "$work/chromium")"
  return 1
}

value_of() { # a text in $answer by its name
  local rest=${answer#*\""$1"\":\"}
  printf '%s' "${rest%%\"*}"
}

go_to() { # FRAGMENT
  ask Page.navigate "{\"url\":\"$page$1\"}" || { echo "$answer"; return 1; }
}

is_so() { # EXPRESSION of JavaScript, without a double quote
  ask Runtime.evaluate "{\"expression\":\"$1\",\"returnByValue\":true}" && [[ $answer == *'"value":true'* ]]
}

shows() { # EXPRESSION
  within 20 is_so "$1" || { echo "the browser says: $answer"; return 1; }
}

picture() { # NAME WIDTH HEIGHT SCHEME
  ask Emulation.setDeviceMetricsOverride \
    "{\"width\":$2,\"height\":$3,\"deviceScaleFactor\":1,\"mobile\":false}" &&
    ask Emulation.setEmulatedMedia "{\"features\":[{\"name\":\"prefers-color-scheme\",\"value\":\"$4\"}]}" &&
    ask Page.captureScreenshot '{"format":"png"}' || { echo "$answer"; return 1; }
  value_of data | base64 -d >"$pictures/$1"
}

workload=$("$kubectl" get scaledworkloads -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}' | sed -n 1p)
[ -n "$workload" ] || die "there is no workload to show: enrol one first"
proxy_up
browser_up
step "the page" go_to ""
step "is live" shows "document.querySelector('#link').dataset.state === 'live'"
step "lists $workload" shows "[...document.links].some((link) => link.hash === '#$workload')"
for scheme in light dark; do
  step "status-desk-$scheme.png" picture "status-desk-$scheme.png" 1280 900 $scheme
  step "status-phone-$scheme.png" picture "status-phone-$scheme.png" 390 844 $scheme
done
step "one workload" go_to "#$workload"
step "it is live" shows "document.querySelector('#source').textContent === 'Live.'"
step "its line" shows "document.querySelector('polyline.load') !== null"
step "its wakes" shows "document.querySelector('#wakes li') !== null"
step status-workload.png picture status-workload.png 1280 1100 light
step status-workload-phone.png picture status-workload-phone.png 390 1100 dark
