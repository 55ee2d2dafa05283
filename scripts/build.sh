#!/usr/bin/env bash
# Builds the programs into bin/.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
go build -trimpath -o bin/ ./cmd/...
ls bin
