package endtoend

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// network is an Ethernet of hosts, each a network namespace: they share nothing
// with each other and with this machine but its files and processors.
type network struct {
	w      *world
	name   string // of the bridge's namespace, and the beginning of the hosts'
	hosts  []*host
	lladdr map[*host]string
}

const link = "eth0" // of each host

var networks atomic.Int32

// newNetwork makes a network without hosts. It skips the test where that can't be.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("SKIPPED: needs network namespaces, and the command ip of iproute2 is missing")
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs network namespaces, and this user is not root")
	}
	n := &network{name: fmt.Sprintf("rse2e-%d-%d", os.Getpid(), networks.Add(1)), lladdr: make(map[*host]string)}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: network namespaces can't be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { // after the end of the world
		n.ip("netns", "del", n.name)
		for _, h := range n.hosts {
			n.ip("netns", "del", h.namespace)
		}
	})
	n.w = newWorld(t)
	// Multicast goes everywhere, as nobody asks who listens.
	n.ip("-n", n.name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	n.ip("-n", n.name, "link", "set", "br0", "up")
	return n
}

func (n *network) ip(args ...string) {
	n.w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.w.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// run runs a command of the system on a host.
func (n *network) run(h *host, command ...string) string {
	n.w.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", h.namespace}, command...)...).CombinedOutput()
	if err != nil {
		n.w.t.Fatalf("%q: %v: %s", command, err, out)
	}
	return string(out)
}

// host adds a host with these addresses, each with the length of its prefix.
func (n *network) host(addresses ...string) *host {
	n.w.t.Helper()
	i := len(n.hosts) + 1
	h := &host{w: n.w, namespace: fmt.Sprintf("%s-%d", n.name, i)}
	port := fmt.Sprintf("port%d", i)
	n.lladdr[h] = fmt.Sprintf("02:00:00:00:00:%02x", i)
	n.ip("netns", "add", h.namespace)
	n.hosts = append(n.hosts, h)
	n.ip("-n", n.name, "link", "add", port, "type", "veth", "peer", "name", link, "address", n.lladdr[h], "netns", h.namespace)
	n.ip("-n", n.name, "link", "set", port, "master", "br0", "up")
	n.ip("-n", h.namespace, "link", "set", "lo", "up")
	n.ip("-n", h.namespace, "link", "set", link, "up")
	for _, a := range addresses {
		args := []string{"-n", h.namespace, "address", "add", a, "dev", link}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		n.ip(args...)
		if a, _, _ = strings.Cut(a, "/"); h.address == "" {
			h.address = a
		}
	}
	h.dial = h.dialInside
	return h
}

// dialInside connects from the host's namespace.
func (h *host) dialInside(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = h.inside(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// listen listens by TCP on the host.
func (h *host) listen(address string) (l net.Listener, err error) {
	if h.namespace == "" {
		return net.Listen("tcp", address)
	}
	err = h.inside(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// inside does something on a thread in the host's namespace.
func (h *host) inside(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(filepath.Join("/run/netns", h.namespace))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = do()
	// The thread goes back: its end would be that of the processes that it started.
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(fmt.Sprintf("thread is lost in namespace %s: %v", h.namespace, err))
	}
	return err
}

// plug connects and disconnects a host's cable at the other end: the host sees
// nothing of it but silence.
func (n *network) plug(h *host, connected bool) {
	n.w.t.Helper()
	for i, other := range n.hosts {
		if other == h {
			args := []string{"-n", n.name, "link", "set", fmt.Sprintf("port%d", i+1)}
			if connected {
				args = append(args, "master", "br0")
			} else {
				args = append(args, "nomaster")
			}
			n.ip(args...)
		}
	}
}

// oneWay makes what from sends to the addresses of to vanish, or not any more; the
// other way is as it was.
func (n *network) oneWay(from, to *host, connected bool) {
	n.w.t.Helper()
	at := n.lladdr[to]
	if !connected {
		at = "02:00:00:00:ff:ff" // nobody's
	}
	n.ip("-n", from.namespace, "neighbor", "replace", to.address, "lladdr", at, "nud", "permanent", "dev", link)
}

// way is that from one host to another, by their numbers.
type way struct{ from, to int }

// between returns the ways between two groups of hosts.
func between(left, right []int) (ways []way) {
	for _, i := range left {
		for _, k := range right {
			ways = append(ways, way{i, k}, way{k, i})
		}
	}
	return ways
}

// names gives a host a file of host names.
func (n *network) names(h *host, text string) {
	n.w.t.Helper()
	dir := filepath.Join("/etc/netns", h.namespace)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			n.w.t.Error(err)
		}
		_ = os.Remove(filepath.Dir(dir)) // if it is empty
	})
	write(n.w.t, filepath.Join(dir, "hosts"), text)
}
