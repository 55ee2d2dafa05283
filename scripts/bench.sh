#!/usr/bin/env bash
# Benchmarks: codec, handlespace and selection as Go benchmarks, then the
# registrar under load over TCP on this host, beside a bare TCP echo with
# messages of the same sizes. Last the ring beside Corosync and etcd, as root
# (scripts/ringbench.sh). Tables are markdown; everything is in out/bench.md.
#
#   RUNS=7 DURATION=2s CONNECTIONS=8 POOLS="1 100 1000" OUTSTANDING="1 16" PORT=13863
#   BENCHTIME=1s for the Go benchmarks, 0 leaves them out
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${RUNS:-7} duration=${DURATION:-2s} connections=${CONNECTIONS:-8}
port=${PORT:-13863} benchtime=${BENCHTIME:-1s}
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
	go test -run '^$' -bench . -benchmem -benchtime "$benchtime" ./asap/... ./registrar/handlespace ./selection |
		grep -E '^(Benchmark|pkg:|cpu:|FAIL|panic)'
	echo '```'
fi

go build -o "$work" ./cmd/rspd ./scripts/loadgen

# The admin interface is off, as it is no part of what is compared.
"$work/rspd" --listen "tcp://127.0.0.1:$port" --enrp-listen off --admin off --log-level warn 2>"$work/log" &
registrar=$!
for _ in $(seq 100); do
	if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	kill -0 "$registrar" 2>/dev/null || { cat "$work/log"; exit 1; }
	sleep 0.1
done

echo
echo "## Handle resolution over TCP, $(nproc) cores, median of $runs runs of $duration in turns"
echo
echo '| server | elements in the answer | octets | connections | outstanding | answers/s | p50 | p99 | CPU per answer |'
echo '|---|---:|---:|---:|---:|---:|---:|---:|---:|'
for pool in ${POOLS:-1 100 1000}; do
	for outstanding in ${OUTSTANDING:-1 16}; do
		"$work/loadgen" --target "rspd=tcp://127.0.0.1:$port" --pid "$registrar" \
			--pool "bench$pool" --register "$pool" \
			--connections "$connections" --outstanding "$outstanding" \
			--runs "$runs" --duration "$duration" --echo-baseline \
			--format markdown >"$work/rows"
		grep -v '^ratio' "$work/rows"
		sed -n "s/^ratio/pool of $pool, $outstanding outstanding,/p" "$work/rows" >>"$work/ratios"
	done
done
echo
sed 's/^/- /' "$work/ratios"
if [ -s "$work/log" ]; then
	echo
	echo 'The registrar logged:'
	cat "$work/log"
fi

# The ring beside others, in short: RING=0 leaves it out, scripts/ringbench.sh does it
# at length.
if [ "${RING:-1}" != 0 ]; then
	RUNS=3 SECONDS_EACH=2 KILLS=${KILLS:-20} COROSYNC_KILLS=1 \
		scripts/ringbench.sh order corosync registrations failover
fi
