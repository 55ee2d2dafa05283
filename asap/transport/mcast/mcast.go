// Package mcast sends and receives registrar announcements by UDP multicast
// (RFC 5352, section 3.6), over IPv4 and IPv6, on all interfaces that have
// multicast or on chosen ones.
package mcast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// Port is the port of the announcements (RFC 5352, section 8.2).
const Port = 3863

// SiteLocal is the default scope of the IPv6 group.
const SiteLocal = 5

const (
	// queueLength is how many announcements wait for a reader; more are
	// dropped, they will be repeated.
	queueLength = 64
	// refreshInterval is how often interfaces that came or went are noticed.
	refreshInterval = 10 * time.Second
	// errorPause keeps a failing socket from spinning.
	errorPause = time.Second
)

// RFCGroups returns the groups assigned for ASAP, 224.0.1.185 and ff0X::133
// (AMB-20), the latter with this scope (1 to 14, RFC 4291, section 2.7).
func RFCGroups(scope int) []netip.AddrPort {
	v6 := netip.MustParseAddr("ff00::133").As16()
	v6[1] = byte(scope & 0xf)
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 1, 185}), Port),
		netip.AddrPortFrom(netip.AddrFrom16(v6), Port),
	}
}

// RsplibGroups returns the group that rsplib uses unless told otherwise.
func RsplibGroups() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 0, 0, 50}), Port)}
}

// RsplibENRPGroups returns the group where rsplib's registrars announce themselves
// to each other unless told otherwise.
func RsplibENRPGroups() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 0, 0, 51}), 9901)}
}

// Config says where to announce and listen.
type Config struct {
	// Groups are the multicast groups with their ports. Default
	// RFCGroups(SiteLocal). Announcements go to all, those of any are received.
	Groups []netip.AddrPort
	// Interfaces are the names of the interfaces to use. Default: all that are
	// up and have multicast, those that come later included.
	Interfaces []string
	// Hops is the IPv4 time to live and IPv6 hop limit, 1 to 255. Default 1:
	// announcements stay on the link.
	Hops int
	// SourcePort is the port that announcements come from. Receivers take it
	// for the registrar's when the announcement carries no transport. Default
	// the group's port.
	SourcePort uint16
	// Report is told of errors that don't stop the announcer: a group or
	// interface that can't be used, announcements dropped because nobody reads
	// them. The same error again on the same interface is told once. It may be
	// called by several goroutines; nil drops them.
	Report func(error)
}

// Validate names all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	for _, g := range c.Groups {
		if !g.Addr().IsMulticast() || g.Port() == 0 {
			errs = append(errs, fmt.Errorf("multicast group %s: not a multicast address with a port", g))
		}
	}
	if c.Hops < 0 || c.Hops > 255 {
		errs = append(errs, fmt.Errorf("hops %d: not between 1 and 255", c.Hops))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if len(c.Groups) == 0 {
		c.Groups = RFCGroups(SiteLocal)
	}
	if c.Hops == 0 {
		c.Hops = 1
	}
	return c
}

// Announcer implements transport.Announcer. One goroutine reads each group and
// one watches the interfaces; Close waits for them.
type Announcer struct {
	config   Config
	groups   []*group
	queue    chan datagram
	closed   chan struct{}
	closing  sync.Once
	closeErr error
	running  sync.WaitGroup

	mu       sync.Mutex
	reported map[string]string // the last error for each group and interface
}

type datagram struct {
	data   []byte
	source netip.AddrPort
}

var _ transport.Announcer = (*Announcer)(nil)

// Open joins the groups. It fails when c is not valid or the machine can't make a
// socket for any group; a group or interface that can't be used now is reported
// and tried again later.
func Open(ctx context.Context, c Config) (*Announcer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Announcer{
		config:   c.withDefaults(),
		queue:    make(chan datagram, queueLength),
		closed:   make(chan struct{}),
		reported: make(map[string]string),
	}
	var errs []error
	for _, addr := range a.config.Groups {
		g, err := openGroup(ctx, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), a.config)
		if err != nil {
			err = fmt.Errorf("multicast group %s: %w", addr, err)
			a.report(addr.String(), err)
			errs = append(errs, err)
			continue
		}
		a.groups = append(a.groups, g)
	}
	if len(a.groups) == 0 {
		return nil, fmt.Errorf("%w: %w", transport.ErrUnsupported, errors.Join(errs...))
	}
	a.refresh()
	for _, g := range a.groups {
		a.running.Go(func() { a.read(g) })
	}
	a.running.Go(a.watch)
	return a, nil
}

