#!/usr/bin/env bash
# A long computation that survives three kills, in real processes on loopback over TCP.
# Needs Go and make only, ends by itself within 20 seconds. In a terminal it paints;
# elsewhere, or with PLAIN=1, it prints lines.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
echo "building..."
go build -trimpath -o bin/ ./cmd/rspd ./scripts/services ./scripts/demo-session
exec bin/demo-session bin
