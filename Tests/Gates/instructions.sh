#!/usr/bin/env bash
# The dynamic gate: instructions of the datapath for a lent frame, counted by callgrind inside turnPath only, at 64
# and 1514 bytes, over a split and a packed virtqueue; and the functions that were executed there. Repeatable to the
# instruction.
#   instructions.sh BENCH [LIMIT]
set -euo pipefail
bench=$1 limit=${2:-220}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# Valgrind 3.19 cannot read this compiler's debug information.
strip -g -o "$work/bench" "$bench"

measure() { # frame bytes, options -> instructions a frame, times 100
  local out frames instructions
  out=$(valgrind --tool=callgrind --callgrind-out-file="$work/out.$1" --collect-atstart=no \
    --toggle-collect='*turnPath*' "$work/bench" "$1" 64000 "${@:2}" 2>&1) || { echo "$out" >&2; exit 2; }
  frames=$(sed -n 's/^delivered \([0-9]*\) lent.*/\1/p' <<<"$out")
  grep -q "lent $frames bounced 0" <<<"$out" || { echo "not every frame was lent: $out" >&2; exit 1; }
  instructions=$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' <<<"$out")
  echo $((instructions * 100 / frames))
}

check() { # format, options
  local small large difference
  small=$(measure 60 "${@:2}"); large=$(measure 1514 "${@:2}")
  printf 'instructions: %d.%02d a lent frame of 64 bytes, %d.%02d of 1518, %s (limit %d, and within 3 %% of each other)\n' \
    $((small / 100)) $((small % 100)) $((large / 100)) $((large % 100)) "$1" "$limit"
  callgrind_annotate --threshold=100 "$work/out.60" | swift demangle --compact |
    awk '/\(.*%\) / && !/PROGRAM TOTALS/ { sub(/^[^:]*:/, ""); sub(/ \[.*$/, ""); print "  " $0 }' | tee "$work/functions"
  grep -qE 'swift_|malloc|free|pthread' "$work/functions" && { echo "instructions: a turn calls the runtime"; exit 1; }
  [ "$small" -le $((limit * 100)) ] && [ "$large" -le $((limit * 100)) ] || { echo "instructions: over the limit"; exit 1; }
  difference=$((large > small ? large - small : small - large))
  [ $((difference * 100)) -le $((small * 3)) ] || { echo "instructions: the cost depends on the frame's size"; exit 1; }
}
check split
check packed --packed
