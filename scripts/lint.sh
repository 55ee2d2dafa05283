#!/usr/bin/env bash
# Formatting, vet, staticcheck (staticcheck.conf), module files, shell scripts.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
complain() { echo "lint: $*" >&2; status=1; }

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || complain "gofmt would change: $unformatted"
go vet ./... || complain "go vet"
go tool staticcheck ./... || complain "staticcheck"
go mod tidy -diff || complain "go.mod or go.sum is not tidy"
for script in scripts/*.sh .ci/run; do
	bash -n "$script" || complain "$script"
done
[ $status -eq 0 ] && echo "lint: clean"
exit $status
