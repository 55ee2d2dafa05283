#!/usr/bin/env bash
# Builds the programs into bin/, and everything in the nested modules.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
go build -trimpath -o bin/ ./cmd/...
# Modules of their own, which have libraries and examples.
for module in $(git ls-files '*/go.mod'); do
	go build -C "$(dirname "$module")" ./...
done
ls bin
