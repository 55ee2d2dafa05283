package ringnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rserpool/asap/transport"
)

const (
	// acceptPause keeps a listener that has nothing but errors from spinning.
	acceptPause = 50 * time.Millisecond
	// dialTimeout is how long an attempt waits at least, unless others follow.
	dialTimeout = time.Second
	// maxPerName bounds the addresses taken from one name.
	maxPerName = 64
	// lookUpTimeout bounds one round of looking up names.
	lookUpTimeout = 5 * time.Second
)

// arrival is the end of an attempt to connect: a connection with its hello, or an
// error.
type arrival struct {
	conn *conn
	err  error
	then func(c *conn, err error, now time.Time)
}

// arrive hands an arrival to the owner, or closes the connection at the end.
func (g *Group) arrive(a arrival) {
	select {
	case g.arrivals <- a:
	case <-g.ctx.Done():
		a.close()
	}
}

func (a arrival) close() {
	if a.conn != nil {
		a.conn.end(true)
	}
}

// dial connects to the first endpoint where a member answers. timeout is for the
// connection to each, without the hello.
func (g *Group) dial(endpoints []transport.Endpoint, timeout time.Duration, then func(c *conn, err error, now time.Time)) {
	g.workers.Go(func() {
		var errs []error
		for _, e := range endpoints {
			c, err := g.dialOne(e, timeout)
			if err == nil {
				g.arrive(arrival{conn: c, then: then})
				return
			}
			errs = append(errs, err)
			if g.ctx.Err() != nil {
				return
			}
		}
		g.arrive(arrival{err: errors.Join(errs...), then: then})
	})
}

func (g *Group) dialOne(e transport.Endpoint, timeout time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(g.ctx, timeout, fmt.Errorf("no connection within %s: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	tc, err := g.cfg.Networks.Dial(ctx, nil, e, g.options())
	if err != nil {
		return nil, err
	}
	h, v, err := g.greet(g.ctx, tc, true)
	if err != nil {
		g.refusals.add(err, e.String())
		return nil, errors.Join(fmt.Errorf("hello to %s: %w", e, err), tc.Close())
	}
	return newConn(tc, h, v, true, time.Now()), nil
}

// longestDial is how long an attempt waits for a connection.
func (p *peers) longestDial() time.Duration { return max(2*p.g.cfg.Timers.ProbeInterval, dialTimeout) }

// accept takes connections from a listener until it is closed.
func (g *Group) accept(l transport.Listener) {
	for {
		tc, err := l.Accept(g.ctx)
		switch {
		case g.ctx.Err() != nil:
			if err == nil {
				_ = tc.Abort()
			}
			return
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			g.cfg.Log.WithError(err).Warn("ring: accept")
			select {
			case <-time.After(acceptPause):
			case <-g.ctx.Done():
			}
			continue
		}
		if oldest := g.unidentified.add(tc); oldest != nil {
			g.refusals.add(&refusal{refusedFlood, fmt.Sprintf("more than %d connections without a hello", g.cfg.MaxUnidentified)}, remote(oldest))
			_ = oldest.Abort()
		}
		g.workers.Go(func() { g.welcome(tc) })
	}
}

// welcome finds out who has connected.
func (g *Group) welcome(tc transport.Conn) {
	defer g.unidentified.remove(tc) // once the owner has it
	h, v, err := g.greet(g.ctx, tc, false)
	switch {
	case err != nil:
		g.refusals.add(err, remote(tc))
		_ = tc.Close()
	case h.node.Member == g.self.Member:
		_ = tc.Close()
	default:
		g.arrive(arrival{conn: newConn(tc, h, v, false, time.Now()), then: func(c *conn, _ error, now time.Time) {
			g.loop.net.established(c, now)
		}})
	}
}

// crowd are the accepted connections without a hello, the oldest first. When there
// are too many the oldest has to go: members say who they are at once.
type crowd struct {
	limit int
	mu    sync.Mutex
	conns []transport.Conn
}

// add takes a connection in, and returns one that has to go for it.
func (w *crowd) add(c transport.Conn) (oldest transport.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) >= w.limit {
		oldest = w.conns[0]
		w.conns = slices.Delete(w.conns, 0, 1)
	}
	w.conns = append(w.conns, c)
	return oldest
}

func (w *crowd) remove(c transport.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = slices.DeleteFunc(w.conns, func(x transport.Conn) bool { return x == c })
}

func (w *crowd) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

// remote writes the address at the other end.
func remote(c transport.Conn) string {
	addrs := c.RemoteAddrs()
	if len(addrs) == 0 {
		return c.Network()
	}
	return c.Network() + "://" + addrs[0].String()
}

// lookUp finds the addresses of the configured peers, again and again if there are
// names among them.
func (p *peers) lookUp(now time.Time) {
	g := p.g
	names := slices.ContainsFunc(g.cfg.Peers, func(e transport.Endpoint) bool { return slices.ContainsFunc(e.Hosts, isName) })
	if p.looking || !p.looked.IsZero() && (!names || now.Sub(p.looked) < lookUpEvery*g.cfg.Timers.ProbeInterval) {
		return
	}
	p.looking, p.looked = true, now
	g.workers.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, lookUpTimeout)
		defer cancel()
		found := make(map[string][]transport.Endpoint)
		for _, e := range g.cfg.Peers {
			endpoints, err := g.expand(ctx, e)
			if err != nil {
				g.cfg.Log.WithError(err).WithField("peer", e.String()).Debug("ring: address of a peer not found")
				continue
			}
			found[e.String()] = endpoints
		}
		// Fails only when the group ends.
		_ = g.post(func(now time.Time) { p.lookedUp(found, now) })
	})
}

