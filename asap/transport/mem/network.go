// Package mem is a network in memory, with faults that are called by name, for
// tests. It has no goroutines of its own and waits on channels and timers only,
// so it works in the virtual time of testing/synctest; there the Network must be
// made inside the bubble.
//
// Its connections behave like SCTP associations: whole messages, PPIDs, streams,
// several addresses at each end. They are reliable: what a cut link holds back
// arrives when the link heals, unless the association has failed before.
package mem

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// Defaults of the fields of Network.
const (
	DefaultFailureTime = 10 * time.Second
	DefaultBuffer      = 256 << 10
	DefaultBacklog     = 128
)

// Network is the wire and the machines on it. All randomness comes from its
// seed, and each direction of each link has its own sequence of it. Methods may
// be called concurrently; those that take names of machines panic when there is
// no such machine.
type Network struct {
	// FailureTime is how long an association lives without a working path
	// before both ends see it fail. Set before the first use.
	FailureTime time.Duration
	// Buffer is how many octets each direction of a connection holds before
	// senders wait. Set before the first use.
	Buffer int
	// Backlog is how many connections a listener holds before dialers wait.
	// Set before the first use.
	Backlog int

	seed uint64

	// mu guards everything below, and all of the machines, connections and
	// listeners. It is never held while waiting.
	mu         sync.Mutex
	machines   map[string]*machine
	byAddr     map[netip.Addr]*machine
	aliases    map[string][]string
	links      map[[2]string]*link
	drops      []func([]byte) bool
	assocs     []*assoc // in the order of their making, so that faults reach them in it
	announcers []*announcer
	changed    signal // a fault came or went, a listener came or has room
}

// machine is a computer: its addresses outlive its processes.
type machine struct {
	name      string
	addrs     []netip.Addr
	downAddrs map[netip.Addr]bool
	unplugged bool
	off       bool  // after Crash
	process   *Host // nil after Kill and Crash
	listeners map[netip.AddrPort]*listener
	lastPort  uint16
}

// Host is a process on a machine of the network, and the transport.Network and
// transport.Resolver that this process sees. It is dead for good after
// Network.Kill and Network.Crash.
type Host struct {
	n      *Network
	m      *machine
	frozen bool
	dead   bool
}

// link is one direction between two machines.
type link struct {
	cut      bool
	min, max time.Duration // delay
	rand     *rand.Rand
}

// signal wakes all who wait for it. It is guarded by Network.mu.
type signal struct{ ch chan struct{} }

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// wait waits for s or the end of ctx. n.mu is held at the call and afterwards.
func (n *Network) wait(ctx context.Context, s *signal) error {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	ch := s.ch
	n.mu.Unlock()
	defer n.mu.Lock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// NewNetwork returns an empty network without delay.
func NewNetwork(seed uint64) *Network {
	return &Network{
		FailureTime: DefaultFailureTime,
		Buffer:      DefaultBuffer,
		Backlog:     DefaultBacklog,
		seed:        seed,
		machines:    make(map[string]*machine),
		byAddr:      make(map[netip.Addr]*machine),
		aliases:     make(map[string][]string),
		links:       make(map[[2]string]*link),
	}
}

// Host returns the process on the machine of this name. At the first call the
// machine is made, with these IP addresses; without any, with its name if that is
// an address, else with one of 10.0.0.0/8. After Kill, Host starts a new process.
func (n *Network) Host(name string, addrs ...string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[name]
	if m == nil {
		m = n.addMachine(name, addrs)
	} else if len(addrs) > 0 {
		panic(fmt.Sprintf("mem: machine %q already has addresses", name))
	}
	if m.process == nil {
		m.process, m.off = &Host{n: n, m: m}, false
		n.changed.fire()
	}
	return m.process
}

func (n *Network) addMachine(name string, addrs []string) *machine {
	m := &machine{
		name:      name,
		downAddrs: make(map[netip.Addr]bool),
		listeners: make(map[netip.AddrPort]*listener),
		lastPort:  49151,
	}
	for _, s := range addrs {
		m.addrs = append(m.addrs, netip.MustParseAddr(s))
	}
	if addrs == nil {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			k := len(n.machines) + 1
			addr = netip.AddrFrom4([4]byte{10, 0, byte(k >> 8), byte(k)})
		}
		m.addrs = []netip.Addr{addr}
	}
	for _, a := range m.addrs {
		if other := n.byAddr[a]; other != nil {
			panic(fmt.Sprintf("mem: %s belongs to machine %q", a, other.name))
		}
		n.byAddr[a] = m
	}
	n.machines[name] = m
	return m
}

// Alias makes name a DNS name with all addresses of these machines.
func (n *Network) Alias(name string, machines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range machines {
		n.machine(other)
	}
	n.aliases[name] = machines
}

// machine returns the machine with this name.
func (n *Network) machine(name string) *machine {
	m := n.machines[name]
	if m == nil {
		panic(fmt.Sprintf("mem: no machine %q", name))
	}
	return m
}

// link returns the direction from a to b.
func (n *Network) link(a, b *machine) *link {
	key := [2]string{a.name, b.name}
	l := n.links[key]
	if l == nil {
		h := fnv.New64a()
		fmt.Fprintf(h, "%q %q", a.name, b.name)
		l = &link{rand: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.links[key] = l
	}
	return l
}

func (l *link) delay() time.Duration {
	if l.max <= l.min {
		return l.min
	}
	return l.min + time.Duration(l.rand.Int64N(int64(l.max-l.min)+1))
}

// dropped tells whether a fault takes this message, and ends the fault if so.
func (n *Network) dropped(data []byte) bool {
	for i, match := range n.drops {
		if match(data) {
			n.drops = slices.Delete(n.drops, i, i+1)
			return true
		}
	}
	return false
}

// reaches tells whether what a sends can arrive at b.
func (n *Network) reaches(a, b *machine) bool {
	return a == b || !a.silent() && !b.silent() && !n.link(a, b).cut
}

// silent tells whether nothing comes in or goes out.
func (m *machine) silent() bool { return m.unplugged || m.off }

// up returns those of addrs that work.
func (m *machine) up(addrs []netip.Addr) []netip.Addr {
	var up []netip.Addr
	for _, a := range addrs {
		if !m.downAddrs[a] {
			up = append(up, a)
		}
	}
	return up
}

// Name returns transport.Mem.
func (h *Host) Name() string { return transport.Mem }

// Available returns nil.
func (h *Host) Available() error { return nil }

// LookupNetIP returns the addresses of a machine or alias.
func (h *Host) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if m := h.n.machines[name]; m != nil {
		return slices.Clone(m.addrs), nil
	}
	var addrs []netip.Addr
	for _, machine := range h.n.aliases[name] {
		addrs = append(addrs, h.n.machine(machine).addrs...)
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return addrs, nil
}

// running waits while the process is frozen, and fails when it is dead or closed
// is set. n.mu is held.
func (h *Host) running(ctx context.Context, closed *bool) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if h.dead || *closed {
			return fmt.Errorf("mem: process on %q: %w", h.m.name, net.ErrClosed)
		}
		if !h.frozen {
			return nil
		}
		if err := h.n.wait(ctx, &h.n.changed); err != nil {
			return err
		}
	}
}
