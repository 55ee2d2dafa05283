package framed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rserpool/asap/transport"
)

const (
	// writeBuffer is how much Send collects for one system call.
	writeBuffer = 64 << 10
	// goodbyeWait bounds Close towards a peer that does not read.
	goodbyeWait = 20 * time.Millisecond
)

// writeBuffers are shared by all connections, as few send at any one time.
var writeBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Conn is a connection over a byte stream. It has no goroutine but, for a moment,
// one that writes a heartbeat. It answers the peer's heartbeats in Receive and
// Next: a receiver that hangs is taken for dead, which is what heartbeats are for.
type Conn struct {
	*beats
	stream net.Conn
	opt    Options
	events *transport.EventQueue
	down   sync.Once // the Down event

	goodbye  transport.Once
	closing  transport.Once
	closed   atomic.Bool
	closeErr error

	// For the goroutine in Receive.
	reads    *transport.Interrupter
	in       frames
	readErr  error
	buffered atomic.Bool

	writing  transport.Turn
	writes   *transport.Interrupter
	writeErr error // how writing failed, of whoever writes
}

var _ transport.Nexter = (*Conn)(nil)

func newConn(stream net.Conn, opt Options) *Conn {
	opt = opt.withDefaults()
	c := &Conn{
		stream:  stream,
		opt:     opt,
		events:  transport.NewEventQueue(),
		reads:   transport.NewInterrupter(stream.SetReadDeadline),
		in:      frames{limit: opt.MaxMessage},
		writing: transport.NewTurn(),
		writes:  transport.NewInterrupter(stream.SetWriteDeadline),
	}
	c.beats = newBeats(c.writeBeats)
	return c
}

// Network returns transport.TCP.
func (c *Conn) Network() string { return transport.TCP }

// LocalAddrs returns the address at this end, none if the stream has no IP address.
func (c *Conn) LocalAddrs() []netip.AddrPort { return addrPorts(c.stream.LocalAddr()) }

// RemoteAddrs is LocalAddrs for the other end.
func (c *Conn) RemoteAddrs() []netip.AddrPort { return addrPorts(c.stream.RemoteAddr()) }

// Events implements transport.Conn.
func (c *Conn) Events() <-chan transport.Event { return c.events.C() }

// Buffered implements transport.Conn.
func (c *Conn) Buffered() bool { return c.buffered.Load() }

// Stream returns what the octets go through, for what it tells about its ends; a
// *tls.Conn for example. It must not be read, written or closed.
func (c *Conn) Stream() net.Conn { return c.stream }

func addrPorts(a net.Addr) []netip.AddrPort {
	if ap := transport.AddrPort(a); ap.IsValid() {
		return []netip.AddrPort{ap}
	}
	return nil
}

// Receive implements transport.Conn. It returns io.EOF when the peer closed in an
// orderly way, and ErrCut when the stream just ended.
func (c *Conn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	m, err := c.receive(ctx)
	if err != nil {
		return m, err
	}
	if len(m.Data) > len(buf) {
		err := fmt.Errorf("%w: %d octets, buffer of %d", transport.ErrTooLong, len(m.Data), len(buf))
		return transport.Message{}, errors.Join(c.fail(err), c.Close())
	}
	m.Data = buf[:copy(buf, m.Data)]
	return m, nil
}

// Next implements transport.Nexter; the memory is no longer than the message.
func (c *Conn) Next(ctx context.Context) (transport.Message, error) {
	m, err := c.receive(ctx)
	m.Data = slices.Clone(m.Data)
	return m, err
}

// receive returns a message that lies in the buffer of c.in.
func (c *Conn) receive(ctx context.Context) (transport.Message, error) {
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
		f, whole, err := c.in.next()
		if err != nil {
			return transport.Message{}, errors.Join(c.fail(err), c.Close())
		}
		if whole {
			c.in.take(f)
			if f.ppid != PPIDHeartbeat {
				c.lookAhead()
				return transport.Message{Data: f.data, PPID: f.ppid}, nil
			}
			if len(f.data) == 0 {
				return transport.Message{}, c.fail(io.EOF)
			}
			c.came(f.data)
			continue
		}
		if err := c.reads.Arm(ctx); err != nil {
			return transport.Message{}, err
		}
		switch err = c.in.fill(c.stream); {
		case err == nil:
			c.hear()
		case errors.Is(err, os.ErrDeadlineExceeded) || c.closed.Load():
		case err == io.EOF:
			return transport.Message{}, c.fail(ErrCut)
		default:
			return transport.Message{}, c.fail(err)
		}
	}
}

// lookAhead notes whether another message is there.
func (c *Conn) lookAhead() {
	f, whole, err := c.in.next()
	if more := whole && err == nil && f.ppid != PPIDHeartbeat; more != c.buffered.Load() {
		c.buffered.Store(more)
	}
}

// fail makes err the answer to this and all further calls of Receive.
func (c *Conn) fail(err error) error {
	if err != io.EOF {
		err = fmt.Errorf("receive from %v: %w", c.stream.RemoteAddr(), err)
	}
	c.readErr = err
	c.buffered.Store(false)
	c.lost(err)
	return err
}

