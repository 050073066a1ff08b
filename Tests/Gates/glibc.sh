#!/bin/sh
# Everything that imports the C library compiles against the headers of the next Debian too: those of Debian 12 (glibc 2.36) declare
# fewer pointers as never null than those of Debian 13 (2.41).
#   glibc.sh            all libraries below Replay: half a minute
# Tests/Rig/prepare.sh brings the headers; where it could not, this says so and is no failure.
set -eu
cd "$(dirname "$0")/../.."
rig=${SLUICE_RIG:-$PWD/.build/rig}
root=$rig/headers-trixie
if [ ! -e "$root/complete" ]; then
  echo "glibc: skipped: $(cat "$rig/missing/headers-trixie" 2> /dev/null || echo "run Tests/Rig/prepare.sh")"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# The compiler's own headers lie beside its library, wherever that is.
swift=$(swiftc -print-target-info | sed -n 's/.*"runtimeResourcePath" *: *"\(.*\)".*/\1/p')
# clang looks for a C compiler's start files below the root that it is given.
mkdir -p "$root/usr/lib" && [ -e "$root/usr/lib/gcc" ] || ln -s /usr/lib/gcc "$root/usr/lib/gcc"
cat > "$out/module.modulemap" << END
module CLinux { umbrella "$PWD/Sources/CLinux/include" export * }
END
status=0
for target in Linux FlowSteering GuestMemory FlowTables FlowDialects Capture Virtio Bus NIC VFIO VhostUser Datapath Intel Simulation; do
  # As a whole: for a module alone the bodies of functions would not be checked.
  swiftc -wmo -emit-module -parse-as-library -module-name $target -package-name sluice $(find "Sources/$target" -name '*.swift') \
    -o "$out/$target.swiftmodule" -sdk "$root" -resource-dir "$swift" -module-cache-path "$out/cache" -swift-version 6 -Onone -D DEBUG \
    -enable-upcoming-feature ExistentialAny -enable-upcoming-feature InternalImportsByDefault -enable-upcoming-feature MemberImportVisibility \
    -I "$out" -I Sources/CPcap -I Sources/CNuma -I Sources/CCrypto > "$out/log" 2>&1 ||
    { echo "glibc: $target does not compile against $(sed -n 's/^#define.__GLIBC_MINOR__.*\([0-9][0-9]\)/glibc 2.\1/p' "$root/usr/include/features.h")"; grep -m5 error: "$out/log"; status=1; break; }
done
[ $status != 0 ] || echo "glibc: every library below Replay compiles against glibc 2.$(sed -n 's/^#define.__GLIBC_MINOR__[^0-9]*//p' "$root/usr/include/features.h")"
exit $status
