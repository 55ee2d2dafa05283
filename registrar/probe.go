package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// prober sends the keep-alives that the machine asks for: over the connection
// through which an element is reached or, when none is up, over a new one to its
// ASAP transport. Elements with the same transport share it. It belongs to the
// owner loop; each dial has a goroutine that ends within the keep-alive time-out.
type prober struct {
	o        *owner
	targets  map[string]*target
	byConn   map[*conn]*target
	waiting  lines // for dials to end, because of Limits.Dials
	dialling int
}

// target is an ASAP transport that is dialled or connected to.
type target struct {
	name    string
	to      param.Transport
	keys    map[elementKey]struct{} // to be probed when it is connected
	started time.Time               // zero: it waits
	conn    *conn
}

// targetName tells ASAP transports apart.
func targetName(to param.Transport) string { return fmt.Sprint(to.Type, to.AddrPorts()) }

// lines are the targets that wait to be dialled, one line for each client. These
// take turns, so that one with many dead elements does not hold up the others.
type lines struct {
	waiting map[netip.Addr][]*target
	turns   []netip.Addr // clients with a line, who is next first
}

func (l *lines) push(client netip.Addr, t *target) {
	if l.waiting == nil {
		l.waiting = make(map[netip.Addr][]*target)
	}
	if len(l.waiting[client]) == 0 {
		l.turns = append(l.turns, client)
	}
	l.waiting[client] = append(l.waiting[client], t)
}

// pop returns nil when nobody waits.
func (l *lines) pop() *target {
	if len(l.turns) == 0 {
		return nil
	}
	client := l.turns[0]
	l.turns = l.turns[1:]
	line := l.waiting[client]
	if len(line) == 1 {
		delete(l.waiting, client)
	} else {
		l.waiting[client] = line[1:]
		l.turns = append(l.turns, client)
	}
	return line[0]
}

func newProber(o *owner) *prober {
	return &prober{o: o, targets: make(map[string]*target), byConn: make(map[*conn]*target)}
}

// send sends one keep-alive, sooner or later. The machine is told of failures.
func (p *prober) send(key elementKey) {
	if c := p.o.reach(key); c != nil && !c.gone {
		p.keepAlive(c, key)
		return
	}
	now := time.Now()
	record := p.o.space.Get(key.Handle, key.ID)
	if record == nil || !record.HasASAP() {
		p.fail(key, now)
		return
	}
	to := record.ASAP()
	name := targetName(to)
	t := p.targets[name]
	switch {
	case t == nil:
		t = &target{name: name, to: to, keys: make(map[elementKey]struct{})}
		p.targets[name] = t
		t.keys[key] = struct{}{}
		if p.dialling < p.o.r.limits().Dials {
			p.start(t, now)
			return
		}
		p.waiting.push(p.o.r.client(to.Addrs[0]), t)
	case t.conn != nil:
		p.o.bind(p.o.attended(key), t.conn)
		p.keepAlive(t.conn, key)
		return
	default:
		t.keys[key] = struct{}{}
	}
	if t.started.IsZero() {
		p.o.keepAlive.hold(p.o.watched(key))
	}
}

func (p *prober) keepAlive(c *conn, key elementKey) {
	if !c.queue.roomy(p.o.r.limits().SendQueue) {
		p.postpone(key, time.Now()) // too many at once are not the peer's fault
		return
	}
	m := &asap.EndpointKeepAlive{Registrar: p.o.r.id, Handle: key.Handle, Home: p.o.keepAlive.telling(p.o.watched(key))}
	if p.o.r.rsplib() {
		m.ID = key.ID
	}
	p.o.r.metrics.keepAlives.WithLabelValues("sent").Inc()
	c.send(m)
}

// start dials a target, and the time-outs of its elements begin, unless there are
// too many connections.
func (p *prober) start(t *target, now time.Time) {
	l := p.o.r.limits()
	if limit, ok := p.o.r.census.admits(p.o.r.client(t.to.Addrs[0]), min(l.Connections, p.o.r.room()), l.ConnectionsPerAddress, l.Dials); !ok {
		p.o.r.exceeded(limit)
		delete(p.targets, t.name)
		for key := range t.keys {
			p.postpone(key, now)
		}
		return
	}
	t.started = now
	p.dialling++
	for key := range t.keys {
		if p.wanted(t, key) {
			p.o.keepAlive.sent(p.o.watched(key), now)
		}
	}
	r := p.o.r
	r.group.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.timers().KeepAlive.Timeout)
		defer cancel()
		c, err := r.dial(ctx, t.to)
		if !r.post(func(now time.Time) { p.dialled(t, c, err, now) }) && err == nil {
			// Nobody wants it any more, nor to know whether it closes well.
			_ = c.Abort()
		}
	})
}

