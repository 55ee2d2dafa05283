#!/bin/sh
# Boots a User Mode Linux kernel, which has SCTP where the machine's own kernel
# has none, over this machine's root file system and runs the lab's checks in
# it. Usage:
#
#	scripts/lab.sh [-l] [GROUP...]
#
# Without groups it runs all but those that are marked as extra; -l lists them.
# Logs, captures and results go to out/lab; what the group capture leaves in
# out/lab/vectors becomes asap/testdata/rsplib and enrp/testdata/rsplib by hand.
# LAB_GUESTS is how many guests share the groups (default: one for each processor,
# at most two; one CPU each). LAB_TIMEOUT is the longest a boot may take, in seconds
# (default 900, with the group bench 3600). LAB_MEM is the memory of a guest (default
# 1536M).
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
out=$root/out/lab
cd "$root"

PATH=$PATH:/usr/sbin:/sbin
missing=
need() { # program package
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need linux.uml user-mode-linux
need modprobe kmod
need ip iproute2
need tc iproute2
need sctp_darn lksctp-tools
need rspregistrar rsplib-registrar
need rspserver rsplib-services
need hsdump rsplib-tools
need tshark tshark
need tcpdump tcpdump
need timeout coreutils
need nsenter util-linux
need go golang
# See scripts/lab/xstate.c.
amx=$(grep -c -m 1 -w amx_tile /proc/cpuinfo || true)
[ "$amx" = 0 ] || need cc gcc
if [ -n "$missing" ]; then
	missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
	echo "lab: this machine lacks $missing" >&2
	echo "lab: on Debian: apt-get install $missing" >&2
	exit 2
fi

mkdir -p "$out/bin"
preload=
if [ "$amx" != 0 ]; then
	preload=$out/xstate.so
	cc -O2 -Wall -Wextra -shared -fPIC -o "$preload" scripts/lab/xstate.c
fi
export CGO_ENABLED=0
go build -o "$out/bin/" ./scripts/lab/labrun ./scripts/lab/vectors
if [ "${1-}" = -l ]; then
	exec "$out/bin/labrun" -list
fi
groups=$(printf '%s,' "$@")
packages=$("$out/bin/labrun" -groups "$groups" -needs)
for package in $packages; do
	case $package in
	*.test) go test -c -o "$out/bin/$(basename "$package")" "./${package%.test}" ;;
	*) go build -o "$out/bin/" "./$package" ;;
	esac
done

# modprobe looks for modules below lib/modules; the package keeps them elsewhere.
mkdir -p "$out/modules/lib"
rm -f "$out/modules/lib/modules"
ln -s /usr/lib/uml/modules "$out/modules/lib/modules"

limit=900
guests=${LAB_GUESTS:-$(($(nproc) > 1 ? 2 : 1))}
[ $# = 0 ] || [ $# -ge "$guests" ] || guests=$#
case " $* " in # what measures wants the machine for itself
*" bench "*) limit=3600 guests=1 ;;
*" session-failovers "*) guests=1 ;;
esac
rm -rf "$out/log" && mkdir -p "$out/log/taken"
started=$(date +%s)
boot() { # boot N: prints the guest's console; its exit status doesn't come out
	timeout -k 5 "${LAB_TIMEOUT:-$limit}" env ${preload:+LD_PRELOAD="$preload"} linux.uml mem="${LAB_MEM:-1536M}" \
		rootfstype=hostfs rootflags=/ rw init="$root/scripts/lab/init.sh" \
		con=null con0=fd:0,fd:1 quiet \
		LAB_OUT="$out" LAB_GROUPS="$groups" </dev/null 2>"$out/log/kernel-$1.log" |
		sed -u 's/\r$//' | tee "$out/log/console-$1.log" | sed -un '/^-- /,$p' || true
}
for guest in $(seq "$guests"); do
	boot "$guest" &
done
wait
echo "lab: $(($(date +%s) - started)) s"

if [ -s "$out/log/capture.pcap" ]; then
	"$out/bin/vectors" -pcap "$out/log/capture.pcap" -out "$out/vectors"
fi
passed=0 failed=0 ended=0
for guest in $(seq "$guests"); do
	last=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$out/log/console-$guest.log" | tail -n 1)
	[ -n "$last" ] || continue
	ended=$((ended + 1)) passed=$((passed + ${last% *})) failed=$((failed + ${last#* }))
done
echo "lab: $passed passed, $failed failed"
grep -h '^FAIL' "$out"/log/console-*.log || true
if [ "$ended" != "$guests" ]; then
	echo "lab: a guest ended without its closing line; see $out/log" >&2 && exit 1
fi
if [ "$failed" != 0 ]; then
	echo "lab: see $out/log" >&2 && exit 1
fi