// lost reports the end of the connection, unless it is our own doing.
func (c *Conn) lost(err error) {
	if !c.closed.Load() {
		c.down.Do(func() { c.events.Put(transport.Event{Type: transport.Down, Err: err}) })
	}
}

// Send implements transport.Conn; the stream of a message is not carried. An error
// wraps ErrNotSent when no octet of the messages has left. What has come from the
// peer before the connection failed can still be received, unless ctx ended in the
// middle of a message, which closes it.
func (c *Conn) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		if m.PPID == PPIDHeartbeat {
			return fmt.Errorf("send: %w: %w", ErrNotSent, ErrReserved)
		}
		if len(m.Data) > maxMaxMessage {
			return fmt.Errorf("send: %w: %w: %d octets", ErrNotSent, transport.ErrTooLong, len(m.Data))
		}
	}
	if err := c.begin(ctx); err != nil {
		return fmt.Errorf("send to %v: %w: %w", c.stream.RemoteAddr(), ErrNotSent, err)
	}
	defer c.writing.End()
	pooled := writeBuffers.Get().(*[]byte)
	out := (*pooled)[:0]
	defer func() {
		if cap(out) <= 2*writeBuffer {
			*pooled = out[:0]
			writeBuffers.Put(pooled)
		}
	}()
	left := false
	for i, m := range msgs {
		if m.PPID == 0 {
			m.PPID = c.opt.DefaultPPID
		}
		out = appendFrame(out, m.PPID, m.Data)
		if len(out) < writeBuffer && i < len(msgs)-1 {
			continue
		}
		if err := c.write(ctx, out, left); err != nil {
			return err
		}
		out, left = out[:0], true
	}
	return nil
}

// begin takes the turn to write and makes ctx interrupt it.
func (c *Conn) begin(ctx context.Context) error {
	if err := c.writing.Take(ctx); err != nil {
		return err
	}
	err := c.writes.Arm(ctx)
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case err == nil:
		err = c.writeErr
	}
	if err != nil {
		c.writing.End()
	}
	return err
}

// write writes all of b, or nothing, or ends the connection; left tells that frames
// of the same call have gone before.
func (c *Conn) write(ctx context.Context, b []byte, left bool) error {
	n, err := c.stream.Write(b)
	if err == nil {
		return nil
	}
	interrupted := errors.Is(err, os.ErrDeadlineExceeded)
	cause := c.writes.Cause(ctx, err)
	if c.closed.Load() {
		cause = net.ErrClosed
	}
	if n == 0 && !left {
		cause = fmt.Errorf("%w: %w", ErrNotSent, cause)
	}
	cause = fmt.Errorf("send to %v: %w", c.stream.RemoteAddr(), cause)
	// TLS can't go on after an interrupted write, whatever it has written.
	_, secured := c.stream.(*tls.Conn)
	switch {
	case !interrupted: // what the peer sent before its end can still be received
		c.writeErr = err
		c.lost(cause)
	case n > 0 || secured:
		c.lost(cause)
		return errors.Join(cause, c.end(true))
	}
	return cause
}

func (c *Conn) writeBeats(numbers []uint64) error {
	ctx := context.Background()
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.writing.End()
	out := make([]byte, 0, 2*(headerLen+beatLen))
	for _, n := range numbers {
		out = appendBeat(out, n)
	}
	return c.write(ctx, out, false)
}

// Finish tells the peer that nothing follows, within ctx: nothing is sent any more, no
// answers to heartbeats either, but Receive goes on. Who closes a connection at once while
// the peer still sends makes the kernel reset it, and what was sent last may be lost;
// better Finish, receive until the peer has closed, and then Close, as Linger does. It
// returns true.
func (c *Conn) Finish(ctx context.Context) bool {
	c.stop()
	c.goodbye.Do(ctx, func() { c.sayGoodbye(ctx) })
	return true
}

// Close tells the peer that it ends, if that takes no time, and closes the stream.
func (c *Conn) Close() error {
	err := c.end(false)
	c.wait()
	return err
}

// Abort closes the stream at once; over TCP with a reset.
func (c *Conn) Abort() error {
	err := c.end(true)
	c.wait()
	return err
}

func (c *Conn) end(abort bool) error {
	c.closing.Do(context.Background(), func() {
		c.closed.Store(true)
		c.buffered.Store(false)
		c.stop()
		if abort {
			c.closeErr = transport.Reset(c.stream)
		} else {
			ctx, cancel := context.WithTimeout(context.Background(), goodbyeWait)
			defer cancel()
			c.goodbye.Do(ctx, func() { c.sayGoodbye(ctx) })
			c.closeErr = transport.Shut(c.stream)
		}
		c.reads.Release()
		c.writes.Release()
	})
	return c.closeErr
}

// sayGoodbye sends the frame that tells an orderly end, after what is being written, a
// heartbeat for example.
func (c *Conn) sayGoodbye(ctx context.Context) {
	if c.writing.Take(ctx) != nil {
		return
	}
	defer c.writing.End()
	c.writeErr = net.ErrClosed
	// Arm also waits until the end of an earlier context can do no harm any more.
	if c.writes.Arm(ctx) == nil {
		_, _ = c.stream.Write(appendFrame(nil, PPIDHeartbeat, nil)) // as a courtesy: the end of the stream says it too
	}
}
