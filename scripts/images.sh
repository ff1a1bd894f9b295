#!/usr/bin/env bash
# Builds the static binaries and, from the Dockerfile, one image tar for each component.
. "$(dirname "$0")/common.sh"
need_packages gcc libc6-dev cmake make buildah
need_toolchains
cd "$root"
target=x86_64-unknown-linux-gnu
mkdir -p "$build/bin" "$build/images"
say "building the components (from nothing about 8 minutes on 2 cores)"
packages=(); for name in "${components[@]}" sample-app; do packages+=(-p "$name"); done
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile quick-release --target $target "${packages[@]}"
store=$cache/buildah; mkdir -p "$store"
bud() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
for name in "${components[@]}" sample-app; do
  binary=$CARGO_TARGET_DIR/$target/quick-release/$name
  image=lull/$name:dev; [ "$name" = sample-app ] && image=lull-test/$name:dev
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
