#!/usr/bin/env bash
# The guards of steering, of a poll and of what keeps VMs apart, removed one at a time: each must be missed by some test. In a copy of
# what is committed.
#   mutations.sh [NAME...]
# Some hour on two processors; not part of the test command. SLUICE_SEED repeats a run.
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
steering='no hard change|go together|while rules change|ExclusivityTests|SteeringOracleTests|until a register is written'
turn='DatapathTests|VirtioTests|ModelTests|ReceiveQueueTests'
judges=$steering
# A test that never ends has missed the guard, too.
judge() { timeout 240 swift test --skip-build --no-parallel --filter "$judges" >test.log 2>&1 </dev/null; }
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
for judges in "$steering" "$turn" 'FairSharesTests|MessageBudgetTests'; do judge || { echo "the tests fail without any change"; grep '✘' test.log | head -5; exit 1; }; done

judges=$steering
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

judges=$turn
split=Sources/Virtio/SplitVirtqueue.swift path=Sources/Datapath/ReceivePath.swift
mutate head-taken-twice $split 'UInt32(head) <= mask && outstanding[Int(head)] == 0' 'UInt32(head) <= mask && outstanding[Int(head)] < 2'
mutate head-stays-out $split 'UInt64(byteCount) << 32)
    unsafe outstanding[Int(UInt32(id) & mask)] = 0' 'UInt64(byteCount) << 32)'
mutate chain-put-as-one Sources/Virtio/PackedVirtqueue.swift 'return unsafe lengths[Int(n)] == 1' 'return true'
mutate lent-too-short $path '_fastPath(buffer.range.count >= need), let slice = memory.slice(buffer.range),
      posting.post' 'let slice = memory.slice(buffer.range),
      posting.post'
mutate refused-is-lent $path 'if queue.post(address) {
        core.enterLent()' 'if queue.post(address) || true {
        core.enterLent()'
mutate copied-from-a-lent-slot $path 'putting.isPlain(at: n), ledger.isBounced(n) {' 'putting.isPlain(at: n) {'
mutate copied-past-the-end $path 'entry.kind == .piece && entry.byteCount >= length' 'entry.kind == .piece'
mutate asleep-without-asking $path 'if hasShown { notify() }
    if stopReason' 'if stopReason'
mutate slots-stay-bounced Sources/Datapath/Ledger.swift 'for n in 0..<count { unsafe slots[Int((slotFront &+ n) & slotMask)] = false }' ''
mutate pool-runs-over Sources/Datapath/BouncePool.swift 'min(most, min(free, UInt32(truncatingIfNeeded: capacity &- index)))' 'min(most, free)'
mutate damage-is-whole Sources/Intel/Queues/IntelReceiveQueue.swift 'verdict: verdict | ReceiveDescriptor.done' 'verdict: ReceiveDescriptor.endOfPacket | ReceiveDescriptor.done'
mutate poll-without-a-budget $path 'if core.refillBudget <= 0 { return core.countCut() }' ''
mutate long-chain-taken Sources/Virtio/DescriptorChain.swift 'guard descriptorCount < Self.largestCount else { return .chainTooLong(head: head) }' ''
mutate frame-over-all-chains Sources/Datapath/ReceiveCore.swift 'guard work <= DescriptorChain.largestCount else {' 'guard true else {'
judges='FairSharesTests|MessageBudgetTests'
mutate lead-forgiven Sources/Control/FairShares.swift 'let least = leastMoved != .max ? leastMoved : leastPassed' 'let least = UInt64.max'
mutate bucket-without-end Sources/VhostUser/MessageBudget.swift '>= Self.burst * Self.interval { isEmptied = true }' '>= Self.burst * Self.interval { isEmptied = false }'

# What keeps VMs apart: each was once missing.
judges='OfferTests'
mutate ring-reset-is-offered Sources/Control/Offer+VM.swift '.version1, .mergeableBuffers, .eventIndex,' 'Features(rawValue: 1 << 40), .version1, .mergeableBuffers, .eventIndex,'
judges='ReaperTests|Blocking'
mutate closed-by-whoever-lets-go Sources/Linux/OwnedDescriptor.swift 'if let reaper { reaper.close(number) } else {' 'if let reaper, reaper.limit < 0 { reaper.close(number) } else {'
mutate descriptors-without-end Sources/Linux/Reaper.swift 'openCount + UnixStream.mostDescriptors <= limit' 'openCount >= 0'
mutate an-eventfd-by-any-name Sources/CLinux/Sockets.c 'if (strcmp(link, "anon_inode:[eventfd]") == 0) return SL_KIND_EVENT;' 'if (strstr(link, "[eventfd]") != NULL) return SL_KIND_EVENT;'
mutate closed-before-it-is-raised Sources/CLinux/Reaper.c 'if (reaper->raise_count > 0) {' 'if (reaper->raise_count > 0 && reaper->count == 0) {'
judges='Descriptors'
mutate any-socket-for-requests Sources/VhostUser/Backend+Network.swift 'socket.isUnixStream, socket.isUnnamedPair else' 'socket.isUnixStream else'
judges='SourceCheckTests|Spoofing|SendingTests'
mutate any-source Sources/Datapath/SourceCheck.swift 'if source != address { return .refuse }' ''
mutate any-vlan Sources/Datapath/SourceCheck.swift 'return identifier == vlan ? .send : .refuse' 'return .send'
mutate the-card-does-not-check Sources/Intel/Ixgbe/Ixgbe+Sending.swift 'if registers.read(PFVFSPOOF.self, n).rawValue != check.rawValue { registers.write(check, n) }' ''
judges='without an AIO context'
mutate no-context-at-the-start Sources/Linux/ProcessLimits.swift 'guard sl_raise_prepare() == 0 else { throw SystemError(.ioSetup) }' ''
judges='InflightTests'
mutate inflight-of-a-vm Sources/VhostUser/Backend+Inflight.swift 'guard inflightFiles.ofVM < limits.inflightAtOnce else' 'guard inflightFiles.ofVM < .max else'
judges='GuardTests'
mutate bounds-of-two-guards Sources/CLinux/Guard.c 'while (atomic_load(&guards[number].inside) != 0) sched_yield();' ''
judges='it ends when asked'
mutate asleep-for-ever Sources/Control/WorkerThread.swift 'if isStopping { return }
      }' '}'