// report tells err unless it was the last one told about what.
func (a *Announcer) report(what string, err error) {
	a.mu.Lock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	again := a.reported[what] == text
	a.reported[what] = text
	a.mu.Unlock()
	if err != nil && !again && a.config.Report != nil {
		a.config.Report(err)
	}
}

// watch notices interfaces that come and go.
func (a *Announcer) watch() {
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.refresh()
		case <-a.closed:
			return
		}
	}
}

// refresh joins the groups on the interfaces that there are.
func (a *Announcer) refresh() {
	interfaces, err := a.interfaces()
	a.report("interfaces", err)
	for _, g := range a.groups {
		g.mu.Lock()
		g.joined = slices.DeleteFunc(g.joined, func(j net.Interface) bool {
			return !slices.ContainsFunc(interfaces, func(i net.Interface) bool { return i.Index == j.Index })
		})
		for _, i := range interfaces {
			if g.hasJoined(i) || g.source(i) == nil {
				continue
			}
			err := g.conn.join(&i, g.addr.Addr())
			if err != nil {
				err = fmt.Errorf("join multicast group %s on %s: %w", g.addr, i.Name, err)
			} else {
				g.joined = append(g.joined, i)
			}
			a.report(g.addr.String()+i.Name, err)
		}
		g.mu.Unlock()
	}
}

// interfaces returns those to use, as far as they are there.
func (a *Announcer) interfaces() ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	names := a.config.Interfaces
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(i net.Interface) bool {
			return i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0
		}), nil
	}
	var found []net.Interface
	var errs []error
	for _, name := range names {
		k := slices.IndexFunc(all, func(i net.Interface) bool { return i.Name == name })
		switch {
		case k < 0:
			errs = append(errs, fmt.Errorf("interface %q: not there", name))
		case all[k].Flags&net.FlagUp == 0:
			errs = append(errs, fmt.Errorf("interface %q: down", name))
		default:
			found = append(found, all[k])
		}
	}
	return found, errors.Join(errs...)
}

// read takes the datagrams of a group.
func (a *Announcer) read(g *group) {
	buf := make([]byte, transport.MaxMessage)
	for {
		n, destination, source, err := g.conn.read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			a.report("read "+g.addr.String(), fmt.Errorf("receive announcements to %s: %w", g.addr, err))
			select {
			case <-time.After(errorPause):
			case <-a.closed:
				return
			}
		case destination == g.addr.Addr(): // the socket also gets other groups of its port
			select {
			case a.queue <- datagram{slices.Clone(buf[:n]), source}:
				a.report("queue", nil)
			default:
				a.report("queue", errors.New("announcements dropped: nobody takes them"))
			}
		}
	}
}

// Announce sends data to every group on every interface. It fails when none of
// them took it.
func (a *Announcer) Announce(ctx context.Context, data []byte) error {
	if err := a.state(); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	sent := 0
	var errs []error
	for _, g := range a.groups {
		n, err := g.send(ctx, data, a.report)
		sent += n
		errs = append(errs, err)
	}
	switch {
	case sent > 0:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("announce on no interface: %w", errors.Join(append(errs, a.state())...))
}

// state returns an error after Close.
func (a *Announcer) state() error {
	select {
	case <-a.closed:
		return net.ErrClosed
	default:
		return nil
	}
}

// ReceiveAnnouncement implements transport.Announcer. The program's own
// announcements are received too.
func (a *Announcer) ReceiveAnnouncement(ctx context.Context, buf []byte) (int, netip.AddrPort, error) {
	for {
		if err := a.state(); err != nil {
			return 0, netip.AddrPort{}, fmt.Errorf("receive announcement: %w", err)
		}
		if ctx.Err() != nil {
			return 0, netip.AddrPort{}, context.Cause(ctx)
		}
		select {
		case d := <-a.queue:
			if len(d.data) <= len(buf) {
				return copy(buf, d.data), d.source, nil
			}
		case <-ctx.Done():
		case <-a.closed:
		}
	}
}

// Close leaves the groups and wakes ReceiveAnnouncement.
func (a *Announcer) Close() error {
	a.closing.Do(func() {
		close(a.closed)
		for _, g := range a.groups {
			a.closeErr = errors.Join(a.closeErr, g.close())
		}
		a.running.Wait()
	})
	return a.closeErr
}
