#!/bin/sh
# Makes what the tests with real guests run on, in .build/rig (or $SLUICE_RIG):
#   kernel-6.1, kernel-6.12   Linux as Debian 12 and its backports have it, and an initial RAM disk for each
#   kernel-6.12-generic       the backports' Linux for machines of every kind: it can poison memory that is freed
#   qemu                      the backports' QEMU, beside the machine's own: that one crashes under software emulation
#                             when a vhost-user device has MSI-X
#   dpdk                      testpmd: a vhost-user front-end and back-end that no one here wrote
#   programs                  ours, for guests and for the host
#   rust, crates              a compiler, and rust-vmm's vhost-user front-end: what one of the programs is built with
# Packages are unpacked there and not installed: nothing on the machine changes, and root is not needed.
# What is there already is kept; with all there it takes a moment and asks no one. What cannot be had is said, and
# written to missing/NAME: the tests that need it are skipped with these words.
#   prepare.sh            fetches what is not there, and builds
#   prepare.sh --offline  builds only
#   prepare.sh --iommufd  also builds kernel-iommufd, a small Linux that has what Debian's have not: iommufd and VFIO's
#                         device files. It takes four minutes; without it the tests that need it are skipped
set -eu
cd "$(dirname "$0")/../.."
sources=$PWD/Tests/Rig
rig=${SLUICE_RIG:-$PWD/.build/rig}
offline=${1:-}
mkdir -p "$rig/missing" "$rig/programs"

# One at a time: two test runs may begin together.
exec 9> "$rig/lock"
flock 9

missing() { # NAME REASON: what stands in the way; without the network, what stood there when there was one
  if [ "$offline" = --offline ] && [ -s "$rig/missing/$1" ]; then return 0; fi
  echo "rig: $1: $2" >&2
  echo "$2" > "$rig/missing/$1"
}
unfetched() { # NAME: nothing of it could be tried
  if [ "$offline" = --offline ]; then missing "$1" "not fetched yet: run Tests/Rig/prepare.sh"
  else missing "$1" "apt cannot fetch Debian's package lists"; fi
}

# --- packages, by apt with its configuration and state in the rig ---

apt_ready=
apt_begin() { # writes the sources that the machine's own mirror has, and gets their lists
  [ -z "$apt_ready" ] || return "$apt_ready"
  apt_ready=1
  [ "$offline" != --offline ] || return 1
  command -v apt-get > /dev/null || return 1
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)/$(LABEL)' 'Created-By: Packages' 2> /dev/null |
    sed -n 's, Debian/Debian$,,p' | head -1)
  [ -n "$mirror" ] || return 1
  mkdir -p "$rig/apt/lists/partial" "$rig/apt/archives/partial"
  for suite in bookworm bookworm-backports; do echo "deb [signed-by=$keys] $mirror $suite main"; done > "$rig/apt/sources.list"
  apt_do get -q update > "$rig/apt/log" 2>&1 || return 1
  apt_ready=0
}

apt_do() { # get|cache ARGUMENTS
  tool=$1
  shift
  "apt-$tool" -o Dir::Etc::sourcelist="$rig/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$rig/apt" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$rig/apt" \
    -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o APT::Get::List-Cleanup=0 "$@"
}

