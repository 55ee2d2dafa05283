#!/usr/bin/env bash
# Figures of the ring beside those of Corosync and etcd, all on this machine in one
# run: three members in three network namespaces on a bridge, in turns. Tables are
# markdown and go to out/ringbench.md too, plots to docs/ring.svg.
#
#   scripts/ringbench.sh [PART...]   order load size corosync registrations failover
#   RUNS=5 SECONDS_EACH=3 KILLS=100 COROSYNC_KILLS=5 CLIENTS=1,64 MEMBERS=3,5,7
#   RATES=1000,...  offered messages per second
#
# Needs root and iproute2. What is missing of corosync, libcpg-dev, gcc and etcd-server
# is named and left out.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${RUNS:-5} seconds=${SECONDS_EACH:-3} kills=${KILLS:-100} clients=${CLIENTS:-1,64}
rates=${RATES:-1000,10000,30000,100000,300000,1000000,2000000}
sizes=${MEMBERS:-3,5,7}
[ $# -gt 0 ] || set -- order load size corosync registrations failover
wanted() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac; }
parts=$*
skip() { echo "ringbench: SKIPPED $*" >&2; echo "- left out: $*" >>out/ringbench.md; }

mkdir -p out
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
	echo "ringbench: SKIPPED, needs root and iproute2" >&2
	exit 0
fi

work=$(mktemp -d)
disk=$(mktemp -d out/etcd.XXXXXX)
memory=$(mktemp -d /dev/shm/etcd.XXXXXX)
net=rsb$$
started=()
end() { # ends what spawn started
	for p in "${started[@]}"; do
		kill -9 "$p" 2>/dev/null || true
		wait "$p" 2>/dev/null || true
	done
	started=()
}
clean() {
	end
	for n in hub 1 2 3; do
		ip netns del "$net-$n" 2>/dev/null || true
	done
	rm -rf "$work" "$disk" "$memory"
}
trap clean EXIT

: >out/ringbench.md
exec 3>&1 > >(tee -a out/ringbench.md)
echo "# The ring beside others"
echo
echo "$(nproc) cores, $(uname -sr), $(date -u +%F); medians of $runs runs of $seconds s in turns."

CGO_ENABLED=0 go build -o "$work" ./cmd/rspd ./scripts/loadgen ./scripts/ringbench
rivals=()
export CPG=$work/cpg
corosync=$PWD/scripts/ringbench/rivals/corosync.sh
if ! command -v corosync >/dev/null || ! command -v gcc >/dev/null ||
	! gcc -O2 -o "$CPG" scripts/ringbench/rivals/cpg.c -lcpg 2>/dev/null; then
	skip "Corosync: apt-get install corosync libcpg-dev gcc"
	CPG=
else
	rivals=(--rival "corosync-knet=$corosync knet" --rival "corosync-udpu=$corosync udpu")
	corosync -v | head -n 1 | sed 's/^/Corosync: /'
fi

# Three namespaces and a hub, from which load comes.
ip netns add "$net-hub"
ip -n "$net-hub" link set lo up
ip -n "$net-hub" link add br0 type bridge
ip -n "$net-hub" address add 10.231.78.100/24 dev br0
ip -n "$net-hub" link set br0 up
for i in 1 2 3; do
	ip netns add "$net-$i"
	ip -n "$net-$i" link add eth0 type veth peer name "m$i" netns "$net-hub"
	ip -n "$net-hub" link set "m$i" master br0 up
	ip -n "$net-$i" address add "10.231.78.$i/24" dev eth0
	ip -n "$net-$i" link set lo up
	ip -n "$net-$i" link set eth0 up
done
spawn() { # spawn PLACE LOG COMMAND...
	local place=$1 log=$2
	shift 2
	ip netns exec "$net-$place" "$@" >"$log" 2>&1 &
	started+=($!)
}
hub() { ip netns exec "$net-hub" "$@"; }
reaches() { hub bash -c ": <>/dev/tcp/$1/$2" 2>/dev/null; }
await() { # await ADDRESS PORT
	for _ in $(seq 300); do
		if reaches "$1" "$2"; then return 0; fi
		sleep 0.1
	done
	echo "ringbench: nobody listens at $1:$2" >&2
	return 1
}

if wanted order; then
	echo
	echo "## Ordered messages"
	# The ring without batches: one message at each visit of the token.
	"$work/ringbench" run --members 3 --runs "$runs" --seconds "$seconds" --tables throughput,latency \
		"${rivals[@]}" --rival "ring, no batches=$work/ringbench member --visit 1"
fi

if wanted load; then
	"$work/ringbench" run --members 3 --runs "$runs" --seconds "$seconds" --tables load --rates "$rates" \
		--json "${rivals[@]}" >"$work/rows"
	"$work/ringbench" run --members "${sizes#3,}" --runs "$runs" --seconds "$seconds" --tables load --rates "$rates" \
		--json >>"$work/rows"
