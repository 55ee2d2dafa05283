package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	waiting  []*target // for dials to end, because of Limits.Dials
	dialling int
}

// target is an ASAP transport that is dialled or connected to.
type target struct {
	name    string
	to      param.Transport
	keys    map[elementKey]struct{} // to be probed when it is connected
	started bool
	conn    *conn
}

func newProber(o *owner) *prober {
	return &prober{o: o, targets: make(map[string]*target), byConn: make(map[*conn]*target)}
}

// send sends one keep-alive, sooner or later. The machine is told of failures.
func (p *prober) send(key elementKey) {
	if c := p.o.homes[key]; c != nil && !c.gone {
		p.keepAlive(c, key)
		return
	}
	now := time.Now()
	record := p.o.space.Get(key.Handle, key.ID)
	if record == nil || record.Element.ASAP.IsZero() {
		p.o.keepAlive.failed(key, now)
		return
	}
	to := record.Element.ASAP
	name := fmt.Sprint(to.Type, to.AddrPorts())
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
		p.waiting = append(p.waiting, t)
	case t.conn != nil:
		p.o.bind(key, t.conn)
		p.keepAlive(t.conn, key)
		return
	default:
		t.keys[key] = struct{}{}
	}
	if !t.started {
		p.o.keepAlive.hold(key)
	}
}

func (p *prober) keepAlive(c *conn, key elementKey) {
	m := &asap.EndpointKeepAlive{Registrar: p.o.r.id, Handle: key.Handle}
	if p.o.r.rsplib() {
		m.ID = key.ID
	}
	p.o.r.metrics.keepAlives.WithLabelValues("sent").Inc()
	c.send(m)
}

// start dials a target; the time-outs of its elements begin.
func (p *prober) start(t *target, now time.Time) {
	t.started = true
	p.dialling++
	for key := range t.keys {
		p.o.keepAlive.sent(key, now)
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

// dialled takes the result of a dial.
func (p *prober) dialled(t *target, tc transport.Conn, err error, now time.Time) {
	p.dialling--
	for len(p.waiting) > 0 && p.dialling < p.o.r.limits().Dials {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.start(next, now)
	}
	if err != nil {
		p.o.r.cfg.Log.WithError(err).WithField("element", t.name).Debug("element cannot be reached")
		delete(p.targets, t.name)
		for key := range t.keys {
			p.o.keepAlive.failed(key, now)
		}
		return
	}
	c := p.o.r.newConn(tc, protoASAP)
	p.o.r.census.enterDialled(c)
	p.o.r.start(c)
	t.conn = c
	p.byConn[c] = t
	for key := range t.keys {
		if other := p.o.homes[key]; other != nil && !other.gone {
			continue // it registered again meanwhile
		}
		if p.o.space.Get(key.Handle, key.ID) != nil {
			p.o.bind(key, c)
			p.keepAlive(c, key)
		}
	}
	clear(t.keys)
	p.release(c)
}

// release closes a connection to a target that no element needs any more.
func (p *prober) release(c *conn) {
	if p.byConn[c] != nil && len(c.elements) == 0 {
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
