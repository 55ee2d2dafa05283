package mem

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

type packetKind int

const (
	data packetKind = iota
	half            // the end of one direction of a stream
	fin             // the orderly end
	rst             // the end by Abort
)

type packet struct {
	kind packetKind
	msg  transport.Message
	at   time.Time // when it arrives
}

// assoc is a connection with its two ends.
type assoc struct {
	ends    [2]*conn
	broken  bool // an end has crashed
	working bool
	failing *time.Timer // runs while it does not work
}

// conn is one end. Its fields are guarded by Network.mu.
type conn struct {
	n             *Network
	h             *Host
	a             *assoc
	peer          *conn
	local, remote []netip.AddrPort
	opt           transport.Options
	events        *transport.EventQueue

	flight  []packet            // on its way to this end
	arrival *time.Timer         // of the first in flight
	arrived []transport.Message // not yet received
	octets  int                 // in flight and arrived
	last    bool                // the peer sends no more, by CloseWrite
	closed  bool                // by this end
	held    *packet             // its end, which a frozen process has not told the peer yet
	err     error               // how it ended otherwise; what has arrived comes first
	wake    signal              // something above has changed, here or at the peer
}

var _ transport.Nexter = (*conn)(nil)

// connect makes a connection of which both ends are established.
func (n *Network) connect(client, server *Host, clientAddrs, serverAddrs []netip.AddrPort, clientOpt, serverOpt transport.Options) (c, s *conn) {
	c = &conn{n: n, h: client, local: clientAddrs, remote: serverAddrs, opt: clientOpt, events: transport.NewEventQueue()}
	s = &conn{n: n, h: server, local: serverAddrs, remote: clientAddrs, opt: serverOpt, events: transport.NewEventQueue()}
	c.peer, s.peer = s, c
	a := &assoc{ends: [2]*conn{c, s}, working: true}
	c.a, s.a = a, a
	n.assocs = append(n.assocs, a)
	return c, s
}

// works tells whether the ends reach each other in both directions.
func (a *assoc) works() bool {
	c, s := a.ends[0], a.ends[1]
	return !a.broken && c.h.n.reaches(c.h.m, s.h.m) && c.h.n.reaches(s.h.m, c.h.m) && c.hasPath() && s.hasPath()
}

func (c *conn) hasPath() bool {
	return slices.ContainsFunc(c.local, func(a netip.AddrPort) bool { return !c.h.m.downAddrs[a.Addr()] })
}

// forget ends the book-keeping of an association when both ends know its end.
func (n *Network) forget(a *assoc) {
	for _, c := range a.ends {
		if !c.closed && c.err == nil {
			return
		}
	}
	if a.failing != nil {
		a.failing.Stop()
	}
	n.assocs = slices.DeleteFunc(n.assocs, func(x *assoc) bool { return x == a })
}

// put sends a packet to c.
func (c *conn) put(p packet) {
	p.at = time.Now().Add(c.n.link(c.peer.h.m, c.h.m).delay())
	if k := len(c.flight); k > 0 && c.flight[k-1].at.After(p.at) {
		p.at = c.flight[k-1].at
	}
	c.flight = append(c.flight, p)
	c.octets += len(p.msg.Data)
	c.pump()
}

// pump lets arrive at c what is due, and waits for the rest.
func (c *conn) pump() {
	if !c.a.works() {
		return
	}
	for len(c.flight) > 0 {
		p := c.flight[0]
		if wait := time.Until(p.at); wait > 0 {
			if c.arrival == nil {
				c.arrival = time.AfterFunc(wait, func() {
					c.n.mu.Lock()
					defer c.n.mu.Unlock()
					c.pump()
				})
			} else {
				c.arrival.Reset(wait)
			}
			return
		}
		c.flight = c.flight[1:]
		switch {
		case c.closed || c.err != nil:
			c.octets -= len(p.msg.Data)
		case p.kind == data:
			c.arrived = append(c.arrived, p.msg)
		case p.kind == half:
			c.last = true
		case p.kind == fin:
			c.lost(io.EOF)
		case p.kind == rst:
			c.arrived = nil
			c.lost(syscall.ECONNRESET)
		}
		c.wake.fire()
	}
	c.n.forget(c.a)
}

