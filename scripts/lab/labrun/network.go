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
	pr5 = host{"pr5", 5}
	pe1 = host{"pe1", 11}
	pe2 = host{"pe2", 12}
	pe3 = host{"pe3", 13}
	pu1 = host{"pu1", 21}
	pu2 = host{"pu2", 22}

	odd = host{"odd", 31} // sends what no program does

	hosts = []host{pr1, pr2, pr3, pr4, pr5, pe1, pe2, pe3, pu1, pu2, odd}
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

// nobody has this address.
const nobody = "02:00:00:00:ff:ff"

// lose makes all that the host sends to these others vanish; what they send arrives.
// find ends that.
func (h host) lose(others ...host) error {
	return h.neighbors(others, func(address, network string) string {
		return "neighbor replace " + address + " lladdr " + nobody + " nud permanent dev " + network
	})
}

func (h host) find(others ...host) error {
	return h.neighbors(others, func(address, network string) string { return "neighbor del " + address + " dev " + network })
}

// neighbors runs a command of ip for each address of others.
func (h host) neighbors(others []host, command func(address, network string) string) error {
	var lines strings.Builder
	for _, other := range others {
		fmt.Fprintf(&lines, "%s\n%s\n", command(other.a(), "a"), command(other.b(), "b"))
	}
	return run("sh", "-c", fmt.Sprintf("ip -n %s -batch - <<end\n%send", h.name, lines.String()))
}

// split makes what each side sends to the other vanish; meet ends that.
func split(left, right []host) error {
	return between(left, right, host.lose)
}

func meet(left, right []host) error { return between(left, right, host.find) }

func between(left, right []host, do func(host, ...host) error) error {
	var errs []error
	for _, h := range left {
		errs = append(errs, do(h, right...))
	}
	for _, h := range right {
		errs = append(errs, do(h, left...))
	}
	return errors.Join(errs...)
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
// then doesn't know. Starting a program takes long here: ip does many things at a time.
func (l *lab) buildNetwork(ipv6 bool) error {
	var script, old, namespaces, links strings.Builder
	for _, network := range []string{"a", "b"} {
		fmt.Fprintf(&old, "link del lan-%s\n", network)
		fmt.Fprintf(&links, "link add lan-%s type bridge mcast_snooping 0\nlink set lan-%s up\n", network, network)
	}
	for _, h := range hosts {
		fmt.Fprintf(&namespaces, "netns add %s\n", h.name)
		for _, network := range []string{"a", "b"} {
			fmt.Fprintf(&old, "link del %s-%s\n", h.name, network) // a namespace outlives its name in what is left there
			fmt.Fprintf(&links, "link add %s-%s type veth peer name %s netns %s\n", h.name, network, network, h.name)
			fmt.Fprintf(&links, "link set %s-%s up master lan-%s\n", h.name, network, network)
		}
	}
	fmt.Fprintf(&script, "ip -all netns del; ip -force -batch - 2>/dev/null <<end\n%send\nset -e\n", old.String())
	fmt.Fprintf(&script, "ip -batch - <<end\n%send\nip -batch - <<end\n%send\n", namespaces.String(), links.String())
	disable := 1
	if ipv6 {
		disable = 0
	}
	for _, h := range hosts {
		fmt.Fprintf(&script, "nsenter --net=/run/netns/%s sh -c 'echo %d >/proc/sys/net/ipv6/conf/all/disable_ipv6; exec ip -batch -' <<end\n", h.name, disable)
		script.WriteString("link set lo up\nlink set lo multicast off\nlink set dev a up\nlink set dev b up\nlink set dev b multicast off\n")
		fmt.Fprintf(&script, "address add %s/24 dev a\naddress add %s/24 dev b\n", h.a(), h.b())
		if ipv6 {
			fmt.Fprintf(&script, "address add %s/64 dev a nodad\n", h.a6())
		}
		script.WriteString("route add 224.0.0.0/4 dev a\nend\n")
	}
	file := filepath.Join(l.out, "log", "network.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o644); err != nil {
		return err
	}
	return run("sh", file)
}
