#!/bin/sh
# First process of the lab's guest: prepares the kernel, runs the checks, halts.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
export PATH HOME

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mountpoint -q /dev || mount -t devtmpfs dev /dev
ln -sf /proc/self/fd /dev/fd
# The results' folder, at a place that the new /tmp can't hide.
mkdir /run/lab
mount -t hostfs none /run/lab -o "$LAB_OUT"

# Nothing loads by itself. Without md5 and hmac SCTP can't make its cookie key.
for module in sctp md5 sha1_generic hmac crc32c_generic veth bridge dummy sch_netem; do
	modprobe -d /run/lab/modules "$module" || echo "lab: no module $module"
done
ip link set lo up
ip link set lo multicast on
ip route add 224.0.0.0/4 dev lo
ip address add 10.8.0.1/24 dev lo
ip address add 10.8.0.2/24 dev lo
ip address add fd00:8::1/64 dev lo nodad
sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0

# Ends the checks only if they hang; the whole boot is limited from outside.
/run/lab/bin/labrun -out /run/lab -groups "$LAB_GROUPS"
sync
halt -f