func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil
}

// expand turns a peer with a single host into one for each address of the host.
func (g *Group) expand(ctx context.Context, e transport.Endpoint) ([]transport.Endpoint, error) {
	if len(e.Hosts) != 1 {
		return []transport.Endpoint{e}, nil
	}
	name := e.Network
	if name == transport.Auto {
		available := g.cfg.Networks.Available()
		if len(available) == 0 {
			return nil, transport.ErrUnsupported
		}
		name = available[0]
	}
	network, err := g.cfg.Networks.Get(name)
	if err != nil {
		return nil, err
	}
	addrs, err := g.cfg.Networks.Resolve(ctx, network, e)
	if err != nil {
		return nil, err
	}
	var out []transport.Endpoint
	for _, a := range addrs[:min(len(addrs), maxPerName)] {
		out = append(out, transport.Endpoint{Network: e.Network, Hosts: []string{a.Addr().String()}, Port: a.Port()})
	}
	return out, nil
}

// lookedUp takes in the addresses of the peers that could be found.
func (p *peers) lookedUp(found map[string][]transport.Endpoint, now time.Time) {
	p.looking = false
	maps.Copy(p.addresses, found)
	for _, t := range p.targets {
		t.current = false
	}
	for _, endpoints := range p.addresses {
		for _, e := range endpoints {
			key := e.String()
			t := p.targets[key]
			if t == nil {
				t = &target{endpoint: e}
				p.targets[key] = t
			}
			t.current = true
		}
	}
	maps.DeleteFunc(p.targets, func(_ string, t *target) bool { return !t.current && !t.dial.running })
	p.dialTargets(now)
}

// missing lists the targets where no connected member is.
func (p *peers) missing() []*target {
	there := make(map[string]bool) // addresses of those who are connected
	for _, m := range p.members {
		if len(m.conns) > 0 {
			addAddresses(there, m.node.Contact)
		}
	}
	addAddresses(there, p.g.self.Contact)
	var out []*target
	for _, key := range slices.Sorted(maps.Keys(p.targets)) {
		t := p.targets[key]
		m := p.members[t.member]
		known := t.member == p.g.self.Member || m != nil && len(m.conns) > 0
		if !t.current || known || slices.ContainsFunc(t.endpoint.Hosts, func(h string) bool { return there[address(h, t.endpoint.Port)] }) {
			continue
		}
		out = append(out, t)
	}
	return out
}

func addAddresses(set map[string]bool, contact string) {
	for _, e := range parseContact(contact) {
		for _, h := range e.Hosts {
			set[address(h, e.Port)] = true
		}
	}
}

func address(host string, port uint16) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// dialTargets tries the addresses where nobody is known.
func (p *peers) dialTargets(now time.Time) {
	for _, t := range p.missing() {
		if !t.dial.ready(now) {
			continue
		}
		t.dial.running = true
		p.g.dial([]transport.Endpoint{t.endpoint}, p.longestDial(), func(c *conn, err error, now time.Time) {
			t.dial.running = false
			if err != nil {
				t.report(p.g, err, now)
				p.failed(&t.dial, err, now)
				return
			}
			t.said, t.saidAt = "", time.Time{}
			t.dial.failures, t.dial.err, t.dial.next = 0, nil, now
			t.member = c.node.Member
			p.established(c, now)
		})
	}
}

// report writes why nobody was reached, at the first attempt and when it is something
// else than before, each logPause at most: one that was not there at first may have the
// wrong certificate when it comes.
func (t *target) report(g *Group, err error, now time.Time) {
	text := err.Error()
	if text == t.said || !t.saidAt.IsZero() && now.Sub(t.saidAt) < logPause {
		return
	}
	t.said, t.saidAt = text, now
	g.cfg.Log.WithError(err).WithField("peer", t.endpoint.String()).Info("ring: peer not reached yet")
}

// failed notes that an attempt had no success and arranges for the next.
func (p *peers) failed(a *attempts, err error, now time.Time) {
	a.failed(err, p.g.cfg.Timers.ProbeInterval, now)
	if p.retryAt.IsZero() || a.next.Before(p.retryAt) {
		p.retryAt = a.next
	}
}

// retry makes the attempts that are due.
func (p *peers) retry(now time.Time) {
	p.retryAt = time.Time{}
	for _, m := range p.members {
		if m.inView && len(m.conns) == 0 {
			p.dialMember(m, now)
		}
	}
	p.dialTargets(now)
	// What was not due yet.
	earliest := func(a *attempts) {
		if !a.running && a.next.After(now) && (p.retryAt.IsZero() || a.next.Before(p.retryAt)) {
			p.retryAt = a.next
		}
	}
	for _, m := range p.members {
		if m.inView && len(m.conns) == 0 {
			earliest(&m.dial)
		}
	}
	for _, t := range p.missing() {
		earliest(&t.dial)
	}
}
