package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
	enrppeer "rserpool/enrp/peer"
)

// peerLinks are the connections with other registrars, by the numbers that the
// machine knows them by. It belongs to the owner loop; each dial has a goroutine
// that ends within enrppeer.Timers.NoResponse.
type peerLinks struct {
	p     *peering
	last  enrppeer.Link
	conns map[enrppeer.Link]*conn
	links map[*conn]enrppeer.Link

	// The latest message that was sent, encoded: many get the same.
	message enrp.Message
	encoded []byte
}

func newPeerLinks(p *peering) *peerLinks {
	return &peerLinks{p: p, conns: make(map[enrppeer.Link]*conn), links: make(map[*conn]enrppeer.Link)}
}

// of returns the link that a connection is.
func (l *peerLinks) of(c *conn) enrppeer.Link {
	link, ok := l.links[c]
	if !ok {
		l.last++
		link = l.last
		l.links[c], l.conns[link] = link, c
	}
	return link
}

func (l *peerLinks) forget(c *conn) (enrppeer.Link, bool) {
	link, ok := l.links[c]
	delete(l.links, c)
	delete(l.conns, link)
	return link, ok
}

func (l *peerLinks) send(a enrppeer.Send) {
	c := l.conns[a.Link]
	if c == nil || c.gone {
		return
	}
	data := a.Octets
	if a.Message != nil {
		if a.Message != l.message {
			var err error
			if l.encoded, err = a.Message.Append(nil); err != nil {
				c.log.WithError(err).Errorf("cannot encode %s", a.Message.Type())
			}
			l.message = a.Message
		}
		data = l.encoded
	}
	if len(data) > 0 {
		c.enqueue(transport.Message{Data: data, PPID: transport.PPIDENRP})
	}
}

// flush forgets what was sent.
func (l *peerLinks) flush() { l.message, l.encoded = nil, nil }

func (l *peerLinks) hangUp(link enrppeer.Link) {
	if c := l.conns[link]; c != nil {
		l.forget(c)
		c.cancel(errEnded{reasonUnneeded})
	}
}

// dial connects to another registrar, unless there is a connection with it.
func (l *peerLinks) dial(a enrppeer.Dial) {
	r := l.p.o.r
	var to transport.Endpoint
	if a.Mentor >= 0 {
		to = r.cfg.Peering.Mentors[a.Mentor]
	} else {
		to = endpointOf(a.To)
	}
	for c, link := range l.links {
		if !c.gone && slices.ContainsFunc(literal(to), c.peer.hasPort) {
			l.p.machine.LinkUp(a.ID, link, time.Now())
			return
		}
	}
	own := slices.Concat(r.server.Transport.AddrPorts(), l.p.o.r.enrpAddrs())
	r.group.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Peering.Timers.NoResponse)
		defer cancel()
		c, err := r.dialPeer(ctx, to, own)
		if !r.post(func(now time.Time) { l.dialled(a, c, err, now) }) && err == nil {
			// Nobody wants it any more, nor to know whether it closes well.
			_ = c.Abort()
		}
	})
}

// dialled takes the result of a dial.
func (l *peerLinks) dialled(a enrppeer.Dial, tc transport.Conn, err error, now time.Time) {
	o := l.p.o
	switch {
	case errors.Is(err, errSelf):
		l.p.machine.MentorIsSelf(a.ID, now)
	case err != nil:
		o.r.cfg.Log.WithError(err).Debug("registrar cannot be reached")
		l.p.machine.DialFailed(a.ID, ownTrouble(err), now)
	case o.r.ctx.Err() != nil:
		_ = tc.Abort() // the registrar stops
		return
	default:
		c := o.r.newConn(tc, protoENRP)
		o.r.census.enterDialled(c)
		o.r.start(c)
		l.p.machine.LinkUp(a.ID, l.of(c), now)
	}
	l.p.act(now)
}

// errSelf: the address is this registrar's own.
var errSelf = errors.New("this registrar itself")

// dialPeer connects to another registrar's ENRP endpoint. On SCTP it leaves from the
// port that this registrar listens on, because some take the sender of a presence
// for who it says only then.
func (r *Registrar) dialPeer(ctx context.Context, to transport.Endpoint, own []netip.AddrPort) (transport.Conn, error) {
	networks := r.cfg.Peering.Networks
	names := []string{to.Network}
	if to.Network == transport.Auto {
		names = networks.Available()
	}
	var errs []error
	for i, name := range names {
		c, err := r.dialPeerBy(ctx, networks, name, to, own, i < len(names)-1)
		if err == nil || errors.Is(err, errSelf) {
			return c, err
		}
		errs = append(errs, fmt.Errorf("dial %s by %s: %w", to, name, err))
	}
	return nil, errors.Join(errs...)
}

func (r *Registrar) dialPeerBy(ctx context.Context, networks *transport.Networks, name string, to transport.Endpoint, own []netip.AddrPort, others bool) (transport.Conn, error) {
	network, err := networks.Get(name)
	if name == transport.SCTP && err != nil { // what SCTP reaches is reached in memory in tests
		if mem, none := networks.Get(transport.Mem); none == nil {
			network, name, err = mem, transport.Mem, nil
		}
	}
	if err != nil {
		return nil, err
	}
	remote, err := networks.Resolve(ctx, network, to)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(remote, func(a netip.AddrPort) bool { return slices.Contains(own, a) }) {
		return nil, errSelf
	}
	if deadline, ok := ctx.Deadline(); ok && others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	opt := r.peerOptions()
	var local []netip.AddrPort
	if name != transport.TCP {
		for _, a := range r.addresses {
			if a.Protocol == string(protoENRP) && a.Network == name {
				local = a.Addrs
				break
			}
		}
	}
	return network.Dial(ctx, local, remote, opt)
}

// peerOptions are those of connections with other registrars, which may send the
// longest messages.
func (r *Registrar) peerOptions() transport.Options {
	return transport.Options{DefaultPPID: transport.PPIDENRP, ReusePort: true}
}

// endpointOf is a described transport as an endpoint to dial.
func endpointOf(t param.Transport) transport.Endpoint {
	e := transport.Endpoint{Network: transport.SCTP, Port: t.Port}
	if t.Type == param.TypeTCPTransport {
		e.Network = transport.TCP
	}
	for _, a := range t.Addrs {
		e.Hosts = append(e.Hosts, a.String())
	}
	return e
}

// literal returns the addresses of an endpoint that are not names.
func literal(e transport.Endpoint) []netip.AddrPort {
	var out []netip.AddrPort
	for _, host := range e.Hosts {
		if a, err := netip.ParseAddr(host); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), e.Port))
		}
	}
	return out
}

// enrpAddrs are the addresses that this registrar listens on for registrars.
func (r *Registrar) enrpAddrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range r.addresses {
		if a.Protocol == string(protoENRP) {
			out = append(out, a.Addrs...)
		}
	}
	return out
}
