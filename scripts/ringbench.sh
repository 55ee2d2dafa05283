#!/usr/bin/env bash
# Figures of the ring beside those of Corosync and etcd, all on this machine in one
# run: three members in three network namespaces on a bridge, in turns. What it prints
# is the part of docs/performance.md that is about rings, with the command that makes
# each section; it goes to out/ringbench.md too, the plot to docs/ring.svg.
#
#   scripts/ringbench.sh [PART...]
#
# Parts: order batches ahead load size registrations failover join corosync. All of them take
# a quarter of an hour with the defaults, half of it for Corosync, and more than an hour
# with LONG=1. A part that fails is named at its place, at the end and in the exit code; the
# others go on.
#
#   RUNS=3 SECONDS_EACH=1     medians of so many measurements of so many seconds
#   KILLS=100 COROSYNC_KILLS=3 CLIENTS=1,64 MEMBERS=3,5,7
#   JOIN_ELEMENTS=1000,...    elements that a ring knows when a registrar joins it; without RUNS
#                             it joins a million once
#   THREADS=1                 registrars and etcd with GOMAXPROCS=1, for registrations
#   RATES=1000,...            offered messages per second; RIVAL_RATES those of Corosync
#   SVG=FILE                  the plot; without order, load and size it is out/ring.svg
#
# Needs root and iproute2. What is missing of corosync, libcpg-dev, gcc and etcd-server
# is named and left out.
set -euo pipefail
cd "$(dirname "$0")/.."

long=${LONG:-0}
pick() { if [ "$long" != 0 ]; then echo "$2"; else echo "$1"; fi; } # pick SHORT LONG
runs=${RUNS:-$(pick 3 5)} seconds=${SECONDS_EACH:-$(pick 1 3)} warmup=$(pick 300ms 500ms)
kills=${KILLS:-100} corosync_kills=${COROSYNC_KILLS:-$(pick 3 5)} clients=${CLIENTS:-1,64} sizes=${MEMBERS:-3,5,7}
join_elements=${JOIN_ELEMENTS:-1000,100000,1000000} threads=${THREADS:-}
rates=${RATES:-$(pick 1000,10000,100000,300000,1000000,2000000 1000,3000,10000,30000,100000,300000,600000,1000000,1500000,2000000)}
rival_rates=${RIVAL_RATES:-$(pick 1000,10000,30000,100000 1000,3000,10000,30000,60000,100000,150000)}
all='order batches ahead load size registrations failover join corosync'
parts=${*:-$all}
for part in $parts; do
	case " $all " in *" $part "*) ;; *) echo "ringbench: no part '$part': $all" >&2; exit 2 ;; esac
done
wanted() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac; }

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
	trap '' PIPE # what shows our output may have ended before us
	for n in hub 1 2 3; do
		# What an interrupted part has left there.
		ip netns pids "$net-$n" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
		ip netns del "$net-$n" 2>/dev/null || true
	done
	rm -rf "$work" "$disk" "$memory"
}
trap clean EXIT
trap 'exit 141' PIPE

CGO_ENABLED=0 go build -o "$work" ./cmd/rspd ./scripts/loadgen ./scripts/ringbench ./scripts/ringplot
: >out/ringbench.md
exec > >(tee -a out/ringbench.md) 2> >(tee out/ringbench.log >&2)
skip() { echo "ringbench: SKIPPED $*" >&2; printf '\nLeft out: %s.\n' "$*"; }

rivals=()
export CPG=$work/cpg
corosync=$PWD/scripts/ringbench/rivals/corosync.sh
missing=
if ! command -v corosync >/dev/null || ! command -v gcc >/dev/null ||
	! gcc -O2 -o "$CPG" scripts/ringbench/rivals/cpg.c -lcpg 2>/dev/null; then
	missing='Corosync (apt-get install corosync libcpg-dev gcc)'
	CPG=
else
	rivals=(--rival "Corosync, knet=$corosync knet" --rival "Corosync, udpu=$corosync udpu")