// lost ends c from outside.
func (c *conn) lost(err error) {
	if c.closed || c.err != nil {
		return
	}
	if err != io.EOF {
		err = fmt.Errorf("mem: connection to %s: %w", c.remote[0], err)
	}
	c.err = err
	c.events.Put(transport.Event{Type: transport.Down, Err: err})
	c.wake.fire()
	c.peer.wake.fire()
}

// end closes c from inside and tells the peer.
func (c *conn) end(kind packetKind) {
	if c.closed {
		return
	}
	c.closed = true
	c.arrived = nil
	c.wake.fire()
	c.n.changed.fire() // for calls that wait because the process is frozen
	c.held = &packet{kind: kind}
	c.tell()
}

// tell lets the peer know of the end of c, unless the process is frozen: then nothing
// that it does is seen before Thaw or Kill.
func (c *conn) tell() {
	if c.held != nil && (!c.h.frozen || c.h.dead) {
		c.peer.put(*c.held)
		c.held = nil
	}
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.end(fin)
	return nil
}

func (c *conn) Abort() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.end(rst)
	return nil
}

func (c *conn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	m, err := c.next(ctx, len(buf))
	m.Data = buf[:copy(buf, m.Data)]
	return m, err
}

// Next implements transport.Nexter.
func (c *conn) Next(ctx context.Context) (transport.Message, error) {
	return c.next(ctx, transport.MaxMessage)
}

func (c *conn) next(ctx context.Context, room int) (transport.Message, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		if err := c.h.running(ctx, &c.closed); err != nil {
			return transport.Message{}, err
		}
		if len(c.arrived) > 0 {
			return c.take(min(room, c.opt.MaxMessage))
		}
		if c.err != nil {
			return transport.Message{}, c.err
		}
		if err := c.n.wait(ctx, &c.wake); err != nil {
			return transport.Message{}, err
		}
	}
}

func (c *conn) take(limit int) (transport.Message, error) {
	m := c.arrived[0]
	if len(m.Data) > limit {
		c.end(rst)
		return transport.Message{}, fmt.Errorf("mem: %w: %d octets, limit %d", transport.ErrTooLong, len(m.Data), limit)
	}
	c.arrived = c.arrived[1:]
	c.octets -= len(m.Data)
	c.peer.wake.fire()
	return m, nil
}

func (c *conn) Buffered() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return len(c.arrived) > 0 && !c.closed && !c.h.frozen
}

func (c *conn) Send(ctx context.Context, msgs ...transport.Message) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for _, m := range msgs {
		if len(m.Data) > transport.MaxMessage {
			return fmt.Errorf("mem: send: %w: %d octets", transport.ErrTooLong, len(m.Data))
		}
		for {
			if err := c.h.running(ctx, &c.closed); err != nil {
				return err
			}
			if err := c.sendError(); err != nil {
				return err
			}
			if c.peer.octets == 0 || c.peer.octets+len(m.Data) <= c.n.Buffer {
				break
			}
			if err := c.n.wait(ctx, &c.wake); err != nil {
				return err
			}
		}
		if c.n.dropped(m.Data) {
			continue
		}
		if m.PPID == 0 {
			m.PPID = c.opt.DefaultPPID
		}
		m.Data = slices.Clone(m.Data)
		c.peer.put(packet{msg: m})
	}
	return nil
}

// sendError returns why nothing can be sent any more.
func (c *conn) sendError() error {
	if c.err == io.EOF {
		return fmt.Errorf("mem: send to %s: %w", c.remote[0], syscall.EPIPE)
	}
	return c.err
}

func (c *conn) Network() string                { return transport.Mem }
func (c *conn) LocalAddrs() []netip.AddrPort   { return slices.Clone(c.local) }
func (c *conn) RemoteAddrs() []netip.AddrPort  { return slices.Clone(c.remote) }
func (c *conn) Events() <-chan transport.Event { return c.events.C() }
