#!/usr/bin/env bash
# The memory gate: the release binary under memcheck, in its different ways of running. What no test of a debug build
# can see: memory that the optimiser lets go of too early, and values that were never set.
#   memory.sh SLUICE TRACES
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
strip -g -o "$work/sluice" "$1"
export SWIFT_BACKTRACE=enable=no
check() {
  valgrind -q --error-exitcode=99 "$work/sluice" replay "$2/vlan.pcap" --quiet "${@:3}" >"$work/out" 2>&1 ||
    { echo "memory: sluice replay ${*:3}"; head -40 "$work/out"; exit 1; }
}
check "$@" --verify
check "$@" --cpus 0 --no-verify
check "$@" --deterministic --no-preload --write "$work/got.pcap" --event-log "$work/log"
check "$@" --deterministic --vm a,queues=2 --vm b,buffers=small --vm c,buffers=awkward,stall-after=5 --loop 3
echo "memory: no access outside what is there, no value used before it was set"
