package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"rserpool/asap/transport"
)

// writeBuffer is how much Send collects for one system call.
const writeBuffer = 64 << 10

// writeBuffers are shared by all connections, as few send at any one time.
var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, writeBuffer+transport.MaxMessage)
	return &b
}}

// link is what a connection's octets go through.
type link struct {
	stream net.Conn // tls, or tcp itself
	tcp    *net.TCPConn
	tls    *tls.Conn // nil without TLS
	below  *socket   // of tls
}

type conn struct {
	link
	local, remote []netip.AddrPort
	events        *transport.EventQueue
	down          sync.Once // the Down event
	closing       sync.Once
	closed        atomic.Bool
	closeErr      error

	// For the goroutine in Receive.
	reads    *transport.Interrupter
	in       frames
	next     int // length of the first message in there, 0 unless it was looked at and is whole
	readErr  error
	buffered atomic.Bool

	writing transport.Turn
	writes  *transport.Interrupter
	left    rest
	try     attempt
}

func newConn(l link, opt transport.Options) *conn {
	return &conn{
		link:    l,
		local:   []netip.AddrPort{transport.AddrPort(l.tcp.LocalAddr())},
		remote:  []netip.AddrPort{transport.AddrPort(l.tcp.RemoteAddr())},
		events:  transport.NewEventQueue(),
		reads:   transport.NewInterrupter(l.tcp.SetReadDeadline),
		in:      frames{limit: opt.MaxMessage},
		writing: transport.NewTurn(),
		writes:  transport.NewInterrupter(l.tcp.SetWriteDeadline),
	}
}

func (c *conn) Network() string                { return transport.TCP }
func (c *conn) LocalAddrs() []netip.AddrPort   { return c.local }
func (c *conn) RemoteAddrs() []netip.AddrPort  { return c.remote }
func (c *conn) Events() <-chan transport.Event { return c.events.C() }
func (c *conn) Buffered() bool                 { return c.buffered.Load() }

func (c *conn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	for {
		if ctx.Err() != nil {
			return transport.Message{}, context.Cause(ctx)
		}
		if c.closed.Load() {
			return transport.Message{}, fmt.Errorf("receive: %w", net.ErrClosed)
		}
		if c.readErr != nil {
			return transport.Message{}, c.readErr
		}
		n, err := c.next, error(nil)
		if n == 0 {
			n, err = c.in.ready()
		}
		if n > len(buf) {
			err = fmt.Errorf("%w: %d octets, buffer of %d", transport.ErrTooLong, n, len(buf))
		}
		if err != nil {
			return transport.Message{}, errors.Join(c.fail(err), c.Close())
		}
		if n > 0 {
			c.in.take(buf, n)
			c.next, _ = c.in.ready() // an error will come again
			if whole := c.next > 0; whole != c.buffered.Load() {
				c.buffered.Store(whole)
			}
			return transport.Message{Data: buf[:n]}, nil
		}
		if err := c.reads.Arm(ctx); err != nil {
			return transport.Message{}, err
		}
		err = c.in.fill(c.stream)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !c.closed.Load() {
			return transport.Message{}, c.fail(err)
		}
	}
}

// fail makes err the answer to this and all further calls of Receive.
func (c *conn) fail(err error) error {
	if err != io.EOF {
		err = fmt.Errorf("receive from %s: %w", c.remote[0], err)
	}
	c.readErr = err
	c.buffered.Store(false)
	c.lost(err)
	return err
}

// lost reports the end of the connection, unless it is our own doing.
func (c *conn) lost(err error) {
	if c.closed.Load() {
		return
	}
	c.down.Do(func() { c.events.Put(transport.Event{Type: transport.Down, Err: err}) })
}

