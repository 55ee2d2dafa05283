package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// host is a network namespace with two interfaces, on two networks that know
// nothing of each other: a and b.
type host struct {
	name string
	num  int
}

// The hosts. Their number is the last part of their addresses.
var (
	pr1 = host{"pr1", 1}
	pr2 = host{"pr2", 2}
	pr3 = host{"pr3", 3}
	pr4 = host{"pr4", 4}
	pe1 = host{"pe1", 11}
	pe2 = host{"pe2", 12}
	pe3 = host{"pe3", 13}
	pu1 = host{"pu1", 21}
	pu2 = host{"pu2", 22}

	odd = host{"odd", 31} // sends what no program does

	hosts = []host{pr1, pr2, pr3, pr4, pe1, pe2, pe3, pu1, pu2, odd}
)

// a and b return the host's IPv4 addresses on the two networks, a6 its IPv6
// address on the first one.
func (h host) a() string  { return fmt.Sprintf("10.9.0.%d", h.num) }
func (h host) b() string  { return fmt.Sprintf("10.10.0.%d", h.num) }
func (h host) a6() string { return fmt.Sprintf("fd00:9::%d", h.num) }

// asap and enrp return the host's registrar endpoints on the first network.
func (h host) asap() string { return h.a() + ":3863" }
func (h host) enrp() string { return h.a() + ":9901" }

// exec returns the command line that runs args on the host; the zero host is
// where the bridges are.
func (h host) exec(args ...string) []string {
	if h.name == "" {
		return args
	}
	return append([]string{"ip", "netns", "exec", h.name}, args...)
}

// cut loses all that the host sends on interface "a" or "b"; mend ends that.
func (h host) cut(network string) error {
	return run(h.exec("tc", "qdisc", "replace", "dev", network, "root", "netem", "loss", "100%")...)
}

func (h host) mend(network string) error {
	return run(h.exec("tc", "qdisc", "del", "dev", network, "root")...)
}

// listens waits until an SCTP endpoint of the host has the port.
func (l *lab) listens(h host, port int, limit time.Duration) error {
	return within(limit, func() error {
		argv := h.exec("cat", "/proc/net/sctp/eps")
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		for line := range strings.Lines(string(out)) {
			// ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS
			if f := strings.Fields(line); len(f) > 5 && f[5] == strconv.Itoa(port) {
				return nil
			}
		}
		return errors.Join(fmt.Errorf("nothing on %s has SCTP port %d", h.name, port), err)
	})
}

// buildNetwork makes the bridges and hosts anew, so that nothing of a former
// group is left, such as associations that end slowly. Multicast goes over network a only,
// as rsplib takes an announcement's source address for the registrar's. IPv6 is
// only there when asked for: from IPv6 sockets that are bound to IPv4 addresses,
// as rsplib's are, the kernel sends to IPv6 addresses too, from an address that it
// then doesn't know.
func (l *lab) buildNetwork(ipv6 bool) error {
	var script strings.Builder
	for _, bridge := range []string{"lan-a", "lan-b"} {
		fmt.Fprintf(&script, "ip link del %s 2>/dev/null || true\n", bridge)
		fmt.Fprintf(&script, "ip link add %s type bridge mcast_snooping 0; ip link set %s up\n", bridge, bridge)
	}
	for _, h := range hosts {
		fmt.Fprintf(&script, "ip netns del %s 2>/dev/null || true; ip link del %s-a 2>/dev/null || true; ip link del %s-b 2>/dev/null || true\n", h.name, h.name, h.name)
		ns := "ip -n " + h.name
		fmt.Fprintf(&script, "ip netns add %s; %s link set lo up; %s link set lo multicast off\n", h.name, ns, ns)
		for _, network := range []string{"a", "b"} {
			fmt.Fprintf(&script, "ip link add %s-%s type veth peer name %s netns %s\n", h.name, network, network, h.name)
			fmt.Fprintf(&script, "ip link set %s-%s up master lan-%s; %s link set dev %s up\n", h.name, network, network, ns, network)
		}
		fmt.Fprintf(&script, "%s address add %s/24 dev a; %s address add %s/24 dev b\n", ns, h.a(), ns, h.b())
		fmt.Fprintf(&script, "%s link set dev b multicast off\n", ns)
		if ipv6 {
			fmt.Fprintf(&script, "%s address add %s/64 dev a nodad\n", ns, h.a6())
		} else {
			fmt.Fprintf(&script, "ip netns exec %s sysctl -q -w net.ipv6.conf.all.disable_ipv6=1\n", h.name)
		}
		fmt.Fprintf(&script, "%s route add 224.0.0.0/4 dev a\n", ns)
	}
	file := filepath.Join(l.out, "log", "network.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o644); err != nil {
		return err
	}
	return run("sh", "-e", file)
}
