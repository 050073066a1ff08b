#!/usr/bin/env bash
# The wider static gate: whatever a turn may come to, by however many calls, the long ways and all, allocates nothing,
# counts no reference, takes no lock and asks the kernel for nothing: of what is outside the program it calls copies of
# memory, and every call names what it calls.
#   reach.sh BINARY FUNCTION
set -euo pipefail
binary=$1 root=$2
objdump -d --no-show-raw-insn "$binary" | swift demangle --compact | awk -v root="$root" '
  function padded(text) { return sprintf("%16s", text) }
  /^[0-9a-f]+ <.*>:$/ {
    at = $1; sub(/^0+/, "", at); name = $0; sub(/^[0-9a-f]+ </, "", name); sub(/>:$/, "", name)
    title[at] = name; ended = 0; farthest = ""
    if (index(name, root "(") == 1) start = at
    next
  }
  # Code without a symbol of its own may lie behind a function: padding to which nothing before it jumps past is its end.
  $2 ~ /^(nop|data16|int3|xchg)/ && last ~ /^(ret|jmp)/ {
    here = $1; sub(/:$/, "", here); if (padded(farthest) <= padded(here)) ended = 1
  }
  { last = $2 }
  ended { next }
  $2 ~ /^(call|j)/ {
    # Of jumps through a table both ends are in the function.
    if ($3 ~ /^\*/) { if ($2 ~ /^call/) indirect[at]++; next }
    to = $0; sub(/^[^<]*</, "", to); sub(/>[^>]*$/, "", to)
    if (to ~ /\+0x[0-9a-f]+$/) { if (padded($3) > padded(farthest)) farthest = $3; next }
    if (!((at, $3) in seen)) { seen[at, $3] = 1; calls[at] = calls[at] " " $3; label[$3] = to }
  }
  END {
    if (start == "") { print "reach: no function " root " in the binary"; exit 2 }
    queue[count++] = start; found[start] = 1
    for (i = 0; i < count; i++) {
      f = queue[i]
      if (indirect[f]) { print "  a call through a pointer in " title[f]; bad++ }
      calling = split(calls[f], list, " ")
      for (k = 1; k <= calling; k++) {
        t = list[k]; if (t in found) continue
        found[t] = 1
        if (label[t] !~ /@plt/) queue[count++] = t
        else if (label[t] !~ /^mem(cpy|move|set)@plt/) { print "  " label[t] " in " title[f]; bad++ }
      }
    }
    if (bad) { print "reach: " root " may come to " bad " calls that no turn must make"; exit 1 }
    print "reach: " root " may come to " count " functions, which call nothing outside but copies of memory"
  }'
