#!/bin/sh
# initrd.sh KERNEL PROGRAMS OUT
# Makes a guest's initial RAM disk: busybox, the drivers of the unpacked kernel package in KERNEL, our programs, /init.
set -eu
rig=$(cd "$(dirname "$0")" && pwd)
kernel=$1 programs=$2 out=$3

# virtio_net with all that it may need; a kernel that has one of them built in has no module of that name.
modules="virtio virtio_ring virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev failover net_failover dimlib virtio_net"
# VFIO, for a guest that has a card of its own.
modules="$modules irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
release=$(basename "$kernel"/lib/modules/*)
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/lib/modules/$release"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$programs/sink" "$programs/frontend" "$programs/wire" "$programs/rings" "$root/bin/"
cp "$rig/guest/init" "$rig/guest/agent" "$root/"
for module in $modules; do
  find "$kernel/lib/modules/$release" \( -name "$module.ko" -o -name "$module.ko.xz" \) -exec cp {} "$root/lib/modules/$release/" \;
done
cp "$kernel/lib/modules/$release/modules.builtin" "$kernel/lib/modules/$release/modules.order" "$root/lib/modules/$release/"
find "$root/lib/modules" -name '*.xz' -exec busybox unxz {} +
busybox depmod -b "$root" "$release"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) > "$out.new"
mv "$out.new" "$out"
