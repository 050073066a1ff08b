#!/usr/bin/env bash
# The guards of steering, removed one at a time: each must be missed by some test. In a copy of what is committed.
#   mutations.sh [NAME...]
# Some ten minutes on two processors; not part of the test command. SLUICE_SEED repeats a run.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=${SLUICE_MUTANTS:-$(mktemp -d)}
[ -n "${SLUICE_MUTANTS:-}" ] || trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy"
git -C "$root" archive HEAD | tar -x -C "$copy"
cd "$copy"
intel=Sources/Intel/Ixgbe/Ixgbe+Steering
status=0

build() { swift build --build-tests >build.log 2>&1 || { grep error: build.log | head -5; return 1; }; }
judge() {
  swift test --skip-build --no-parallel \
    --filter 'no hard change|go together|while rules change|ExclusivityTests|SteeringOracleTests|until a register is written' >test.log 2>&1 </dev/null
}
# mutate NAME FILE OLD NEW: OLD stands there once.
mutate() {
  [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]] || return 0
  cp "$2" kept
  OLD=$3 NEW=$4 perl -0pi -e 's/\Q$ENV{OLD}\E/$ENV{NEW}/ or die "not found\n"' "$2" || { echo "$1: its guard is not in $2"; status=1; cp kept "$2"; return 0; }
  if ! build; then echo "$1: does not build"; status=1
  elif judge; then echo "$1: NOT SEEN"; status=1
  else echo "$1: seen by $(grep -c '✘ Test.* recorded' test.log) expectations, the first of \"$(grep -m1 '✘ Test' test.log | sed 's/.*✘ Test "\([^"]*\)".*/\1/')\""; fi
  cp kept "$2"
}

wanted=("$@")
build || exit 1
judge || { echo "the tests fail without any change"; grep '✘' test.log | head -5; exit 1; }

mutate hold "$intel.swift" 'changesBoth && !sharesAddresses || changesMask' 'changesMask'
mutate owners-closed-first "$intel.swift" 'if sharesAddresses && !isHeld {' 'if false {'
mutate mask-hold "$intel.swift" '|| changesMask ||' '|| changesMask && false ||'
mutate closed-pool "$intel.swift" 'if steering.tables == nil { closePool(new.plan.closed) }' ''
mutate filters-before-addresses "$intel.swift" 'try addExactFlows(new)
    try addEtherTypes(new)
    try changeAddressStep(from: start, to: new)' 'try addEtherTypes(new)
    try changeAddressStep(from: start, to: new)
    try addExactFlows(new)'
mutate common-first Sources/Intel/AddressTables.swift 'if !old.hasSameVLANs(as: new) && !old.hasSameAddresses(as: new) {' 'if false {'
mutate halves-narrow-first "${intel}Addresses.swift" 'if changed.count == 2 {' 'if false {'
mutate less-before-more "${intel}Addresses.swift" 'if onlyLess { filter.rawValue &= now.rawValue }' ''
mutate new-from-the-top "${intel}Flows.swift" 'sorted(by: { $0.priority > $1.priority }) {' 'sorted(by: { $0.priority < $1.priority }) {'
mutate old-from-the-bottom "${intel}Flows.swift" 'steering.oldTupleSlots.values.sorted(by: { priority($0) < priority($1) }) { clearTuple' 'steering.oldTupleSlots.values.sorted(by: { priority($0) > priority($1) }) { clearTuple'
mutate in-place-if-disjoint "${intel}Flows.swift" 'for other in kept + changed[(index + 1)...] where entry.overlaps(other) { return false }' 'for other in kept + changed[(index + 1)...] where entry.overlaps(other) && false { return false }'
mutate known-frames-forgotten Sources/Simulation/Card/SimulatedCard.swift 'if isRemoved { return }
    line.stamp &+= 1' 'if isRemoved { return }'
exit $status
