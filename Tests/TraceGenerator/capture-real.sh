#!/bin/sh
# How Traces/real.pcap was made: real traffic of the kernel between two network namespaces, joined by a veth pair.
# Needs root, iproute2, ethtool, tcpdump, ping, python3. Usage: capture-real.sh OUT.pcap
# A new capture differs from the committed one: times, ports and interleaving are the machine's.
set -eu
out=$1
a=sluice-trace-a b=sluice-trace-b
clean() { ip netns del $a 2>/dev/null || true; ip netns del $b 2>/dev/null || true; }
trap clean EXIT
clean

ip netns add $a
ip netns add $b
ip link add va netns $a type veth peer name vb netns $b
ip -n $a link set va address 02:00:00:00:00:f0
ip -n $b link set vb address 02:00:00:00:00:01
for side in a b; do
  ns=sluice-trace-$side
  # So that frames are as on a wire: at most 1514 bytes, with checksums.
  ip netns exec $ns ethtool -K v$side tso off gso off gro off tx off rx off >/dev/null
  ip netns exec $ns sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
  ip -n $ns link set lo up
  ip -n $ns link set v$side up
done
ip -n $a addr add 10.77.0.1/24 dev va
ip -n $b addr add 10.77.0.2/24 dev vb

ip netns exec $b tcpdump -q -n -i vb --time-stamp-precision=nano -s 262144 -U -w "$out" 2>/dev/null &
dump=$!
sleep 1

ip netns exec $a ping -q -c 5 -i 0.2 10.77.0.2 >/dev/null
ip netns exec $a ping -q -c 3 -i 0.2 -s 1400 10.77.0.2 >/dev/null
ip netns exec $b python3 - server <<'PYTHON' &
import socket, struct, threading
def names():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("10.77.0.2", 53))
    while True:
        q, peer = s.recvfrom(512)
        # The question, and one A record for it.
        s.sendto(q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\x4d\0\2", peer)
threading.Thread(target=names, daemon=True).start()
l = socket.create_server(("10.77.0.2", 8080))
c, _ = l.accept()
while c.recv(65536): pass
c.sendall(b"done")
c.close()
PYTHON
server=$!
sleep 1
ip netns exec $a python3 - <<'PYTHON'
import socket, struct
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(2)
for i in range(40):
    name = b"\x06host%02d\x06sluice\x04test\0" % i
    u.sendto(struct.pack(">HHHHHH", i, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1", ("10.77.0.2", 53))
    u.recvfrom(512)
t = socket.create_connection(("10.77.0.2", 8080))
t.sendall(bytes(i * 7 & 255 for i in range(230_000)))
t.shutdown(socket.SHUT_WR)
t.recv(64)
t.close()
PYTHON
wait $server
sleep 1
kill $dump
wait $dump || true