fi
command -v etcd >/dev/null || missing="${missing:+$missing, }etcd (apt-get install etcd-server)"

# Three namespaces and a hub, from which load comes.
ip netns add "$net-hub"
ip -n "$net-hub" link set lo up
ip -n "$net-hub" link add br0 type bridge
ip -n "$net-hub" address add 10.231.78.100/24 dev br0
ip -n "$net-hub" link set br0 up
# Where br_netfilter is loaded, each packet would run through the rules of a firewall.
ip netns exec "$net-hub" sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
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
latest() { # process identifiers of the latest three
	local IFS=,
	echo "${started[*]: -3}"
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

settings=
for name in LONG RUNS SECONDS_EACH KILLS JOIN_ELEMENTS COROSYNC_KILLS CLIENTS MEMBERS RATES RIVAL_RATES; do
	value=${!name-}
	[ -z "$value" ] || settings+="$name=${value// /,} "
done
title() { # title TEXT PART...
	local text=$1
	shift
	printf '\n### %s\n\n`%sscripts/ringbench.sh %s`' "$text" "$settings" "$*"
}
failed=
try() { # try PART, unless it is not wanted
	wanted "$1" || return 0
	local status=0 begun=$SECONDS
	set +e
	(
		trap end EXIT
		set -e
		"$1"
	)
	status=$?
	set -e
	echo "ringbench: $1: $((SECONDS - begun)) s" >&2
	if [ $status -ne 0 ]; then
		failed+=" $1"
		echo "ringbench: FAILED: $1" >&2
		printf '\nSome of this failed: see out/ringbench.log.\n'
	fi
}
# measure FILE FLAGS...: rows, what was measured before an error included
measure() {
	local file=$1
	shift
	"$work/ringbench" run --json --runs "$runs" --seconds "$seconds" --warmup "$warmup" "$@" >>"$work/$file"
}
tables() { [ ! -s "$work/$1" ] || "$work/ringplot" -tables "$2" <"$work/$1"; } # tables FILE TABLES

order() {
	title 'Ordered messages' order
	printf ': as many as go, each delivered by all three (CPU time of all processes per message), and one at a time from one member.\n\n'
	local status=0
	measure order --tables throughput,latency "${rivals[@]}" || status=$?
	tables order max,one-at-a-time
	return $status
}

batches() {
	title 'What batches bring' batches
	printf ': without, the token takes one message at each visit.\n\n'
	local status=0
	measure batches --payloads 100,1000 --tables throughput --rival "ring, no batches=$work/ringbench member --visit 1" || status=$?
	tables batches max
	return $status
}

ahead() {
	title 'What bodies sent ahead of the token could bring' ahead
	cat <<-'TEXT'
		: an experiment bounds it from above. Each member sends
		its messages to all others at once, over connections of their own, and only their numbers with the token; nobody holds
		the token until it has what the token names, as a ring would have to. Larger bounds: a visit adds 1.3 MiB and a token
		carries 4.

	TEXT
	local status=0 ahead=(--rival "bodies ahead=$work/ringbench member --ahead")
	local full=(--payloads 100,1000,8000,1048576 --senders "$(pick all 1,all)" --tables throughput "${ahead[@]}")
	measure ahead "${full[@]}" || status=$?
	measure ahead "${full[@]}" --link-rate 1gbit || status=$?
	measure ahead "${full[@]}" --delay 1ms --rival "ring, larger bounds=$work/ringbench member --visit 1398101 --token 4194304" || status=$?
	measure ahead --tables latency "${ahead[@]}" || status=$?
	tables ahead max,one-at-a-time
	return $status
}

load() {
	title 'Over offered load' load
	printf ': messages of 100 octets, from all members, timed from when each was due.\n\n'
	local status=0
	measure load --members "$sizes" --tables load --rates "$rates" || status=$?
	[ ${#rivals[@]} = 0 ] || measure load --rivals-only --tables load --rates "$rival_rates" "${rivals[@]}" || status=$?
	tables load rate
	return $status
}

size() {
	title 'Over the number of members' order size
	printf ': messages of 100 octets.\n\n'
	local status=0 others=("${rivals[@]}")
	if [ "$long" = 0 ]; then others=("${rivals[@]:2}"); fi # the slow start of knet takes longest
	measure size --members "${sizes#3,}" --payloads 100 --tables throughput,latency "${others[@]}" || status=$?
	grep -hs '"payload_octets":100,' "$work/order" "$work/size" >"$work/sizes" || true
	tables sizes max,one-at-a-time
	return $status
}

plot() {
	local svg=out/ring.svg
	if wanted order && wanted load && wanted size; then svg=docs/ring.svg; fi
	svg=${SVG:-$svg}
	cat "$work/order" "$work/load" "$work/size" 2>/dev/null >"$work/rows" || true
	[ -s "$work/rows" ] || return 0
	"$work/ringplot" -tables '' -svg "$svg" <"$work/rows"
	printf '\n![Latency and throughput of the ring over offered load and number of members](%s)\n' "${svg#docs/}"
}

registrations() {
	title 'Registrations acknowledged by all members' registrations
	printf ': clients in a closed loop, three registrars (three etcd) in three namespaces.\netcd writes to disk before it acknowledges (memory: to a file system in memory); ours keeps copies in the memory of all\nthree.\n\n'
	local systems=() list= i k kind port cluster peers
	for i in 1 2 3; do
		peers=()
		for k in 1 2 3; do [ $k = $i ] || peers+=(--peer "tcp://10.231.78.$k"); done
		spawn "$i" "$work/rspd$i" env ${threads:+GOMAXPROCS=$threads} "$work/rspd" --id "$i" --insecure --enrp-listen off --admin off --log-level error \
			--listen "tcp://10.231.78.$i:3863" --ring-listen "tcp://10.231.78.$i" "${peers[@]}"
		list+=",tcp://10.231.78.$i:3863"
	done
	for i in 1 2 3; do await "10.231.78.$i" 3863; done
	systems+=(--system "ring=${list#,}" --pids "$(latest)")
	local status=0
	if command -v etcd >/dev/null; then
		for kind in disk memory; do
			list= cluster= port=2379
			[ $kind = disk ] || port=2479
			for i in 1 2 3; do
				cluster+=",m$i=http://10.231.78.$i:$((port + 1))"
				list+=",etcd://10.231.78.$i:$port"
			done
			for i in 1 2 3; do
				spawn "$i" "$work/etcd-$kind$i" env ${threads:+GOMAXPROCS=$threads} etcd --name "m$i" --data-dir "${!kind}/m$i" --logger zap --log-level error \
					--listen-client-urls "http://10.231.78.$i:$port" --advertise-client-urls "http://10.231.78.$i:$port" \
					--listen-peer-urls "http://10.231.78.$i:$((port + 1))" \
					--initial-advertise-peer-urls "http://10.231.78.$i:$((port + 1))" \
					--initial-cluster "${cluster#,}" --initial-cluster-token "$kind"
			done
			if await "10.231.78.1" $port && await "10.231.78.2" $port && await "10.231.78.3" $port; then
				systems+=(--system "etcd, $kind=${list#,}" --pids "$(latest)")
			else
				tail -n 3 "$work/etcd-$kind"? >&2
				status=1
			fi
		done
	fi
	sleep 3 # all have come together
	hub "$work/loadgen" registrations "${systems[@]}" --clients "$clients" --runs "$runs" --duration "${seconds}s" || status=$?
	cat "$work"/rspd? >&2
	return $status
}

failover() {
	title 'Death of a registrar' failover
	printf ': one of three is killed (kill -9) and started again.\n\n'
	hub "$work/loadgen" failover --rspd "$work/rspd" --kills "$kills" --log out/ringbench.failover.log \
		--in "$net-1=10.231.78.1" --in "$net-2=10.231.78.2" --in "$net-3=10.231.78.3"
}

join() {
	title 'The return of a registrar' join
	cat <<-'TEXT'
		: one of three is killed (kill -9) and started again, with nothing on disk. All
		elements have the first registrar as home; during the return and a second longer one element registers again every 10 ms
		at the second, timed from when it was due. Octets are those of all three together; memory is what the third has resident
		a second after it serves.

	TEXT
	local n sizes=()
	for n in ${join_elements//,/ }; do
		if [ "$n" -ge 1000000 ]; then sizes+=(--elements "$n=${RUNS:-1}"); else sizes+=(--elements "$n=$runs"); fi
	done
	hub "$work/loadgen" join --rspd "$work/rspd" "${sizes[@]}" --log out/ringbench.join.log \
		--in "$net-1=10.231.78.1" --in "$net-2=10.231.78.2" --in "$net-3=10.231.78.3"
}

corosync() {
	[ -n "$CPG" ] || return 0
	title 'Death of a Corosync daemon' corosync
	printf ': from kill -9 to the new membership at the others.\n\n'
	echo '| token time-out, ms (coefficient 0) | times, s |'
	echo '|---|---|'
	local token times i k peers at
	for token in default 1000 300; do
		times=
		for _ in $(seq "$corosync_kills"); do
			for i in 1 2 3; do
				peers=$(for k in 1 2 3; do [ $k = $i ] || printf 'tcp://10.231.78.%d:1,' $k; done)
				: >"$work/watch$i"
				PIDFILE=$work/pid$i TOTEM=$([ $token = default ] || printf 'token: %s\ntoken_coefficient: 0' $token) \
					spawn "$i" "$work/watch$i" "$corosync" knet --watch --id "$i" --listen "tcp://10.231.78.$i:1" --peers "${peers%,}"
			done
			within 60 members 3 1 2 3
			sleep 1
			at=$(date +%s.%N)
			kill -9 "$(cat "$work/pid3")"
			within 60 members 2 1 2
			times+=" $(tail -qn 1 "$work/watch1" "$work/watch2" | sort -n | tail -n 1 | awk -v at="$at" '{printf "%.2f", $1 - at}')"
			for i in 1 2; do kill -9 "$(cat "$work/pid$i")" || true; done
			end
		done
		echo "| $token |$times |"
	done
}
within() { # within SECONDS CONDITION...
	local until=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $until ] || { echo "ringbench: not within time: $*" >&2; return 1; }
		sleep 0.1
	done
}
members() { # members N PLACE...: all these see N members
	local n=$1 i
	shift
	for i in "$@"; do tail -n 1 "$work/watch$i" | grep -q " $n\$" || return 1; done
}

versions() {
	[ -z "$CPG" ] || command corosync -v | sed -nE "s/.*version '([^']*)'.*/, Corosync \\1/p"
	! command -v etcd >/dev/null || etcd --version | sed -nE 's/^etcd Version: (.*)/, etcd \1/p'
}
cat <<TEXT
## The ring

One run of \`make ringbench\` on $(date -u +%F): three members in three network namespaces on a bridge, load and members on the
same $(nproc) cores, no firewall on the bridge ($(uname -sr)$(versions | tr -d '\n'); load average before $(cut -d' ' -f1 /proc/loadavg)). Medians of $runs measurements of $seconds s, the systems
in turns. Payloads are kept in memory only.
TEXT
[ -z "$missing" ] || skip "$missing"
try order
try batches
try ahead
try load
try size
if wanted order || wanted load || wanted size; then
	plot || { failed+=" plot"; echo "ringbench: FAILED: plot" >&2; }
fi
if wanted registrations || wanted failover || wanted join || wanted corosync; then
	printf '\n## Registrars in a ring\n'
	try registrations
	try failover
	try join
	try corosync
fi
echo "ringbench: $SECONDS s" >&2
[ -z "$failed" ] || { echo "ringbench: FAILED:$failed" >&2; exit 1; }
