#!/usr/bin/env bash
# Benchmarks: codec, handlespace and selection as Go benchmarks, the handlespace beside
# rsplib's C library where that is installed (scripts/handlespacebench.sh), then the
# registrar under load over TCP on this host, resolutions beside a bare TCP echo with
# messages of the same sizes, and registrations. Last the ring beside Corosync and etcd, as root:
# all of scripts/ringbench.sh. Tables are markdown; everything is in out/bench.md.
#
#   RUNS=7 DURATION=2s CONNECTIONS=8 POOLS="1 100 1000" OUTSTANDING="1 16" PORT=13863
#   CHURN=20000 re-registrations per second; POOLS= leaves whole pools out
#   BENCHTIME=1s for the Go benchmarks, 0 leaves them and the handlespace out
#   HANDLESPACE_RUNS=1 measurements of the handlespace
#   RING=0 leaves the ring out, RING=short its curves, and most of the kills
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${RUNS:-7} duration=${DURATION:-2s} connections=${CONNECTIONS:-8}
port=${PORT:-13863} benchtime=${BENCHTIME:-1s} pools=${POOLS-1 100 1000} waiting=${OUTSTANDING:-1 16} churn=${CHURN:-20000}
work=$(mktemp -d)
registrar=
stop() {
	if [ -n "$registrar" ]; then
		kill "$registrar" 2>/dev/null || true
		wait "$registrar" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap stop EXIT

mkdir -p out
exec > >(tee out/bench.md) 2>&1

if [ "$benchtime" != 0 ]; then
	echo '## Go benchmarks'
	echo '```'
	shown='^(Benchmark|pkg:|cpu:|FAIL|panic)'
	go test -run '^$' -bench . -skip 'Space|Memory|ResolveDuring' -benchmem -benchtime "$benchtime" \
		./asap/... ./registrar/handlespace ./selection | grep -E "$shown"
	go test -run '^$' -bench ByAllCores -cpu 1,2 -benchtime "$benchtime" ./registrar | grep -E "$shown"
	# Up to a million elements, each operation on all of them once.
	go test -run '^$' -bench 'Space|Memory|ResolveDuring' -benchtime 1x -timeout 1h ./registrar/handlespace |
		grep -E "$shown"
	echo '```'
	echo
	echo "## Handlespace, $(nproc) cores, CPU time"
	echo
	RUNS=${HANDLESPACE_RUNS:-1} scripts/handlespacebench.sh
fi

go build -o "$work" ./cmd/rspd ./scripts/loadgen

# The admin interface is off, as it is no part of what is compared.
# All elements come from one address.
"$work/rspd" --listen "tcp://127.0.0.1:$port" --enrp-listen off --admin off --log-level warn \
	--limit-elements-per-client 2000000 2>"$work/log" &
registrar=$!
for _ in $(seq 100); do
	if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	kill -0 "$registrar" 2>/dev/null || { cat "$work/log"; exit 1; }
	sleep 0.1
done

resolutions() { # resolutions NAME LOADGEN-FLAGS...
	"$work/loadgen" --target "rspd=tcp://127.0.0.1:$port" --pid "$registrar" \
		--runs "$runs" --duration "$duration" --echo-baseline --format markdown "${@:2}" >"$work/rows"
	grep -v '^ratio' "$work/rows"
	sed -n "s/^ratio/$1:/p" "$work/rows" >>"$work/ratios"
}
header() {
	echo
	echo "## $1, $(nproc) cores, median of $runs runs of $duration in turns"
	echo
}
columns() {
	echo '| server | elements in the answer | octets | connections | outstanding | answers/s | p50 | p99 | CPU per answer |'
	echo '|---|---:|---:|---:|---:|---:|---:|---:|---:|'
}
ratios() {
	echo
	sed 's/^/- /' "$work/ratios"
	rm "$work/ratios"
}

if [ -n "$pools" ]; then
	header "Handle resolution over TCP"
	columns
	for pool in $pools; do
		for outstanding in $waiting; do
			resolutions "pool of $pool, $outstanding outstanding" --pool "bench$pool" --register "$pool" \
				--connections "$connections" --outstanding "$outstanding"
		done
	done
	ratios
fi

header "Three of 1,000 elements, also while elements register again"
columns
for outstanding in $waiting; do
	resolutions "$outstanding outstanding" --pool three --register 1000 --items 3 --churn "$churn" \
		--connections 16 --outstanding "$outstanding"
done
ratios

header "Registrations, one registrar without a ring"
"$work/loadgen" registrations --system "rspd=tcp://127.0.0.1:$port" --pids "$registrar" \
	--clients 16 --outstanding 16 --runs "$runs" --duration "$duration" --writes new,more,again

if [ -s "$work/log" ]; then
	echo
	echo 'The registrar logged:'
	cat "$work/log"
fi

# The ring beside others.
case ${RING:-all} in
0) ;;
short)
	RUNS=3 SECONDS_EACH=2 KILLS=${KILLS:-20} JOIN_ELEMENTS=${JOIN_ELEMENTS:-1000,100000} COROSYNC_KILLS=1 \
		scripts/ringbench.sh order batches corosync registrations failover join
	;;
*) SVG=${SVG:-out/ring.svg} RUNS= scripts/ringbench.sh ;;
esac
