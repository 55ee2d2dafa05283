#!/usr/bin/env bash
# A pool that survives a kill, in real processes on loopback over TCP. Needs Go and
# make only, ends by itself within 30 seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
echo "building..."
go build -trimpath -o bin/ ./cmd/rspd ./cmd/rsppe ./scripts/demo
exec bin/demo bin
