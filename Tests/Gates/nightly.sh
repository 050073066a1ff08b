#!/bin/sh
# What takes too long for every test run: the machine tests with all their rounds, the sanitizers, every attack, and the mutants.
# Some four hours on two processors. Goes on after a failure, and says at the end what failed.
set -u
cd "$(dirname "$0")/../.."
.ci/setup test && Tests/Rig/prepare.sh --iommufd && swift build -c release || exit 1
failed=
step() { # NAME COMMAND...
  name=$1
  shift
  echo "nightly: $name"
  "$@" || failed="$failed $name"
}
step machines env SLUICE_PROGRAM="$PWD/.build/release/sluice" SLUICE_RIG_FULL=1 swift test --no-parallel --filter 'MachineTests\.'
step isolation Tests/Gates/isolation.sh .build/release/sluice
step thread-sanitizer Tests/Gates/sanitize.sh thread
step address-sanitizer Tests/Gates/sanitize.sh address
step mutations Tests/Gates/mutations.sh
[ -z "$failed" ] || {
  echo "nightly: failed:$failed"
  exit 1
}
echo "nightly: all passed"