judges='ConfigurationFileTests'
mutate aliases-are-composed Sources/sluice/Run/YAMLStructure.swift 'case YAML_ALIAS_EVENT: return problem("aliases are not accepted; write the value out")' 'case YAML_ALIAS_EVENT: continue'
judges='MessageBudgetTests|VhostUserTests'
mutate memory-without-limit Sources/VhostUser/MemoryTable.swift 'guard total <= mostBytes else' 'guard total <= .max else'
mutate ring-without-limit Sources/VhostUser/Backend+Rings.swift 'guard Int(state.number) <= limits.largestRing else' 'guard Int(state.number) <= .max else'
judges='BusTests|ProtectedQueueTests|Protection'
mutate unmapped-while-lent Sources/Bus/LentPages.swift 'for page in idle where lentCounts[page] == 0 { unmap(page) }' 'for page in idle { unmap(page) }'
mutate two-threads-lend Sources/Bus/LentPages.swift 'guard address >= start else { return true }
    thread.check()' 'guard address >= start else { return true }'
mutate failed-unmap-is-forgotten Sources/Bus/LentPages.swift 'space.unmapFailures.record(error, at: IOVA(page), byteCount: Int(Self.pageBytes), keeping: region)' '_ = region'
mutate memory-is-freed-all-the-same Sources/Bus/UnmapFailures.swift 'if !kept.contains(where: { $0 === memory }) { kept.append(memory) }' '_ = kept'
mutate bus-master-stays-on Sources/Bus/UnmapFailures.swift 'stop?()' ''
judges='RingLives'
mutate contained-and-still-mapped Sources/Control/GuestDevice+Containment.swift 'if let window { waitingMap = window.map }
      closeWindow()
    }
    failure' '}
    failure'
exit $status
