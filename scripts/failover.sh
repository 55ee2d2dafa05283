#!/usr/bin/env bash
# How long a user of a session waits when its element fails: one request every
# millisecond over TCP, the element killed (kill -9), stopped (SIGSTOP) or cut off
# silently, under each preset of timers. Elements run in network namespaces on a
# bridge. What it prints is a table of docs/performance.md; it goes to out/failover.md
# too.
#
#   scripts/failover.sh [COUNT]     failovers of each kind, default 200
#
#   PRESETS=fast,default,patient FAULTS='kill -9,SIGSTOP,silent cut'
#   LANES=10    pairs of elements that may fail at a time; patient uses all, default 4
#               of them, fast one
#
# 200 of each take half an hour, most of it waiting: 'scripts/failover.sh 10' is a first
# look. Needs root and iproute2.
set -euo pipefail
cd "$(dirname "$0")/.."

count=${1:-200} presets=${PRESETS:-fast,default,patient} faults=${FAULTS:-kill -9,SIGSTOP,silent cut} lanes=${LANES:-10}
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
	echo "failover: SKIPPED, needs root and iproute2" >&2
	exit 0
fi
case $presets in *patient*) ;; *default*) lanes=$((lanes < 4 ? lanes : 4)) ;; *) lanes=1 ;; esac

mkdir -p out
work=$(mktemp -d)
net=rsf$$
registrar=
clean() {
	if [ -n "$registrar" ]; then
		kill "$registrar" 2>/dev/null || true
		wait "$registrar" 2>/dev/null || true
	fi
	for n in hub $(seq $((2 * lanes))); do
		ip netns del "$net-$n" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap clean EXIT

CGO_ENABLED=0 go build -o "$work" ./cmd/rspd ./scripts/sessionbench

ip netns add "$net-hub"
ip -n "$net-hub" link set lo up
ip -n "$net-hub" link add br0 type bridge
ip -n "$net-hub" address add 10.231.79.100/24 dev br0
ip -n "$net-hub" link set br0 up
places=()
for i in $(seq $((2 * lanes))); do
	ip netns add "$net-$i"
	ip -n "$net-$i" link add eth0 type veth peer name "m$i" netns "$net-hub"
	ip -n "$net-hub" link set "m$i" master br0 up
	ip -n "$net-$i" address add "10.231.79.$i/24" dev eth0
	ip -n "$net-$i" link set lo up
	ip -n "$net-$i" link set eth0 up
	places+=(--in "$net-$i=10.231.79.$i")
done

ip netns exec "$net-hub" "$work/rspd" --listen tcp://10.231.79.100 --enrp-listen off --admin off \
	--insecure --log-level error 2>"$work/rspd.log" &
registrar=$!
for _ in $(seq 100); do
	if ip netns exec "$net-hub" bash -c ': <>/dev/tcp/10.231.79.100/3863' 2>/dev/null; then break; fi
	kill -0 "$registrar" 2>/dev/null || { cat "$work/rspd.log" >&2; exit 1; }
	sleep 0.1
done
ip netns exec "$net-hub" "$work/sessionbench" failover --registrar tcp://10.231.79.100 "${places[@]}" \
	--count "$count" --presets "$presets" --faults "$faults" | tee out/failover.md
cat "$work/rspd.log" >&2
