#!/bin/sh
# The isolation gate: one VM's guest or front-end, a local user or an author of files attacks a real `sluice run`, and what the
# others lose is measured. Each attack was once a defect.
#   isolation.sh SLUICE [BEFORE-SLUICE]   run all attacks against SLUICE, and against an older one for comparison
#     --quick              fewer attacks and shorter windows: under two minutes
#     --only NAME[,NAME]   only these
#     --slack PERCENT      what rates and times may miss their limits by (default: 0): on a machine that does other work
#     --list               list the attacks and exit
#     --seed N             random seed (default: the clock)
#     --json FILE          write the table to FILE, too
#     --before-source DIR  the older one's source tree, for the attacks on a part of it
# Exit status: 0 if SLUICE keeps all limits, 1 if it breaks one, 2 if an attack could not be judged, 64 for bad usage.
#
# Needs gcc and two processors; no root. As root it takes precedence over other programs of the machine, and its figures are steadier;
# as an ordinary user the FUSE attack is skipped where /dev/fuse or user namespaces are closed.
# A row that breaks its limit is run once more before it counts: timing on a busy machine is no certainty.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n 's/^#   isolation.sh/usage: isolation.sh/p' "$0" >&2; exit 64; }

after= before= quick= only= list= seed= json= before_source=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=--quick ;;
    --list) list=1 ;;
    --only | --seed | --json | --before-source | --slack)
      [ $# -gt 1 ] || usage
      case $1 in --only) only=$2 ;; --seed) seed=$2 ;; --json) json=$2 ;; --slack) export ISOLATION_SLACK="$2" ;; *) before_source=$2 ;; esac
      shift ;;
    -*) usage ;;
    *) if [ -z "$after" ]; then after=$1; elif [ -z "$before" ]; then before=$1; else usage; fi ;;
  esac
  shift
done
[ -n "$after$list" ] || usage
for program in "$after" "$before"; do
  [ -z "$program" ] || [ -x "$program" ] || { echo "isolation: $program is no program; build it with 'swift build -c release'" >&2; exit 64; }
done
[ "$(id -u)" != 65534 ] || { echo "isolation: run it as another user than nobody, whom the back-end lets ask for nothing" >&2; exit 64; }
command -v gcc >/dev/null || { echo "isolation: gcc is missing; .ci/setup test installs it" >&2; exit 64; }

