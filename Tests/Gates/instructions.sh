#!/usr/bin/env bash
# The dynamic gate: instructions of the hot functions for a frame, counted by callgrind inside them only, each held to a
# budget that 5 % more would break; and the functions that were executed there. Repeatable to the instruction.
#   instructions.sh RECEIVE-COST PUMP-RATE RECEIVE-IN-C
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# Valgrind 3.19 cannot read this compiler's debug information.
strip -g -o "$work/ReceiveCost" "$1"
strip -g -o "$work/PumpRate" "$2"
strip -g -o "$work/ReceiveInC" "$3"
failed=

measure() { # functions, frames, program, arguments -> instructions a frame, times 100; the program's words in $work/words
  local instructions
  valgrind --tool=callgrind --callgrind-out-file="$work/out" --collect-atstart=no --toggle-collect="$1" "$work/$3" "${@:4}" > "$work/words" 2> "$work/log" ||
    { cat "$work/words" "$work/log" >&2; exit 2; }
  instructions=$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$work/log")
  echo $((instructions * 100 / $2))
}
hold() { # what, found, budget
  printf 'instructions: %d.%02d of at most %d %s\n' $(($2 / 100)) $(($2 % 100)) "$3" "$1"
  [ "$2" -le $(($3 * 100)) ] || { echo "instructions: over the budget: $1"; failed=1; }
  # A budget that is far above what is needed holds nothing: less was needed, so less is to be allowed.
  [ $(($2 * 106)) -ge $(($3 * 10000)) ] || { echo "instructions: the budget is too large by now: $1"; failed=1; }
}
executed() { # no call of the runtime's in what was counted last
  callgrind_annotate --threshold=100 "$work/out" | swift demangle --compact |
    awk '/\(.*%\) / && !/PROGRAM TOTALS/ { sub(/^[^:]*:/, ""); sub(/ \[.*$/, ""); print "  " $0 }' | tee "$work/functions"
  ! grep -qE 'swift_|malloc|free|pthread' "$work/functions" || { echo "instructions: a turn calls the runtime"; failed=1; }
}

lent() { # budget, format, options
  local small large difference
  small=$(measure '*turnPath*' 64000 ReceiveCost 60 64000 "${@:3}")
  grep -q "delivered 64000 lent 64000 bounced 0" "$work/words" || { echo "not every frame was lent: $(cat "$work/words")" >&2; exit 1; }
  executed
  large=$(measure '*turnPath*' 64000 ReceiveCost 1514 64000 "${@:3}")
  hold "for a lent frame of 64 bytes, $2" "$small" "$1"
  hold "for a lent frame of 1518 bytes, $2" "$large" "$1"
  difference=$((large > small ? large - small : small - large))
  [ $((difference * 100)) -le $((small * 3)) ] || { echo "instructions: the cost depends on the frame's size"; failed=1; }
}
lent 99 split
lent 102 packed --packed

found=$(measure '*turnPath*' 64000 ReceiveCost 60 64000 --copy)
grep -q "delivered 64000 lent 0 bounced 64000" "$work/words" || { echo "not every frame was copied: $(cat "$work/words")" >&2; exit 1; }
executed
hold "for a copied frame of 64 bytes, split" "$found" 173

# The same turn in C, in the same world: of each so many frames, and their guests' memory is compared. Every machine's own
# compiler makes both, so the ratio holds where the budgets above would move.
both=(--ring-size 1024 --blocks 15 --turns 64)
swift=$(measure '*turnPath*' 65536 ReceiveInC --frame-bytes 64 "${both[@]}")
c=$(measure receive_turn_in_c 65536 ReceiveInC --frame-bytes 64 "${both[@]}")
ratio=$((swift * 100 / c)) most=97
printf 'instructions: %d.%02d in Swift, %d.%02d in C for a lent frame of 64 bytes: %d %% of at most %d %%\n' \
  $((swift / 100)) $((swift % 100)) $((c / 100)) $((c % 100)) "$ratio" "$most"
[ "$ratio" -le "$most" ] || { echo "instructions: too many beside C"; failed=1; }

# The card's model, and its trace: what stands in for hardware, and decides what a benchmark can see.
hold "for a frame of 64 bytes in the card's model" "$(measure '*SharedCardC4pump*' 640000 PumpRate 60 640000 --together)" 393
[ -z "$failed" ]
