#!/usr/bin/env bash
# Builds lull-test/redis:dev: Debian's Redis, server and client, with the libraries that they need. For the
# suite in a mesh (tests/e2e/tests/mesh_redis.rs), which wants a server and a client that nobody made for it.
. "$(dirname "$0")/common.sh"
cd "$root"
need_packages gcc libc6-dev redis-tools
need_toolchains
cargo build --locked -q -p lull-cluster
# In Debian redis-server is a link to this program, which looks at the name it was called by. The package of
# the link would start a server here.
server=/usr/bin/redis-check-rdb client=/usr/bin/redis-cli

libraries() { # PROGRAM...: paths; what has none is the kernel's
  local program
  for program in "$@"; do ldd "$program"; done | grep -o '/[^ )]*' | sort -u
}

redis_image() {
  local files=("$server:/usr/bin/redis-server" "$client:/usr/bin/redis-cli") there path
  there=$(libraries "$server" "$client") || return
  for path in $there; do files+=("$path:$path"); done
  mkdir -p "$build/images"
  lull_cluster make-image docker.io/lull-test/redis:dev "$build/images/redis.tar" \
    --entrypoint '["/usr/bin/redis-server"]' --file "${files[@]}"
}

step "image lull-test/redis:dev" redis_image
