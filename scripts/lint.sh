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
staticcheck=$(go tool -n staticcheck)
for module in $(git ls-files '*/go.mod'); do
	dir=$(dirname "$module")
	go vet -C "$dir" ./... || complain "go vet in $dir"
	(cd "$dir" && "$staticcheck" ./...) || complain "staticcheck in $dir"
	go mod tidy -C "$dir" -diff || complain "go.mod or go.sum of $dir is not tidy"
done
for script in scripts/*.sh .ci/run; do
	bash -n "$script" || complain "$script"
done
[ $status -eq 0 ] && echo "lint: clean"
exit $status
