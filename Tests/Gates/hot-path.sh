#!/usr/bin/env bash
# The static gate: in the machine code of a turn (turnPath and its two halves, everything else inlined) every call or jump out of
# it must go from the whole to a half, or to one of the long ways, which a frame that is lent never takes, or once a batch to a packed virtqueue. Finds
# retains, allocations, checks of exclusive access, witness calls and whatever lost its inlining.
#   hot-path.sh BINARY
set -euo pipefail
binary=$1
long_ways='MemoryView\.search|closeRun|lendSlowly|lendFrom|settleSlowly|settleFrom|IntelReceiveQueue\.judge\(|stopForFault|postBounces|ReceivePath<.*>\.enter|\.fail\(|showLogged|PackedVirtqueue\.(show|mustNotify)\('
objdump -d --no-show-raw-insn "$binary" | swift demangle --compact | awk -v allow="$long_ways|specialization <Intel.IntelReceiveQueue> of .*ReceivePath.*\\.(lend|settle)\\(\\)" '
  BEGIN {
    parts["turnPath"] = "^Replay\\.turnPath\\("
    parts["lend"] = "^generic specialization <Intel.IntelReceiveQueue> of .*ReceivePath.*\\.lend\\(\\)"
    parts["settle"] = "^generic specialization <Intel.IntelReceiveQueue> of .*ReceivePath.*\\.settle\\(\\)"
  }
  /^[0-9a-f]+ <.*>:$/ {
    name = $0; sub(/^[0-9a-f]+ </, "", name); sub(/>:$/, "", name)
    hot = 0
    for (part in parts) if (name ~ parts[part]) { hot = 1; seen[part]++ }
    next
  }
  hot { count++ }
  hot && ($2 ~ /^call/ || $2 ~ /^jmp/) {
    to = $0
    if (to !~ /</) { print "  an indirect " $2; bad++; next }
    sub(/^[^<]*</, "", to); sub(/>[^>]*$/, "", to)
    base = to; sub(/\+0x[0-9a-f]+$/, "", base)
    if (base == name || to ~ allow) next
    print "  " $2 " to " to; bad++
  }
  END {
    for (part in parts) if (!seen[part]) { print "hot path: no function " part " in the binary"; exit 2 }
    if (bad) { print "hot path: " bad " calls that a turn must not make"; exit 1 }
    print "hot path: " count " instructions, no call but to the long ways"
  }'
