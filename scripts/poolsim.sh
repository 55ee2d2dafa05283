#!/usr/bin/env bash
# Simulates pools under every policy in virtual time, prints what they did, and draws
# the pictures of docs/policies.md. Two or three minutes on two cores. The same command
# prints and draws the same, octet for octet.
#
#   scripts/poolsim.sh [FIGURE...]   default: all
#
# Set in the environment: SEEDS=N runs of each point, default 6; REQUESTS=N measured
# in each, default 8000.
#
# All results go to out/poolsim.csv too.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p out
exec go run ./scripts/poolsim -svg docs/policies -csv out/poolsim.csv \
	-seeds "${SEEDS:-6}" -requests "${REQUESTS:-8000}" "$@"
