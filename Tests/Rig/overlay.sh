#!/bin/sh
# overlay.sh PROGRAM OUT
# Makes what is laid over a guest's initial RAM disk so that PROGRAM runs there: itself, without what only a debugger
# reads, and the libraries that it needs from this machine. The kernel unpacks one archive after the other.
set -eu
program=$1 out=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin"
strip -g -o "$root/bin/$(basename "$program")" "$program"
# Where the loader looks for them: the paths that it found them by here.
ldd "$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
(cd "$root" && find . | cpio --quiet -o -H newc) > "$out.new"
mv "$out.new" "$out"
