#!/usr/bin/env bash
# One member of a Corosync group in the network namespace it is started in, with the
# flags of 'ringbench member': corosync.sh knet|udpu FLAGS. Corosync keeps to fixed
# folders and IPC names, so it gets a mount namespace with its own.
#
#   CPG=FILE      the built cpg.c
#   PIDFILE=FILE  where the daemon's process id goes, if set
#   TOTEM=TEXT    further lines of the section totem
set -euo pipefail
if [ "${IN_NAMESPACE-}" = "" ]; then
	exec env IN_NAMESPACE=1 unshare --mount --ipc --propagation private -- "$0" "$@"
fi
transport=$1
shift
id= listen= peers=
flags=("$@")
while [ $# -gt 0 ]; do
	case $1 in
	--id) id=$2 ;;
	--listen) listen=$2 ;;
	--peers) peers=$2 ;;
	esac
	shift
done

host() { local h=${1#*://}; echo "${h%:*}"; }
for folder in /run /var/lib/corosync /etc/corosync /dev/shm; do
	mkdir -p "$folder"
	mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/corosync
# All must have the same list in the same order: that of the addresses.
nodes=
while read -r address; do
	nodes+="	node {
		ring0_addr: $address
		nodeid: ${address##*.}
	}
"
done < <(for a in "$listen" ${peers//,/ }; do host "$a"; done | sort -t. -k4n)
case $(host "$listen") in 127.*) echo "corosync.sh: needs an address of its own for each member" >&2; exit 1 ;; esac

cat >/etc/corosync/corosync.conf <<CONF
totem {
	version: 2
	cluster_name: ringbench
	transport: $transport
	crypto_cipher: none
	crypto_hash: none
	${TOTEM-}
}
nodelist {
$nodes}
logging {
	to_stderr: no
	to_syslog: no
	to_logfile: yes
	logfile: /run/corosync.log
}
quorum {
}
CONF

corosync -f >/run/corosync.out 2>&1 &
daemon=$!
[ -z "${PIDFILE-}" ] || echo "$daemon" >"$PIDFILE"
trap 'kill -9 $daemon 2>/dev/null || true; wait $daemon 2>/dev/null || true' EXIT
status=0
"$CPG" --daemon "$daemon" "${flags[@]}" || status=$?
if [ $status -ne 0 ]; then
	tail -n 5 /run/corosync.out /run/corosync.log >&2 || true
fi
exit $status
