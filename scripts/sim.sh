#!/usr/bin/env bash
# Simulates rings with faults, and shows that faults of the ring itself would be
# found. Set in the environment, or after make sim:
#
#   SEEDS=N [FROM=N] [PROFILE=NAME]       how many schedules, default 10000
#   SEED=N [KEEP=LIST] [TRACE=1] [PROFILE=NAME]   one schedule once more, or what
#                                         a failed run shrunk it to, line by line
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${SEED:-}" ]; then
	exec go test -count=1 -v -run '^TestSimulation$' ./enrp/ring/ringtest
fi
export SEEDS=${SEEDS:-10000}
exec go test -count=1 -v -timeout 4h -run '^(TestSimulation|TestMutation)$' ./enrp/ring/ringtest