fi
if wanted size; then
	"$work/ringbench" run --members "$sizes" --payloads 100 --runs "$runs" --seconds "$seconds" \
		--tables throughput,latency --json "${rivals[@]}" >>"$work/rows"
fi
if [ -s "$work/rows" ]; then
	echo
	go run ./scripts/ringplot -svg docs/ring.svg <"$work/rows"
fi

if wanted corosync && [ -n "$CPG" ]; then
	echo
	echo "## Corosync: from kill -9 of a daemon to the new membership at the others"
	echo
	echo '| token time-out, ms (coefficient 0) | times, s |'
	echo '|---|---|'
	for token in default 1000 300; do
		times=
		for _ in $(seq "${COROSYNC_KILLS:-5}"); do
			for i in 1 2 3; do
				peers=$(for k in 1 2 3; do [ $k = $i ] || printf 'tcp://10.231.78.%d:1,' $k; done)
				: >"$work/watch$i"
				PIDFILE=$work/pid$i TOTEM=$([ $token = default ] || printf 'token: %s\ntoken_coefficient: 0' $token) \
					spawn "$i" "$work/watch$i" "$corosync" knet --watch --id "$i" --listen "tcp://10.231.78.$i:1" --peers "${peers%,}"
			done
			until grep -q ' 3$' "$work/watch1" && grep -q ' 3$' "$work/watch2" && grep -q ' 3$' "$work/watch3"; do sleep 0.2; done
			sleep 1
			at=$(date +%s.%N)
			kill -9 "$(cat "$work/pid3")"
			until tail -n 1 "$work/watch1" | grep -q ' 2$' && tail -n 1 "$work/watch2" | grep -q ' 2$'; do sleep 0.1; done
			times+=" $(tail -qn 1 "$work/watch1" "$work/watch2" | sort -n | tail -n 1 | awk -v at="$at" '{printf "%.2f", $1 - at}')"
			for i in 1 2; do kill -9 "$(cat "$work/pid$i")" || true; done
			end
		done
		echo "| $token |$times |"
	done
fi

if wanted registrations; then
	echo
	echo "## Registrations acknowledged by all members"
	echo
	systems=()
	list=
	for i in 1 2 3; do
		peers=()
		for k in 1 2 3; do [ $k = $i ] || peers+=(--peer "tcp://10.231.78.$k"); done
		spawn "$i" "$work/rspd$i" "$work/rspd" --id "$i" --insecure --enrp-listen off --admin off --log-level error \
			--listen "tcp://10.231.78.$i:3863" --ring-listen "tcp://10.231.78.$i" "${peers[@]}"
		list+=",tcp://10.231.78.$i:3863"
	done
	for i in 1 2 3; do await "10.231.78.$i" 3863; done
	systems+=(--system "ring=${list#,}")
	if command -v etcd >/dev/null; then
		for kind in disk memory; do
			list= cluster= port=2379
			[ $kind = disk ] || port=2479
			for i in 1 2 3; do
				cluster+=",m$i=http://10.231.78.$i:$((port + 1))"
				list+=",etcd://10.231.78.$i:$port"
			done
			for i in 1 2 3; do
				spawn "$i" "$work/etcd-$kind$i" etcd --name "m$i" --data-dir "${!kind}/m$i" --logger zap --log-level error \
					--listen-client-urls "http://10.231.78.$i:$port" --advertise-client-urls "http://10.231.78.$i:$port" \
					--listen-peer-urls "http://10.231.78.$i:$((port + 1))" \
					--initial-advertise-peer-urls "http://10.231.78.$i:$((port + 1))" \
					--initial-cluster "${cluster#,}" --initial-cluster-token "$kind"
			done
			for i in 1 2 3; do await "10.231.78.$i" $port; done
			systems+=(--system "etcd, $kind=${list#,}")
		done
		etcd --version | head -n 1
		echo
	else
		skip "etcd: apt-get install etcd-server"
	fi
	sleep 3 # all have come together
	hub "$work/loadgen" registrations "${systems[@]}" --clients "$clients" --runs "$runs" --duration "${seconds}s"
	echo
	echo "etcd writes to disk before it acknowledges (memory: to a file system in memory); ours keeps copies in the memory of all members."
	cat "$work"/rspd? >&2
	end
fi

if wanted failover; then
	echo
	echo "## Death of a registrar"
	echo
	hub "$work/loadgen" failover --rspd "$work/rspd" --kills "$kills" --log out/ringbench.failover.log \
		--in "$net-1=10.231.78.1" --in "$net-2=10.231.78.2" --in "$net-3=10.231.78.3"
fi