unpack() { # NAME SUITE PACKAGE...: the packages and what of their dependencies is not installed, into $rig/NAME
  name=$1 suite=$2
  shift 2
  [ ! -e "$rig/$name/complete" ] || return 0
  apt_begin || { unfetched "$name"; return 0; }
  rm -rf "$rig/$name" "$rig"/apt/archives/*.deb
  apt_do get -q -y -d -t "$suite" --no-install-recommends --reinstall install "$@" >> "$rig/apt/log" 2>&1 ||
    { missing "$name" "apt cannot fetch $* from $suite: $(grep '^E:' "$rig/apt/log" | tail -1)"; return 0; }
  mkdir -p "$rig/$name"
  for archive in "$rig"/apt/archives/*.deb; do dpkg -x "$archive" "$rig/$name"; done
  rm -f "$rig"/apt/archives/*.deb
  # What only a build would need, and is most of it.
  find "$rig/$name" -name '*.a' -delete
  touch "$rig/$name/complete"
}

kernel() { # NAME SUITE PACKAGE: the kernel alone; what its package depends on is for machines that boot from it
  [ ! -e "$rig/$1/complete" ] || return 0
  apt_begin || { unfetched "$1"; return 0; }
  image=$(apt_do cache -o APT::Default-Release="$2" show --no-all-versions "$3" 2> /dev/null |
    sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p' | head -1)
  rm -rf "${rig:?}/$1"
  mkdir -p "$rig/$1"
  (cd "$rig/$1" && apt_do get -q download "${image:-$3}" >> "$rig/apt/log" 2>&1 && dpkg -x ./*.deb . && rm ./*.deb) ||
    { missing "$1" "apt cannot fetch ${image:-$3} from $2"; return 0; }
  # Of the drivers only what the initial RAM disk takes.
  find "$rig/$1/lib/modules" -name '*.ko*' | grep -vE '/(virtio|failover|net_failover|dimlib|irqbypass|vfio)[^/]*$' | xargs rm -f
  ln -sf "boot/$(basename "$rig/$1"/boot/vmlinuz-*)" "$rig/$1/vmlinuz"
  touch "$rig/$1/complete"
}

[ "$offline" = --offline ] || rm -f "$rig"/missing/*
kernel kernel-6.1 bookworm linux-image-cloud-amd64
kernel kernel-6.12 bookworm-backports linux-image-cloud-amd64
kernel kernel-6.12-generic bookworm-backports linux-image-amd64
unpack qemu bookworm-backports qemu-system-x86
unpack dpdk bookworm dpdk-dev librte-net-vhost23 librte-net-virtio23 librte-net-pcap23 librte-net-tap23

# --- the C library's headers of the next Debian ---

headers() { # NAME SUITE PACKAGE...: headers alone, to compile against; the next run writes the list of sources anew
  [ ! -e "$rig/$1/complete" ] || return 0
  name=$1 from=$2
  shift 2
  apt_begin || { unfetched "$name"; return 0; }
  echo "deb [signed-by=$keys] $mirror $from main" >> "$rig/apt/sources.list"
  apt_do get -q update >> "$rig/apt/log" 2>&1 || { missing "$name" "apt cannot fetch the package lists of $from"; return 0; }
  rm -rf "${rig:?}/$name"
  mkdir -p "$rig/$name"
  for package in "$@"; do
    (cd "$rig/$name" && apt_do get -q download "$package/$from" >> "$rig/apt/log" 2>&1 && dpkg -x ./*.deb . && rm ./*.deb) ||
      { missing "$name" "apt cannot fetch $package from $from"; return 0; }
  done
  touch "$rig/$name/complete"
}
headers headers-trixie trixie libc6-dev linux-libc-dev libcrypt-dev libpcap0.8-dev libssl-dev libnuma-dev

# --- a kernel with iommufd ---

# Everything is built in: no module, no other drivers than those of what the tests' machine has.
on="64BIT SMP PRINTK TTY SERIAL_8250 SERIAL_8250_CONSOLE BLK_DEV_INITRD RD_GZIP BINFMT_ELF BINFMT_SCRIPT PROC_FS SYSFS
  DEVTMPFS TMPFS SHMEM FUTEX EPOLL EVENTFD SIGNALFD TIMERFD MULTIUSER POSIX_TIMERS MEMFD_CREATE HUGETLBFS ADVISE_SYSCALLS
  AIO HIGH_RES_TIMERS NO_HZ_IDLE KALLSYMS ACPI PCI PCI_MSI PCIEPORTBUS PCIEAER PCI_IOV HOTPLUG_PCI HOTPLUG_PCI_PCIE X86_X2APIC IRQ_REMAP
  IOMMU_SUPPORT INTEL_IOMMU VIRTIO_MENU VIRTIO VIRTIO_PCI VIRTIO_NET IOMMUFD VFIO VFIO_GROUP VFIO_CONTAINER VFIO_IOMMU_TYPE1
  VFIO_DEVICE_CDEV VFIO_PCI NET INET UNIX PACKET NETDEVICES NET_CORE ETHERNET NET_VENDOR_INTEL IGB PTP_1588_CLOCK MEMBARRIER RSEQ MMU_NOTIFIER NUMA IO_URING"
iommufd_kernel() {
  # 6.12 does not map guests' memory by its files.
  version=7.2 origin=trixie-backports tree="$rig/linux-source-$version"
  if [ ! -d "$tree" ]; then
    apt_begin || { unfetched kernel-iommufd; return 0; }
    # Of that suite nothing else is wanted; the next run writes this list anew.
    echo "deb [signed-by=$keys] $mirror $origin main" >> "$rig/apt/sources.list"
    apt_do get -q update >> "$rig/apt/log" 2>&1 || { missing kernel-iommufd "apt cannot fetch the package lists of $origin"; return 0; }
    (cd "$rig" && apt_do get -q download linux-source-$version >> "$rig/apt/log" 2>&1 && dpkg-deb --fsys-tarfile linux-source-*.deb |
      tar -xO ./usr/src/linux-source-$version.tar.xz | tar -xJ && rm linux-source-*.deb) || { missing kernel-iommufd "apt cannot fetch linux-source-$version from $origin"; return 0; }
  fi
  for tool in flex bison bc make gcc; do
    command -v $tool > /dev/null || { missing kernel-iommufd "there is no $tool: run .ci/setup test"; return 0; }
  done
  (
    cd "$tree"
    make -s tinyconfig
    for option in $on; do scripts/config -e $option; done
    make -s olddefconfig
    nice make -s -j"$(nproc)" bzImage
  ) > "$rig/kernel-iommufd.log" 2>&1 || { missing kernel-iommufd "it was not built: $(tail -1 "$rig/kernel-iommufd.log")"; return 0; }
  mkdir -p "$rig/kernel-iommufd"
  cp "$tree/arch/x86/boot/bzImage" "$rig/kernel-iommufd/vmlinuz"
  echo "$on" > "$rig/kernel-iommufd/options"
  rm -rf "$tree"
}
# One that was made with other options is made anew.
[ "$offline" != --iommufd ] || { [ -e "$rig/kernel-iommufd/vmlinuz" ] && [ "$(cat "$rig/kernel-iommufd/options" 2> /dev/null)" = "$on" ]; } || iommufd_kernel

# --- programs ---

older() { # FILE SOURCE...: FILE is not there, or older than one of its sources
  file=$1
  shift
  [ -e "$file" ] || return 0
  [ -n "$(find "$@" -newer "$file" | head -1)" ]
}

if command -v gcc > /dev/null; then
  for program in sink trace check feed frontend wire rings; do
    older "$rig/programs/$program" "$sources/programs" || continue
    gcc -O2 -static -Wall -Wextra -Werror -o "$rig/programs/$program" "$sources/programs/$program.c"
  done
else
  missing programs "there is no gcc"
fi

rust_frontend() { # rust-vmm's library as Debian's next release has it, and our program around it
  program="$rig/programs/rust-frontend" origin=forky
  older "$program" "$sources/rust-frontend" || return 0
  command -v gcc > /dev/null || { missing rust-frontend "there is no gcc, which links it: run .ci/setup test"; return 0; }
  if [ ! -e "$rig/crates/complete" ]; then
    apt_begin || { unfetched rust-frontend; return 0; }
    unpack rust bookworm rustc-web cargo-web
    [ -e "$rig/rust/complete" ] || { missing rust-frontend "there is no compiler: $(cat "$rig/missing/rust" 2> /dev/null)"; return 0; }
    # Of that suite nothing else is wanted; the next run writes this list anew.
    echo "deb [signed-by=$keys] $mirror $origin main" >> "$rig/apt/sources.list"
    apt_do get -q update >> "$rig/apt/log" 2>&1 || { missing rust-frontend "apt cannot fetch the package lists of $origin"; return 0; }
    unpack crates $origin librust-vhost-dev
    [ -e "$rig/crates/complete" ] || { missing rust-frontend "there is no vhost library: $(cat "$rig/missing/crates" 2> /dev/null)"; return 0; }
    # Libraries' sources are wanted, and not what apt thinks they need besides.
    find "$rig/crates" -mindepth 1 -maxdepth 1 ! -name usr ! -name complete -exec rm -rf {} +
    find "$rig/crates/usr" -mindepth 2 -maxdepth 2 ! -path '*/share/cargo' -exec rm -rf {} +
  fi
  mkdir -p "$rig/crates/home"
  printf '[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "%s"\n' "$rig/crates/usr/share/cargo/registry" > "$rig/crates/home/config.toml"
  # Beside the package's own folder, where cargo would leave a lock file that fits this machine only.
  rm -rf "$rig/crates/source"
  cp -r "$sources/rust-frontend" "$rig/crates/source"
  (
    cd "$rig/crates/source"
    export LD_LIBRARY_PATH="$rig/rust/usr/lib/x86_64-linux-gnu:$rig/rust/lib/x86_64-linux-gnu"
    CARGO_HOME="$rig/crates/home" RUSTC="$rig/rust/usr/bin/rustc" RUSTFLAGS= nice "$rig/rust/usr/bin/cargo" build --release --offline --target-dir "$rig/crates/target"
  ) > "$rig/rust-frontend.log" 2>&1 || { missing rust-frontend "it was not built: $(grep -m 1 '^error' "$rig/rust-frontend.log")"; return 0; }
  cp "$rig/crates/target/release/rust-frontend" "$program.new"
  mv "$program.new" "$program"
}
rust_frontend

