#!/usr/bin/env bash
# Runs every fuzz target for a while, one after the other.
#
#   scripts/fuzz.sh [TIME]   per target, default 5m
#
# WORKERS limits how many run at a time (default: all processors).
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-5m}
status=0
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "fuzz: $pkg $target for $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" ${WORKERS:+-parallel "$WORKERS"} "$pkg" || status=1
	done
done
exit $status
