package mem

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

type listener struct {
	n       *Network
	h       *Host
	addrs   []netip.AddrPort
	opt     transport.Options
	backlog []*conn
	closed  bool
	wake    signal
}

// own returns the addresses that local stands for on this machine, with port.
func (m *machine) own(local []netip.AddrPort, port uint16) ([]netip.AddrPort, error) {
	var addrs []netip.AddrPort
	add := func(a netip.Addr) {
		if ap := netip.AddrPortFrom(a, port); !slices.Contains(addrs, ap) {
			addrs = append(addrs, ap)
		}
	}
	for _, l := range local {
		want := l.Addr().Unmap()
		switch {
		case want.IsUnspecified():
			for _, a := range m.addrs {
				if want.Is6() || a.Is4() {
					add(a)
				}
			}
		case slices.Contains(m.addrs, want):
			add(want)
		default:
			return nil, fmt.Errorf("mem: %s on %q: %w", want, m.name, syscall.EADDRNOTAVAIL)
		}
	}
	if addrs == nil {
		return nil, fmt.Errorf("mem: %q has none of the local addresses %v", m.name, local)
	}
	return addrs, nil
}

// freePort returns a port on which no listener is.
func (m *machine) freePort() uint16 {
	for {
		m.lastPort++
		if m.lastPort < 49152 {
			m.lastPort = 49152
		}
		if !slices.ContainsFunc(m.addrs, func(a netip.Addr) bool { return m.listeners[netip.AddrPortFrom(a, m.lastPort)] != nil }) {
			return m.lastPort
		}
	}
}

// Listen implements transport.Network. Addrs of the listener are real addresses
// also when an unspecified one was asked for.
func (h *Host) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if err := h.running(ctx, new(bool)); err != nil {
		return nil, err
	}
	if len(local) == 0 {
		return nil, errors.New("mem: listen: no local address")
	}
	port := local[0].Port()
	if port == 0 {
		port = h.m.freePort()
	}
	addrs, err := h.m.own(local, port)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if h.m.listeners[a] != nil {
			return nil, fmt.Errorf("mem: listen on %s: %w", a, syscall.EADDRINUSE)
		}
	}
	l := &listener{n: h.n, h: h, addrs: addrs, opt: opt.WithDefaults()}
	for _, a := range addrs {
		h.m.listeners[a] = l
	}
	h.n.changed.fire()
	return l, nil
}

// Dial implements transport.Network. It waits for a path or for room in the
// listener's backlog as long as ctx lasts; refusal and addresses that no machine
// has are errors at once.
func (h *Host) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if len(remote) == 0 {
		return nil, errors.New("mem: dial: no remote address")
	}
	opt = opt.WithDefaults()
	if len(local) == 0 {
		local = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}
	}
	port := local[0].Port()
	if port == 0 {
		port = h.m.freePort()
	}
	from, err := h.m.own(local, port)
	if err != nil {
		return nil, err
	}
	if err := h.handshake(ctx, remote[0].Addr().Unmap()); err != nil {
		return nil, err
	}
	for {
		if err := h.running(ctx, new(bool)); err != nil {
			return nil, err
		}
		c, silent, err := h.try(from, remote, opt)
		if c != nil {
			return c, nil
		}
		if !silent {
			return nil, err
		}
		if err := h.n.wait(ctx, &h.n.changed); err != nil {
			return nil, err
		}
	}
}

// handshake waits for one way there and back.
func (h *Host) handshake(ctx context.Context, to netip.Addr) error {
	m := h.n.byAddr[to]
	if m == nil {
		return nil // Dial will find out
	}
	wait := h.n.link(h.m, m).delay() + h.n.link(m, h.m).delay()
	if wait == 0 {
		return nil
	}
	var over signal
	timer := time.AfterFunc(wait, func() {
		h.n.mu.Lock()
		defer h.n.mu.Unlock()
		over.fire()
	})
	defer timer.Stop()
	return h.n.wait(ctx, &over)
}

// try connects to the first of the remote addresses that answers. silent tells
// that one gives no answer yet.
func (h *Host) try(from, remote []netip.AddrPort, opt transport.Options) (c *conn, silent bool, err error) {
	var errs []error
	for _, to := range remote {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
		m := h.n.byAddr[to.Addr()]
		if m == nil {
			errs = append(errs, fmt.Errorf("mem: dial %s: %w", to, syscall.EHOSTUNREACH))
			continue
		}
		l := m.listeners[to]
		switch {
		case !h.n.reaches(h.m, m) || !h.n.reaches(m, h.m) || m.downAddrs[to.Addr()] || !h.anyUp(from):
			silent = true
		case l == nil:
			errs = append(errs, fmt.Errorf("mem: dial %s: %w", to, syscall.ECONNREFUSED))
		case len(l.backlog) >= h.n.Backlog:
			silent = true
		default:
			addrs := append([]netip.AddrPort{to}, slices.DeleteFunc(slices.Clone(l.addrs), func(a netip.AddrPort) bool { return a == to })...)
			c, s := h.n.connect(h, l.h, from, addrs, opt, l.opt)
			l.backlog = append(l.backlog, s)
			l.wake.fire()
			return c, false, nil
		}
	}
	return nil, silent, errors.Join(errs...)
}

func (h *Host) anyUp(addrs []netip.AddrPort) bool {
	return slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return !h.m.downAddrs[a.Addr()] })
}

func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for {
		if err := l.h.running(ctx, &l.closed); err != nil {
			return nil, err
		}
		if len(l.backlog) > 0 {
			c := l.backlog[0]
			l.backlog = l.backlog[1:]
			l.n.changed.fire()
			return c, nil
		}
		if err := l.n.wait(ctx, &l.wake); err != nil {
			return nil, err
		}
	}
}

func (l *listener) Network() string         { return transport.Mem }
func (l *listener) Addrs() []netip.AddrPort { return slices.Clone(l.addrs) }

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.close()
	return nil
}

// close resets the connections that nobody has accepted.
func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	for _, a := range l.addrs {
		delete(l.h.m.listeners, a)
	}
	for _, c := range l.backlog {
		c.end(rst)
	}
	l.backlog = nil
	l.wake.fire()
	l.n.changed.fire()
}