# How to run what was unpacked and not installed.
libraries=usr/lib/x86_64-linux-gnu
cat > "$rig/programs/qemu" << SCRIPT
#!/bin/sh
rig='$rig'
export LD_LIBRARY_PATH="\$rig/qemu/$libraries" QEMU_MODULE_DIR="\$rig/qemu/$libraries/qemu"
exec "\$rig/qemu/usr/bin/qemu-system-x86_64" -L "\$rig/qemu/usr/share/qemu" -L "\$rig/qemu/usr/share/seabios" "\$@"
SCRIPT
cat > "$rig/programs/testpmd" << SCRIPT
#!/bin/sh
# Where the same DPDK is installed, its drivers are loaded in any case, and twice they end it.
[ ! -d /$libraries/dpdk/pmds-23.0 ] || ! command -v dpdk-testpmd > /dev/null || exec stdbuf -oL dpdk-testpmd "\$@"
# Drivers by name, not by path: DPDK refuses a driver whose folder is below one that everyone may write to.
rig='$rig'
export LD_LIBRARY_PATH="\$rig/dpdk/$libraries"
for driver in bus_vdev mempool_ring net_vhost net_virtio net_pcap net_tap; do set -- -d "librte_\$driver.so.23" "\$@"; done
# By lines: its answers go to a file, and are wanted at once.
exec stdbuf -oL "\$rig/dpdk/usr/bin/dpdk-testpmd" "\$@"
SCRIPT
chmod +x "$rig/programs/qemu" "$rig/programs/testpmd"

# --- initial RAM disks ---

for tool in busybox cpio gzip; do command -v $tool > /dev/null || missing initrd "there is no $tool"; done
for kernel in kernel-6.1 kernel-6.12 kernel-6.12-generic; do
  [ -e "$rig/$kernel/complete" ] && [ -e "$rig/programs/sink" ] && [ -e "$rig/programs/frontend" ] && [ -e "$rig/programs/wire" ] && [ -e "$rig/programs/rings" ] && [ ! -e "$rig/missing/initrd" ] || continue
  older "$rig/$kernel/initrd" "$sources/guest" "$sources/initrd.sh" "$rig/programs/sink" "$rig/programs/frontend" "$rig/programs/wire" "$rig/programs/rings" || continue
  "$sources/initrd.sh" "$rig/$kernel" "$rig/programs" "$rig/$kernel/initrd"
done