// wanted reports whether the keep-alive of an element still has to go to a target:
// meanwhile the element may have gone, moved, or spoken up on another connection.
func (p *prober) wanted(t *target, key elementKey) bool {
	if c := p.o.reach(key); c != nil && !c.gone {
		return false
	}
	record := p.o.space.Get(key.Handle, key.ID)
	return record != nil && targetName(record.ASAP()) == t.name
}

// dialled takes the result of a dial and starts others.
func (p *prober) dialled(t *target, tc transport.Conn, err error, now time.Time) {
	p.dialling--
	switch {
	case err != nil:
		p.undialled(t, err, now)
	case p.o.r.ctx.Err() != nil:
		// The registrar stops: nobody wants it any more.
		_ = tc.Abort()
	default:
		p.connected(t, tc)
	}
	for p.dialling < p.o.r.limits().Dials {
		next := p.waiting.pop()
		if next == nil {
			break
		}
		p.start(next, now)
	}
}

// connected sends the keep-alives of a target over its new connection.
func (p *prober) connected(t *target, tc transport.Conn) {
	c := p.o.r.newConn(tc, protoASAP)
	p.o.r.census.enterDialled(c)
	p.o.r.start(c)
	t.conn = c
	p.byConn[c] = t
	for key := range t.keys {
		if p.wanted(t, key) {
			p.o.bind(p.o.attended(key), c)
			p.keepAlive(c, key)
		}
	}
	clear(t.keys)
	p.release(c)
}

// undialled tells the machine of a dial that failed. What this machine lacks says
// nothing of the element, which is tried again; and so if the end of the dial comes
// late, as when the process was stopped.
func (p *prober) undialled(t *target, err error, now time.Time) {
	delete(p.targets, t.name)
	log := p.o.r.cfg.Log.WithError(err).WithField("element", t.name)
	outcome := p.fail
	if ownTrouble(err) {
		outcome = p.postpone
		p.o.r.notices.dials.log(log.Warn, "cannot connect to an element, this machine is short of something", now)
	} else if now.Sub(t.started) > p.o.r.timers().KeepAlive.Timeout+hearingTime {
		outcome = p.postpone
	} else {
		log.Debug("element cannot be reached")
	}
	for key := range t.keys {
		if p.wanted(t, key) {
			outcome(key, now)
		}
	}
}

// postpone has a keep-alive tried again that could not be sent, and not because of
// the element.
func (p *prober) postpone(key elementKey, now time.Time) {
	p.o.r.metrics.keepAlives.WithLabelValues("postponed").Inc()
	p.o.keepAlive.postponed(p.o.watched(key), now)
}

// fail tells the machine of a keep-alive that could not be delivered.
func (p *prober) fail(key elementKey, now time.Time) { p.o.keepAlive.failed(p.o.watched(key), now) }

// ownTrouble tells whether a dial failed for want of this machine's own resources:
// descriptors, memory, ports.
func ownTrouble(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN,
	}, func(own error) bool { return errors.Is(err, own) })
}

// release closes a connection to a target that no element needs any more, unless
// something is still to be answered on it.
func (p *prober) release(c *conn) {
	if p.byConn[c] != nil && len(c.elements) == 0 && c.busy.Load() == 0 {
		c.cancel(errEnded{reasonUnneeded})
	}
}

// left forgets a connection that is gone.
func (p *prober) left(c *conn) {
	if t := p.byConn[c]; t != nil {
		delete(p.byConn, c)
		delete(p.targets, t.name)
	}
}

// dial connects to the ASAP transport of an element.
func (r *Registrar) dial(ctx context.Context, to param.Transport) (transport.Conn, error) {
	var network transport.Network
	var err error
	if to.Type == param.TypeTCPTransport {
		network, err = r.cfg.Networks.Get(transport.TCP)
	} else if network, err = r.cfg.Networks.Get(transport.SCTP); err != nil {
		var mem error
		if network, mem = r.cfg.Networks.Get(transport.Mem); mem == nil {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return network.Dial(ctx, nil, to.AddrPorts(), r.options())
}

// errNoAddress: a listener has no address that could be told to others.
var errNoAddress = errors.New("no address to announce")

// usable returns the addresses under which others reach a listener: its own, or
// those of the machine's interfaces where it listens on all.
func usable(listening []netip.AddrPort, interfaces func() ([]netip.Addr, error)) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, a := range listening {
		if !a.Addr().IsUnspecified() {
			out = append(out, a)
			continue
		}
		addrs, err := interfaces()
		if err != nil {
			return nil, err
		}
		for _, i := range addrs {
			if a.Addr().Is6() || i.Is4() { // :: takes IPv4 as well
				out = append(out, netip.AddrPortFrom(i, a.Port()))
			}
		}
	}
	if len(out) == 0 {
		return nil, errNoAddress
	}
	return out, nil
}
