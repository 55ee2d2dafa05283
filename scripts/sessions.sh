#!/usr/bin/env bash
# What many sessions at a time cost: one process opens them over TCP on loopback to an
# element in another one. Prints a table of docs/performance.md; it goes to
# out/sessions.md too.
#
#   scripts/sessions.sh [SESSIONS]   default 10000
#
# Each process needs an open file for each session.
set -euo pipefail
cd "$(dirname "$0")/.."

sessions=${1:-10000}
files=$(ulimit -Hn)
if [ "$files" != unlimited ] && [ "$files" -lt $((sessions + 100)) ]; then
	echo "sessions: SKIPPED, needs $((sessions + 100)) open files, may have $files" >&2
	exit 0
fi
mkdir -p out
work=$(mktemp -d)
registrar=
clean() {
	if [ -n "$registrar" ]; then
		kill "$registrar" 2>/dev/null || true
		wait "$registrar" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap clean EXIT

CGO_ENABLED=0 go build -o "$work" ./cmd/rspd ./scripts/sessionbench
port=${PORT:-13864}
"$work/rspd" --listen "tcp://127.0.0.1:$port" --enrp-listen off --admin off --log-level error 2>"$work/rspd.log" &
registrar=$!
for _ in $(seq 100); do
	if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	kill -0 "$registrar" 2>/dev/null || { cat "$work/rspd.log" >&2; exit 1; }
	sleep 0.1
done
"$work/sessionbench" many --registrar "tcp://127.0.0.1:$port" --sessions "$sessions" | tee out/sessions.md
cat "$work/rspd.log" >&2
