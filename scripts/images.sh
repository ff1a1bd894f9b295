#!/usr/bin/env bash
# images.sh [COMMIT]: builds the static binaries and, from the Dockerfile, one image tar for each component,
# in .build. With COMMIT those of its sources, once, in a folder of the cache (older_folder of common.sh).
. "$(dirname "$0")/common.sh"
names=("${components[@]}") sources=$root tag=dev
if [ -z "${1:-}" ]; then
  names+=(sample-app)
else
  need_packages git
  build=$(older_folder "$1")
  sources=$build/sources tag=$(basename "$build")
  [ ! -e "$build/complete" ] || exit 0
  # cargo would take what it has built of other sources for theirs.
  export CARGO_TARGET_DIR=$build/target
  rm -rf "$sources"
  mkdir -p "$sources"
  git -C "$root" archive "$1" | tar -x -C "$sources"
fi
need_packages gcc libc6-dev cmake make buildah
need_toolchains
cd "$sources"
target=x86_64-unknown-linux-gnu
mkdir -p "$build/bin" "$build/images"
say "building the components${1:+ of $1} (from nothing about 8 minutes on 2 cores)"
packages=(); for name in "${names[@]}"; do packages+=(-p "$name"); done
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile quick-release --target $target "${packages[@]}"
store=$cache/buildah; mkdir -p "$store"
bud() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
for name in "${names[@]}"; do
  binary=$CARGO_TARGET_DIR/$target/quick-release/$name
  image=lull/$name:$tag; [ "$name" = sample-app ] && image=lull-test/$name:dev
  cmp -s "$binary" "$build/bin/$name" && [ -s "$build/images/$name.tar" ] && continue
  cp "$binary" "$build/bin/$name.new"
  strip --strip-debug "$build/bin/$name.new"
  # One command after the other: where a step is asked how it ended, bash goes on behind what fails.
  image_from_binary() {
    mv "$build/bin/$name.new" "$build/bin/$name" &&
      bud bud --isolation chroot --target "$name" -t "$image" -f Dockerfile "$build/bin" &&
      rm -f "$build/images/$name.tar" &&
      bud push "$image" "docker-archive:$build/images/$name.tar:docker.io/$image" &&
      bud rmi -f "$image" &&
      cp "$binary" "$build/bin/$name"
  }
  step "image $image ($(du -h "$build/bin/$name.new" | cut -f1))" image_from_binary
done
[ "$sources" != "$root" ] || exit 0
rm -rf "$CARGO_TARGET_DIR" "$build/bin"
touch "$build/complete"