work=$(mktemp -d)
# Sockets and traces lie in memory, so that no disk takes part in what is measured.
stage=$(mktemp -d /dev/shm/isolation.XXXXXX 2>/dev/null) || stage=$work/stage
child=
clean() {
  [ -z "$child" ] || kill -9 "$child" 2>/dev/null || true
  rm -rf "$work" "$stage"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

gcc -std=gnu11 -O2 -Wall -pthread -o "$work/isolation" "$here"/isolation/isolation.c "$here"/isolation/stage.c "$here"/isolation/attackers.c "$here"/isolation/peer.c -lm
if [ -n "$list" ]; then
  "$work/isolation" list $quick | awk -F '\t' '{printf "%-22s %-18s %s\n", $1, $2, $3}'
  exit 0
fi
guard() { # SOURCE OUTPUT
  gcc -std=gnu11 -O2 -pthread -I"$1/Sources/CLinux/include" -o "$2" "$here/isolation/guard.c" "$1/Sources/CLinux/Guard.c" 2>"$2.log"
}
guard "$here/../.." "$work/guard-after" || { echo "isolation: Guard.c does not build by itself:" >&2; head -5 "$work/guard-after.log" >&2; }
[ -z "$before_source" ] || guard "$before_source" "$work/guard-before" || { echo "isolation: the older Guard.c does not build by itself" >&2; }

after=$(realpath "$after")
[ -z "$before" ] || before=$(realpath "$before")
seed=${seed:-$(date +%s)}
names=$("$work/isolation" list $quick | cut -f 1)
if [ -n "$only" ]; then
  all=$("$work/isolation" list | cut -f 1)
  names=$(echo "$only" | tr ',' '\n')
  for name in $names; do
    echo "$all" | grep -qx -- "$name" || { echo "isolation: no attack $name; --list lists them" >&2; exit 64; }
  done
fi
echo "isolation: seed $seed" >&2

run() { # NAME PROGRAM COLUMN: its rows go to $work/rows
  rm -rf "$stage" && mkdir -p "$stage"
  set -- "$1" "$2" "$3" $quick
  [ ! -x "$work/guard-$3" ] || set -- "$@" --guard "$work/guard-$3"
  name=$1 program=$2
  shift 3
  "$work/isolation" run "$name" --sluice "$program" --folder "$stage" --seed "$seed" "$@" >"$work/rows" &
  child=$!
  status=0
  wait "$child" || status=$?
  child=
  if [ $status -ne 0 ]; then
    printf 'row\t%s\t-\tthe attack can be judged\tyes\tstatus %s\tBROKEN\tits time was over, or the judge failed\n' "$name" $status >>"$work/rows"
  fi
}

: >"$work/table"
for name in $names; do
  printf 'isolation: %s' "$name" >&2
  if [ -n "$before" ]; then
    printf ' before…' >&2
    run "$name" "$before" before
    sed 's/^row/before/' "$work/rows" >>"$work/table"
    printf ' after…' >&2
  fi
  run "$name" "$after" after
  if cut -f 7 "$work/rows" | grep -q BROKEN; then
    printf ' again…' >&2
    run "$name" "$after" after
  fi
  sed 's/^row/after/' "$work/rows" >>"$work/table"
  if cut -f 7 "$work/rows" | grep -q BROKEN; then echo " BROKEN" >&2; else echo " ok" >&2; fi
done

awk -F '\t' -v has_before="$before" -v json="$json" -v seed="$seed" '
  function quoted(text) { gsub(/\\/, "\\\\", text); gsub(/"/, "\\\"", text); return "\"" text "\"" }
  {
    key = $2 SUBSEP $4
    if (!(key in seen)) { seen[key] = 1; order[++count] = key; adversary[key] = $3; limit[key] = $5; name[key] = $2; what[key] = $4 }
    if ($5 != "-") { limit[key] = $5; adversary[key] = $3 }
    if ($1 == "before") { before[key] = $6 ($7 == "BROKEN" ? " !" : ""); before_verdict[key] = $7; if (!note[key]) note[key] = $8 }
    else { after[key] = $6; verdict[key] = $7; after_note[key] = $8 }
  }
  END {
    format = has_before ? "%-21s %-17s %-50s %-16s %-42s %-42s %s\n" : "%-21s %-17s %-50s %-16s %-42s %s\n"
    if (has_before) printf format, "attack", "adversary", "measured", "limit", "before", "after", "verdict"
    else printf format, "attack", "adversary", "measured", "limit", "value", "verdict"
    broken = 0
    for (n = 1; n <= count; n++) {
      key = order[n]
      # A row that only the older one has is no row of this one.
      shown = (key in verdict) ? verdict[key] : "-"
      value = (key in after) ? after[key] : "-"
      old = (key in before) ? before[key] : "-"
      if (has_before) printf format, name[key], adversary[key], what[key], limit[key], old, value, shown
      else printf format, name[key], adversary[key], what[key], limit[key], value, shown
      if (after_note[key] ~ /^refused/ || after_note[key] != "" && shown != "ok") printf "%-21s %s\n", "", after_note[key]
      if (shown == "BROKEN") broken++
      if (shown == "BROKEN" && what[key] == "the attack can be judged") unjudged = 1
      if (before_verdict[key] == "BROKEN") was++
      if (shown == "skipped") skipped++
    }
    if (has_before) printf "isolation: %d limits of %d broken before, %d after; %d skipped\n", was, count, broken, skipped
    else printf "isolation: %d limits of %d broken; %d skipped\n", broken, count, skipped
    if (json) {
      printf "{\"schema\":1,\"seed\":%s,\"rows\":[", seed >json
      for (n = 1; n <= count; n++) {
        key = order[n]
        printf "%s\n{\"attack\":%s,\"adversary\":%s,\"measured\":%s,\"limit\":%s,\"before\":%s,\"after\":%s,\"verdict\":%s,\"note\":%s}", (n == 1 ? "" : ","), quoted(name[key]), quoted(adversary[key]), quoted(what[key]), quoted(limit[key]), ((key in before) ? quoted(before[key]) : "null"), ((key in after) ? quoted(after[key]) : "null"), ((key in verdict) ? quoted(verdict[key]) : "null"), quoted(after_note[key]) >json
      }
      print "\n]}" >json
    }
    exit unjudged ? 2 : broken > 0
  }' "$work/table"