func (c *conn) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		if err := checkFraming(m.Data); err != nil {
			return err
		}
	}
	if err := c.writing.Take(ctx); err != nil {
		return err
	}
	defer c.writing.End()
	if c.closed.Load() {
		return fmt.Errorf("send to %s: %w", c.remote[0], net.ErrClosed)
	}
	if err := c.writes.Arm(ctx); err != nil {
		return err
	}
	if err := c.sendRest(ctx); err != nil || len(msgs) == 0 {
		return err
	}
	if whole, ok := joined(msgs); ok {
		return c.write(ctx, whole)
	}
	pooled := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(pooled)
	out := (*pooled)[:0]
	for i, m := range msgs {
		out = append(out, m.Data...)
		out = append(out, make([]byte, padded(len(m.Data))-len(m.Data))...)
		if len(out) < writeBuffer && i < len(msgs)-1 {
			continue
		}
		if err := c.write(ctx, out); err != nil {
			return err
		}
		out = out[:0]
	}
	return nil
}

// joined returns the messages as one piece without copying them, if they need no
// padding and lie one behind the other in memory, as those do that a caller has
// collected in one buffer.
func joined(msgs []transport.Message) ([]byte, bool) {
	var whole []byte
	for i, m := range msgs {
		n := len(whole)
		switch {
		case len(m.Data)%4 != 0:
			return nil, false
		case i == 0:
			whole = m.Data
		case cap(whole) < n+len(m.Data) || &whole[:n+1][n] != &m.Data[0]:
			return nil, false
		default:
			whole = whole[:n+len(m.Data)]
		}
	}
	return whole, len(msgs) > 0
}

// checkFraming refuses a message that the peer would cut at another place.
func checkFraming(data []byte) error {
	if len(data) < headerLen {
		return fmt.Errorf("send: %w: %d octets", transport.ErrMalformed, len(data))
	}
	if n := messageLen(data); n < headerLen || n > len(data) || padded(n) != padded(len(data)) {
		return fmt.Errorf("send: %w: length field %d on %d octets", transport.ErrMalformed, n, len(data))
	}
	return nil
}

// write writes the messages in b, or none of them, or closes the connection.
func (c *conn) write(ctx context.Context, b []byte) error {
	n, err := c.stream.Write(b)
	if err == nil {
		return nil
	}
	cause := c.writes.Cause(ctx, err)
	// TLS can't go on after an interrupted write, whatever it has written.
	if interrupted := cause != err; interrupted && c.tls == nil && atBoundary(b, n) {
		return cause
	}
	return c.writeFailed(cause)
}

// writeFailed ends the connection.
func (c *conn) writeFailed(cause error) error {
	c.lost(cause)
	return errors.Join(fmt.Errorf("send to %s: %w", c.remote[0], cause), c.Abort())
}

// atBoundary tells whether the first n octets of b are whole messages.
func atBoundary(b []byte, n int) bool {
	at := 0
	for at < n {
		at += padded(messageLen(b[at:]))
	}
	return at == n
}

func (c *conn) Close() error { return c.close(false) }
func (c *conn) Abort() error { return c.close(true) }

func (c *conn) close(abort bool) error {
	c.closing.Do(func() {
		c.closed.Store(true)
		c.buffered.Store(false)
		if abort {
			c.closeErr = c.tcp.SetLinger(0)
		} else {
			c.sayGoodbye()
			// The kernel answers the close of a socket with unread
			// octets by a reset, and that can overtake what we sent.
			_ = c.tcp.CloseWrite() // fails when the peer has reset already
			discardUnread(c.tcp)
		}
		c.closeErr = errors.Join(c.closeErr, c.tcp.Close())
		c.reads.Release()
		c.writes.Release()
	})
	return c.closeErr
}

// sayGoodbye tells the peer by TLS that nothing follows, unless somebody is
// writing, who would have to be waited for.
func (c *conn) sayGoodbye() {
	if c.tls == nil {
		return
	}
	if !c.writing.Try() {
		return
	}
	defer c.writing.End()
	c.writes.Release()
	c.below.closing.Store(true)
	_ = c.tls.CloseWrite() // as a courtesy: the end of the stream says it too
}
