#!/usr/bin/env bash
# Writes what is generated from the programs' commands: docs/cli/*.md, and for
# packages man pages and shell completions.
#
#   scripts/docs.sh [DIR]   man pages and completions go to DIR, default out/docs
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p docs/cli "${1:-out/docs}"
out=$(cd "${1:-out/docs}" && pwd)
mkdir -p "$out/man" "$out/completions" "$out/bin"

DOCS_UPDATE=1 DOCS_MAN="$out/man" go test -count=1 -run '^TestReferenceIsUpToDate$' ./cmd/...

for dir in cmd/*/; do
	program=$(basename "$dir")
	[ "$program" = internal ] && continue
	go build -o "$out/bin/$program" "./$dir"
	for shell in bash zsh fish; do
		"$out/bin/$program" completion "$shell" > "$out/completions/$program.$shell"
	done
done
rm -r "$out/bin"
echo "docs: docs/cli ($(ls docs/cli | wc -l) pages), $out/man ($(ls "$out/man" | wc -l)), $out/completions ($(ls "$out/completions" | wc -l))"
