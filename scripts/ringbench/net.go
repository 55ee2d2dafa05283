package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// places are where the members of a group run.
type places interface {
	// command makes the command run at place i, from 0 on.
	command(ctx context.Context, i int, args []string) *exec.Cmd
	// address is where it can listen.
	address(i int) string
	// String describes them for a reader of the tables.
	String() string
	close()
}

// loopback is this machine without more ado.
type loopback struct{ port int }

func (l loopback) command(ctx context.Context, _ int, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, args[0], args[1:]...)
}
func (l loopback) address(i int) string { return fmt.Sprintf("127.0.0.1:%d", l.port+i) }
func (l loopback) String() string       { return "loopback" }
func (l loopback) close()               {}

// namespaces are network namespaces on a bridge, which has one of its own.
type namespaces struct {
	names  []string
	bridge string
}

// newNamespaces makes n namespaces; root only. Each has a link of the rate, as tc(8)
// writes it, both ways; none if that is empty.
func newNamespaces(ctx context.Context, n int, rate string) (*namespaces, error) {
	ns := &namespaces{bridge: fmt.Sprintf("rb%d-bridge", os.Getpid())}
	steps := []string{
		"ip netns add " + ns.bridge,
		"ip -n " + ns.bridge + " link add br0 type bridge",
		"ip -n " + ns.bridge + " link set br0 up",
	}
	for i := range n {
		name := fmt.Sprintf("rb%d-%d", os.Getpid(), i+1)
		ns.names = append(ns.names, name)
		steps = append(steps,
			"ip netns add "+name,
			fmt.Sprintf("ip -n %s link add eth0 type veth peer name m%d netns %s", name, i+1, ns.bridge),
			fmt.Sprintf("ip -n %s link set m%d master br0 up", ns.bridge, i+1),
			fmt.Sprintf("ip -n %s address add 10.231.77.%d/24 dev eth0", name, i+1),
			"ip -n "+name+" link set lo up",
			"ip -n "+name+" link set eth0 up",
		)
		if rate != "" {
			bucket := " root tbf rate " + rate + " burst 16kb latency 20ms"
			steps = append(steps, "tc -n "+name+" qdisc add dev eth0"+bucket, fmt.Sprintf("tc -n %s qdisc add dev m%d", ns.bridge, i+1)+bucket)
		}
	}
	for _, step := range steps {
		args := strings.Fields(step)
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			ns.close()
			return nil, fmt.Errorf("%s: %w: %s", step, err, out)
		}
	}
	return ns, nil
}

func (ns *namespaces) command(ctx context.Context, i int, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns.names[i]}, args...)...)
}

func (ns *namespaces) address(i int) string {
	return fmt.Sprintf("10.231.77.%d:%d", i+1, ringPort)
}

func (ns *namespaces) String() string { return "network namespaces on a bridge" }

func (ns *namespaces) close() {
	for _, name := range append(ns.names, ns.bridge) {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "ringbench: ip netns del %s: %v: %s\n", name, err, out)
		}
	}
}
