#!/usr/bin/env bash
# What the operations of the handlespace cost, beside rsplib's C library as Debian ships
# it (apt-get install librsplib3 gcc), in turns: a markdown table for
# docs/performance.md, in out/handlespacebench.md too. Arguments go to
# scripts/handlespacebench; see there.
#
#   RUNS=3 SHAPES=rr:1:100000,...
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p out
CGO_ENABLED=0 go build -o "$work" ./scripts/handlespacebench
rival=()
# By their full names: the links that a linker looks for are in librsplib-dev.
if gcc -O2 -o "$work/rsplib" scripts/handlespacebench/rivals/rsplib.c -l:librsphsmgt.so.3 -l:libtdnetutilities.so.3 2>"$work/gcc"; then
	rival=(--rival "rsplib=$work/rsplib")
else
	echo "handlespacebench: SKIPPED rsplib: apt-get install librsplib3 gcc" >&2
fi
"$work/handlespacebench" "${rival[@]}" --runs "${RUNS:-3}" ${SHAPES:+--shapes "$SHAPES"} "$@" | tee out/handlespacebench.md
