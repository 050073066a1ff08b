#!/bin/sh
# Boots systemd in a container over this machine's own files, where our unit runs as `sluice run --print-unit` prints it,
# and says what became of it. Nothing on the machine changes: what is written goes to FOLDER.
#   systemd.sh SLUICE FOLDER
#   systemd.sh --probe           whether that can be done here
set -eu
[ -n "${SLUICE_OWN_MOUNTS:-}" ] || SLUICE_OWN_MOUNTS=1 exec unshare --mount --propagation private -- "$0" "$@"
if [ "$1" = --probe ]; then
  folder=$(mktemp -d)
  trap 'umount "$folder/root" 2> /dev/null; rm -rf "$folder"' EXIT
else
  sluice=$1 folder=$2
fi
mkdir -p "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
root=$folder/root
contain() { systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$root" "$@" < /dev/null; }
if [ "$1" = --probe ]; then
  contain true
  exit
fi

mkdir -p "$root/usr/local/bin" "$root/etc/sluice" "$root/etc/systemd/system"
cp "$sluice" "$root/usr/local/bin/sluice"
# The one line that the unit says has to be changed for a group.
"$sluice" run --print-unit | sed 's/^#SupplementaryGroups=kvm/SupplementaryGroups=games/' > "$root/etc/systemd/system/sluice.service"
cat > "$root/etc/sluice/sluice.yaml" << 'FILE'
control: {socket: /run/sluice/control.sock}
state-dir: /run/sluice
vms:
- name: web
  socket: /run/sluice/web.sock
  permissions: {group: games, mode: 0660}
FILE
cat > "$root/etc/systemd/system/probe.target" << 'FILE'
[Unit]
Requires=basic.target
Wants=sluice.service probe.service
FILE
cat > "$root/etc/systemd/system/probe.service" << 'FILE'
[Unit]
After=sluice.service
[Service]
Type=oneshot
StandardOutput=append:/probe.log
StandardError=inherit
ExecStart=/bin/sh /probe.sh
ExecStopPost=/bin/systemctl poweroff --force
FILE
cat > "$root/probe.sh" << 'FILE'
pid() { systemctl show -p MainPID --value sluice; }
restarts() { systemctl show -p NRestarts --value sluice; }
state() { systemctl show -p ActiveState --value sluice; }
# Waits are for what happens; 4 minutes are for what does not.
answers() { for i in $(seq 2400); do sluice status --control /run/sluice/control.sock > /status 2>&1 && return; sleep 0.1; done; cat /status; false; }
said() { if "$@"; then echo yes; else echo no; fi; }
echo "started: $(said answers), restarts $(restarts)"
echo "socket: $(stat -c '%U:%G %a' /run/sluice/web.sock)"
systemctl reload sluice
echo "reloaded: $(said answers), restarts $(restarts)"
kill -STOP "$(pid)"
for i in $(seq 2400); do [ "$(restarts)" = 0 ] || break; sleep 0.1; done
echo "hung: $(said answers), restarts $(restarts)"
kill -KILL "$(pid)"
for i in $(seq 2400); do [ "$(restarts)" -lt 2 ] || break; sleep 0.1; done
echo "killed: $(said answers), restarts $(restarts)"
systemctl stop sluice
echo "stopped: $(systemctl show -p Result --value sluice)"
echo "nonsense: 1" >> /etc/sluice/sluice.yaml
systemctl start sluice 2> /dev/null
for i in $(seq 2400); do [ "$(state)" != failed ] || break; sleep 0.1; done
echo "wrong file: $(state), status $(systemctl show -p ExecMainStatus --value sluice)"
journalctl -u sluice --no-pager -o cat
FILE
contain --boot systemd.unit=probe.target > "$folder/console.log" 2>&1 || true
cat "$root/probe.log"
