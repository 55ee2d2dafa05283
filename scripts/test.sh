#!/usr/bin/env bash
# Runs every test with the race detector, in random order, and prints which
# requirements have a test named after them.
#
#   scripts/test.sh [go test arguments]   default: ./..., and the nested modules
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
nested=
if [ $# -eq 0 ]; then
	set -- ./...
	nested=$(git ls-files '*/go.mod') # modules of their own
fi

mkdir -p out
log=out/test.log
status=0
# shellcheck disable=SC2086
go test $race -shuffle=on -timeout 20m -v "$@" >"$log" 2>&1 || status=$?
if [ -n "$race" ]; then
	# The race detector allocates by itself: what counts allocations runs without.
	go test -timeout 5m -v -run Allocat "$@" >>"$log" 2>&1 || status=$?
fi
for module in $nested; do
	# shellcheck disable=SC2086
	go test -C "$(dirname "$module")" $race -shuffle=on -timeout 20m -v ./... >>"$log" 2>&1 || status=$?
done

# The log has every test; the screen gets packages, failures and skips.
grep -E '^(ok|FAIL|panic:)|DATA RACE' "$log" | grep -v 'no tests to run' || true
# What the failed tests said, each on its own: with -v a line belongs to the test
# that the last line with === named. Panics, races and what does not build belong
# to none.
awk '
	/^=== (RUN|CONT|NAME|PAUSE) / { name = $3; next }
	/^[[:space:]]*--- FAIL: / { failed[++n] = $3; took[n] = $4 }
	/^[[:space:]]*--- / { name = ""; next }
	/^(ok|FAIL|PASS|\?)/ { name = "" }
	/^panic: |DATA RACE|\[build failed\]|\[setup failed\]|^[^ ]+\.go:[0-9]+:[0-9]+: / { loose = 60 }
	name == "" && loose > 0 { print; loose--; next }
	name != "" { said[name] = said[name] $0 "\n"; if (loose > 0) { print; loose-- } }
	END { for (i = 1; i <= n; i++) printf "--- FAIL: %s %s\n%s", failed[i], took[i], substr(said[failed[i]], 1, 6000) }
' "$log" >out/test.failures
if [ $status -ne 0 ]; then
	echo "test: the failures, from $log:"
	cat out/test.failures
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
