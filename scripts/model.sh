#!/usr/bin/env bash
# Checks docs/ring.pml, the model of the ring's core, with spin: every state within
# the bounds below. Then plants mistakes in the model, one at a time, each against a
# rule of docs/ring.md, and expects a counterexample for each; and claims that what the
# model is about can't happen, and expects to be refuted.
#
#   scripts/model.sh             all of it
#   scripts/model.sh -t FLAGS    one search; prints a counterexample as a story,
#                                e.g. -t -DBUG_OWN -DVIEWS=3 -DMSGS=2
#   scripts/model.sh -l          only the search that is too long for CI: 10 GiB
#
# MODEL_MEM is the memory a search may take, in MiB (default 7000), MODEL_TIME the time,
# in seconds (default 200).
set -euo pipefail
cd "$(dirname "$0")/.."

missing=
for tool in spin gcc; do
	command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
	echo "model: SKIPPED, this machine lacks$missing (Debian: apt-get install$missing)" >&2
	exit 0
fi

model=$PWD/docs/ring.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$model" ring.pml

# search FLAGS: result in the file out
search() {
	rm -f ring.pml.trail
	spin -a "$@" ring.pml >spin.out || { cat spin.out >&2; exit 1; }
	gcc "${optimize:--O0}" -w -DSAFETY -DCOLLAPSE -DMEMLIM="${MODEL_MEM:-7000}" -o pan pan.c
	timeout "${MODEL_TIME:-200}" ./pan -E -m10000 -w26 >out 2>&1 || true
}
figure() { sed -nE "s/$1/\1/p" out | head -n 1 | tr -d ' '; }
complete() { grep -q 'errors: 0' out && ! grep -qE 'Search not completed|max search depth too small|out of memory' out; }

if [ "${1-}" = -t ]; then
	shift
	search "$@"
	grep -E 'assertion violated|errors:|states, stored' out
	[ ! -f ring.pml.trail ] || spin -t "$@" ring.pml | grep -E '^ *[0-9]|failed assertion' | sed 's/^  *//'
	exit 0
fi

status=0
row() { # row NAME FLAGS
	local name=$1
	shift
	optimize=-O1 search "$@"
	local verdict=holds
	complete || { verdict=FAILED; status=1; }
	printf '%-48s %-7s %11s %6s %9s %8s\n' "$name" "$verdict" "$(figure ' *([0-9.e+]+) states, stored.*')" \
		"$(figure '.*depth reached ([0-9]+).*')" "$(figure ' *([0-9.]+).total actual memory usage.*')" \
		"$(figure 'pan: elapsed time ([0-9.]+) seconds')"
	[ "$verdict" = holds ] || { tail -n 30 out >&2; echo "model: for the story: scripts/model.sh -t $*" >&2; }
}
refuted() { # refuted NAME FLAGS
	local name=$1
	shift
	search "$@"
	local verdict=found
	grep -q 'assertion violated' out || { verdict=MISSED; status=1; }
	printf '%-62s %-7s %11s\n' "$name" "$verdict" "$(figure ' *([0-9.e+]+) states, stored.*')"
}

heading() { printf '%-48s %-7s %11s %6s %9s %8s\n' 'three members' '' states depth MiB seconds; }
if [ "${1-}" = -l ]; then
	heading
	MODEL_MEM=${MODEL_MEM:-10000} MODEL_TIME=${MODEL_TIME:-1800} \
		row 'one view, 3 calls, 2 entries, 5 hops, 1 crash' -DVIEWS=4 -DMSGS=2 -DHOPS=5 -DCRASHES=1
	exit $status
fi

heading
row 'one view, 2 calls, 3 entries, 7 hops, 1 crash' -DVIEWS=3 -DMSGS=3 -DHOPS=7 -DCRASHES=1
row 'one view, 2 calls, 2 entries, 7 hops, 2 crashes' -DVIEWS=3 -DMSGS=2 -DHOPS=7 -DCRASHES=2
row '2 and 1, 2 calls, 3 entries, 6 hops, 1 crash' -DAPART -DVIEWS=4 -DMSGS=3 -DHOPS=6 -DCRASHES=1

echo
echo 'planted mistakes'
small="-DVIEWS=3 -DMSGS=2 -DHOPS=6 -DCRASHES=1"
refuted 'a promise without own additions' -DBUG_OWN $small
refuted 'stable on the strength of an old copy' -DBUG_OLD $small
refuted 'the head dropped before it has gone round' -DBUG_HEAD $small
refuted 'an old token accepted after the promise' -DBUG_ACCEPT $small
refuted 'a hop accepted twice' -DBUG_HOP $small
refuted 'a head that goes on behind a gap' -DBUG_GAP $small
refuted 'the rest of a foreign view delivered' -DBUG_FOREIGN $small
refuted 'stable before END is' -DBUG_EARLY $small
refuted 'a lower number promised after a higher' -DBUG_LOWER $small
refuted 'an install with one promise missing' -DBUG_MISSING $small
refuted 'no exchange after one that was cut short' -DBUG_SKIP -DAPART -DVIEWS=4 -DMSGS=2 -DHOPS=6

echo
echo 'what the model reaches'
refuted 'a rest delivered on the way into an exchange' -DREACH=1 $small
refuted 'END stable' -DREACH=2 $small
refuted 'an entry of the view before stable in the next' -DREACH=3 $small
refuted 'a torn install: the coordinator died while it installed' -DREACH=4 $small
refuted 'a head that ends at a gap' -DREACH=7 $small
refuted 'an exchange cut short by another view' -DREACH=5 -DAPART -DVIEWS=4 -DMSGS=2 -DHOPS=6
refuted 'a token that reaches a member left out of a newer view' -DREACH=6 $small

echo "model: $SECONDS s"
[ $status -eq 0 ] || echo "model: FAILED" >&2
exit $status
