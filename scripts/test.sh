#!/usr/bin/env bash
# Runs every test with the race detector, in random order, and prints which
# requirements have a test named after them.
#
#   scripts/test.sh [go test arguments]   default: ./...
#
# RACE=0 leaves the race detector out (it needs a C compiler).
set -euo pipefail
cd "$(dirname "$0")/.."

race=-race
if [ "${RACE:-1}" = 0 ]; then
	race=
elif ! command -v "$(go env CC)" >/dev/null; then
	echo "test: no C compiler ($(go env CC)): running WITHOUT the race detector" >&2
	race=
fi
[ $# -gt 0 ] || set -- ./...

mkdir -p out
log=out/test.log
status=0
# shellcheck disable=SC2086
go test $race -shuffle=on -timeout 10m -v "$@" >"$log" 2>&1 || status=$?
if [ -n "$race" ]; then
	# The race detector allocates by itself: what counts allocations runs without.
	go test -timeout 5m -v -run Allocat "$@" >>"$log" 2>&1 || status=$?
fi

# The log has every test; the screen gets packages, failures and skips.
grep -E '^(ok|FAIL|panic:)|DATA RACE' "$log" | grep -v 'no tests to run' || true
if [ $status -ne 0 ]; then
	echo "test: the failures, from $log:" >&2
	grep -vE '^[[:space:]]*(=== |--- (PASS|SKIP))' "$log" | tail -150 >&2
fi
passed=$(grep -cE '^[[:space:]]*--- PASS' "$log" || true)
failed=$(grep -cE '^[[:space:]]*--- FAIL' "$log" || true)
skipped=$(grep -cE '^[[:space:]]*--- SKIP' "$log" || true)
if [ "$skipped" -gt 0 ]; then
	echo "test: skipped, how often and why:"
	# The reason stands in the line before.
	grep -E -B1 '^[[:space:]]*--- SKIP' "$log" | sed -nE 's/^[[:space:]]+[a-z0-9_]+\.go:[0-9]+: //p' | sort | uniq -c
fi
go run ./scripts/requirements
echo "$passed passed, $failed failed, $skipped skipped" | tee out/test.summary
exit $status
