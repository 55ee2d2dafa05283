#!/usr/bin/env bash
# Plays faults on a ring of five registrars with elements and users at work, in
# network namespaces, for long: kills, freezes, cut cables, splits, restarts, one
# after the other in random order. Beside it, histories of what clients see, of three
# registrars and of five with cut cables, are recorded and checked; bad ones are kept
# in out/. Needs root and iproute2.
#
#   DURATION=10m SEED=1 for the same order again
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${DURATION:-10m}
RING_CHAOS=$duration RING_HISTORY=$duration RING_SEED=${SEED:-$(date +%s)} \
	go test -count=1 -timeout 24h -v ./internal/endtoend \
	-run '^(TestRingForLong|TestRingHistoriesForLong|TestRecordersSeeABrokenPromise)$'
