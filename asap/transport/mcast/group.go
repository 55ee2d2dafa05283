package mcast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"rserpool/asap/transport"
)

// group is one multicast group with its sockets.
type group struct {
	addr   netip.AddrPort
	conn   socket // receives
	sender socket // the same unless there is a source port of its own
	writes *transport.Interrupter

	mu     sync.Mutex
	joined []net.Interface
	send1  sync.Mutex // one sender at a time, for writes
}

// socket is what IPv4 and IPv6 sockets have in common.
type socket interface {
	join(i *net.Interface, group netip.Addr) error
	// read also returns where the datagram was sent to.
	read(buf []byte) (n int, destination netip.Addr, source netip.AddrPort, err error)
	write(data []byte, i net.Interface, source net.IP, to netip.AddrPort) error
	Close() error
}

func openGroup(ctx context.Context, addr netip.AddrPort, c Config) (*group, error) {
	g := &group{addr: addr}
	udp, err := listen(ctx, addr.Addr(), addr.Port())
	if err != nil {
		return nil, err
	}
	if g.conn, err = newSocket(udp, addr.Addr(), c.Hops); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	g.sender, g.writes = g.conn, transport.NewInterrupter(udp.SetWriteDeadline)
	if c.SourcePort == 0 || c.SourcePort == addr.Port() {
		return g, nil
	}
	udp, err = listen(ctx, addr.Addr(), c.SourcePort)
	if err != nil {
		return nil, errors.Join(err, g.conn.Close())
	}
	if g.sender, err = newSocket(udp, addr.Addr(), c.Hops); err != nil {
		return nil, errors.Join(err, udp.Close(), g.conn.Close())
	}
	g.writes = transport.NewInterrupter(udp.SetWriteDeadline)
	return g, nil
}

// listen makes a UDP socket that shares its port with other processes.
func listen(ctx context.Context, family netip.Addr, port uint16) (*net.UDPConn, error) {
	network := "udp6"
	if family.Is4() {
		network = "udp4"
	}
	lc := net.ListenConfig{Control: sharePort}
	c, err := lc.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func (g *group) hasJoined(i net.Interface) bool {
	return slices.ContainsFunc(g.joined, func(j net.Interface) bool { return i.Index == j.Index })
}

// source returns the first address of the group's family that i has, a routable
// one if possible. The kernel would take an address of another interface when i
// has only loopback addresses.
func (g *group) source(i net.Interface) net.IP {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // it has just gone
	}
	var first net.IP
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || (n.IP.To4() != nil) != g.addr.Addr().Is4() {
			continue
		}
		if n.IP.IsGlobalUnicast() {
			return n.IP
		}
		if first == nil {
			first = n.IP
		}
	}
	return first
}

// send sends data on each interface and returns on how many it went out.
func (g *group) send(ctx context.Context, data []byte, report func(string, error)) (int, error) {
	g.mu.Lock()
	interfaces := slices.Clone(g.joined)
	g.mu.Unlock()
	g.send1.Lock()
	defer g.send1.Unlock()
	if err := g.writes.Arm(ctx); err != nil {
		return 0, err
	}
	sent := 0
	var errs []error
	for _, i := range interfaces {
		err := g.sender.write(data, i, g.source(i), g.addr)
		if err == nil {
			sent++
		} else {
			err = fmt.Errorf("announce to %s on %s: %w", g.addr, i.Name, err)
			errs = append(errs, err)
		}
		report("send "+g.addr.String()+i.Name, err)
	}
	return sent, errors.Join(errs...)
}

func (g *group) close() error {
	err := g.conn.Close()
	if g.sender != g.conn {
		err = errors.Join(err, g.sender.Close())
	}
	g.writes.Release()
	return err
}

func newSocket(udp *net.UDPConn, family netip.Addr, hops int) (socket, error) {
	if family.Is4() {
		p := ipv4.NewPacketConn(udp)
		return socket4{p}, errors.Join(
			p.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true),
			p.SetMulticastTTL(hops),
			p.SetMulticastLoopback(true))
	}
	p := ipv6.NewPacketConn(udp)
	return socket6{p}, errors.Join(
		p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true),
		p.SetMulticastHopLimit(hops),
		p.SetMulticastLoopback(true))
}

type socket4 struct{ *ipv4.PacketConn }

func (s socket4) join(i *net.Interface, group netip.Addr) error {
	return s.JoinGroup(i, &net.UDPAddr{IP: group.AsSlice()})
}

func (s socket4) read(buf []byte) (int, netip.Addr, netip.AddrPort, error) {
	n, cm, from, err := s.ReadFrom(buf)
	if err != nil || cm == nil {
		return 0, netip.Addr{}, netip.AddrPort{}, err
	}
	return n, addrOf(cm.Dst), addrPortOf(from), nil
}

func (s socket4) write(data []byte, i net.Interface, source net.IP, to netip.AddrPort) error {
	_, err := s.WriteTo(data, &ipv4.ControlMessage{IfIndex: i.Index, Src: source}, net.UDPAddrFromAddrPort(to))
	return err
}

type socket6 struct{ *ipv6.PacketConn }

func (s socket6) join(i *net.Interface, group netip.Addr) error {
	return s.JoinGroup(i, &net.UDPAddr{IP: group.AsSlice()})
}

func (s socket6) read(buf []byte) (int, netip.Addr, netip.AddrPort, error) {
	n, cm, from, err := s.ReadFrom(buf)
	if err != nil || cm == nil {
		return 0, netip.Addr{}, netip.AddrPort{}, err
	}
	return n, addrOf(cm.Dst), addrPortOf(from), nil
}

func (s socket6) write(data []byte, i net.Interface, source net.IP, to netip.AddrPort) error {
	_, err := s.WriteTo(data, &ipv6.ControlMessage{IfIndex: i.Index, Src: source}, net.UDPAddrFromAddrPort(to))
	return err
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip) // the zero address is no group
	return addr.Unmap()
}

func addrPortOf(a net.Addr) netip.AddrPort {
	ap := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
