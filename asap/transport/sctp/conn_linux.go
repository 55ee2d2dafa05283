//go:build !386

package sctp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

// maxNotification is the longest notification that is looked at; the kernel's
// are shorter but for the copy of an ABORT at the end of some.
const maxNotification = 256

// maxDiscard limits how many messages a close reads for nothing.
const maxDiscard = 1024

// Both are shared by all connections, as few are busy at any one time.
var (
	incomings = sync.Pool{New: func() any { return new(incoming) }}
	outgoings = sync.Pool{New: func() any { return new(outgoing) }}
)

// conn has no goroutine of its own: notifications are read, and turned into
// events, by Receive.
type conn struct {
	file   *os.File
	raw    syscall.RawConn
	opt    transport.Options
	events *transport.EventQueue
	addrs  atomic.Pointer[addrs]

	down     sync.Once // the Down event
	closing  sync.Once
	closed   atomic.Bool
	closeErr error

	// For the goroutine in Receive.
	reads     *transport.Interrupter
	in        *incoming          // what has been read; nil while waiting
	readBuf   []byte             // where readOnce reads to
	readErrno syscall.Errno      // what it got
	readFn    func(uintptr) bool // readOnce, made a value once
	pieces    int                // how many it may read
	partial   []byte             // the beginning of a message that ctx interrupted
	note      []byte             // the beginning of a notification
	readErr   error              // the answer from now on
	buffered  atomic.Bool

	// For the goroutine whose turn it is to write.
	writing      transport.Turn
	writes       *transport.Interrupter
	out          *outgoing
	sent, unsent int // of the messages in out
	errno        syscall.Errno
	writeFn      func(uintptr) bool // writeOnce, made a value once
}

var (
	_ transport.Nexter  = (*conn)(nil)
	_ transport.Flusher = (*conn)(nil)
)

type addrs struct{ local, remote []netip.AddrPort }

// newConn makes a connection from the descriptor of an association. It owns file
// if it returns no error.
func newConn(file *os.File, opt transport.Options) (*conn, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{
		file: file, raw: raw, opt: opt,
		events:  transport.NewEventQueue(),
		reads:   transport.NewInterrupter(file.SetReadDeadline),
		writes:  transport.NewInterrupter(file.SetWriteDeadline),
		writing: transport.NewTurn(),
		pieces:  batch,
	}
	c.readFn, c.writeFn = c.readOnce, c.writeOnce
	if err := c.updateAddrs(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *conn) updateAddrs() error {
	var a addrs
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) { a.local, a.remote, err = associationAddrs(int(fd)) })
	if err = errors.Join(ctlErr, err); err == nil {
		c.addrs.Store(&a)
	}
	return err
}

func (c *conn) Network() string                { return transport.SCTP }
func (c *conn) LocalAddrs() []netip.AddrPort   { return c.addrs.Load().local }
func (c *conn) RemoteAddrs() []netip.AddrPort  { return c.addrs.Load().remote }
func (c *conn) Events() <-chan transport.Event { return c.events.C() }

func (c *conn) Buffered() bool { return c.buffered.Load() }

func (c *conn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	return c.received(c.receive(ctx, buf, false))
}

// Next implements transport.Nexter.
func (c *conn) Next(ctx context.Context) (transport.Message, error) {
	return c.received(c.receive(ctx, nil, true))
}

func (c *conn) received(m transport.Message, err error) (transport.Message, error) {
	if buffered := err == nil && c.in.whole(); buffered != c.buffered.Load() {
		c.buffered.Store(buffered)
	}
	return m, err
}

// receive puts a message into buf, or into memory of its own.
func (c *conn) receive(ctx context.Context, buf []byte, own bool) (transport.Message, error) {
	limit := c.opt.MaxMessage
	var m []byte
	if !own {
		limit = min(limit, len(buf))
		m = buf[:0:limit]
	}
	if len(c.partial) <= limit {
		m, c.partial = append(m, c.partial...), nil
	}
	for len(m) < limit && c.partial == nil {
		room := m[len(m):cap(m)]
		if own && len(m) > 0 {
			m = slices.Grow(m, len(m)) // twice what has come
			room = m[len(m):min(cap(m), limit)]
		}
		p, err := c.read(ctx, room)
		if err != nil {
			if len(m) > 0 && c.readErr == nil {
				c.partial = slices.Clone(m)
			}
			return transport.Message{}, err
		}
		if p.flags&msgNotification != 0 {
			discard, err := c.takeNotification(p)
			if discard {
				m = m[:0]
			}
			if err != nil {
				return transport.Message{}, c.fail(err)
			}
			continue
		}
		if len(p.data) > limit-len(m) {
			break
		}
		m = append(m, p.data...)
		c.pieces = 1 // reading long messages piece by piece ruins the throughput
		if p.flags&msgEOR != 0 {
			if len(m) <= aheadLen {
				c.pieces = batch
			}
			stream, ppid := c.in.info()
			return transport.Message{Data: m, PPID: ppid, Stream: stream}, nil
		}
	}
	err := c.fail(fmt.Errorf("%w: more than %d octets", transport.ErrTooLong, limit))
	return transport.Message{}, errors.Join(err, c.Abort())
}

// read returns the next piece, in buf, read ahead, or in memory of c.in when buf is empty,
// and waits for it if need be.
func (c *conn) read(ctx context.Context, buf []byte) (piece, error) {
	for {
		if ctx.Err() != nil {
			return piece{}, context.Cause(ctx)
		}
		if c.closed.Load() && c.readErr == nil {
			c.readErr = fmt.Errorf("receive: %w", net.ErrClosed)
		}
		if c.readErr != nil {
			return piece{}, c.readErr
		}
		if c.in != nil && c.in.next < c.in.n {
			return c.take(nil)
		}
		if err := c.reads.Arm(ctx); err != nil {
			return piece{}, err
		}
		c.readBuf = buf
		err := c.raw.Read(c.readFn)
		c.readBuf = nil
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), c.closed.Load():
			// Once more round the loop says why.
		case err != nil:
			return piece{}, c.fail(err)
		case c.readErrno == unix.EINTR:
		case c.readErrno != 0:
			return piece{}, c.fail(os.NewSyscallError("recvmmsg", c.readErrno))
		default:
			return c.take(buf) // at once: only this call knows where it lies
		}
	}
}

// take returns the next of the pieces that were read, the first of them into buf.
func (c *conn) take(buf []byte) (piece, error) {
	p := c.in.take(buf)
	if len(p.data) == 0 && p.flags&msgNotification == 0 {
		return piece{}, c.fail(io.EOF)
	}
	return p, nil
}

// readOnce is called by the poller, first at once and then whenever the
// descriptor is ready; false means to wait for that.
func (c *conn) readOnce(fd uintptr) bool {
	if c.in == nil {
		c.in = incomings.Get().(*incoming)
	}
	c.readErrno = c.in.receive(fd, c.readBuf, c.pieces)
	if c.readErrno == unix.EAGAIN {
		incomings.Put(c.in)
		c.in = nil
		return false
	}
	return true
}

// takeNotification acts on a notification, or keeps p for when the rest of it
// comes. discard tells that a message that has come in part is void, err what
// Receive returns from now on.
func (c *conn) takeNotification(p piece) (discard bool, err error) {
	c.note = append(c.note, p.data[:min(len(p.data), maxNotification-len(c.note))]...)
	if p.flags&msgEOR == 0 {
		return false, nil
	}
	note := parseNotification(c.note)
	c.note = c.note[:0]
	switch note.event.Type {
	case 0:
	case transport.Down:
		c.lost(note.event.Err)
	default:
		c.events.Put(note.event)
	}
	if note.restart {
		if err := c.updateAddrs(); err != nil {
			return true, err
		}
	}
	return note.discard, note.end
}

// fail makes err the answer to this and all further calls of Receive.
func (c *conn) fail(err error) error {
	if err != io.EOF {
		err = fmt.Errorf("receive from sctp %s: %w", c.RemoteAddrs()[0], err)
	}
	c.readErr = err
	c.lost(err)
	return err
}

// lost reports the end of the association, unless it is our own doing.
func (c *conn) lost(err error) {
	if c.closed.Load() {
		return
	}
	c.down.Do(func() {
		if err == io.EOF {
			err = nil
		}
		c.events.Put(transport.Event{Type: transport.Down, Err: err})
	})
}

// Send also fails for a message that the kernel refuses, such as one longer than
// its buffer for sending; the association goes on then.
func (c *conn) Send(ctx context.Context, msgs ...transport.Message) error {
	if err := c.writing.Take(ctx); err != nil {
		return err
	}
	defer c.writing.End()
	if err := c.writes.Arm(ctx); err != nil {
		return err
	}
	c.out = outgoings.Get().(*outgoing)
	defer func() {
		outgoings.Put(c.out)
		c.out = nil
	}()
	for len(msgs) > 0 {
		n := c.out.fill(msgs, c.opt.DefaultPPID)
		err := c.write(ctx, n)
		c.out.release(n)
		if err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// write sends the first n prepared messages.
func (c *conn) write(ctx context.Context, n int) error {
	for c.sent, c.unsent = 0, n; c.unsent > 0; {
		err := c.raw.Write(c.writeFn)
		switch {
		case err == nil && c.errno == 0:
			// The kernel has them, whatever has happened since: who is told
			// otherwise sends them again.
		case c.closed.Load():
			return fmt.Errorf("send: %w", net.ErrClosed)
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded), c.errno == unix.EINTR:
			// of an earlier ctx, just before it was disarmed
		case err != nil:
			return fmt.Errorf("send to sctp %s: %w", c.RemoteAddrs()[0], err)
		case c.errno != 0:
			err := fmt.Errorf("send to sctp %s: %w", c.RemoteAddrs()[0], os.NewSyscallError("sendmsg", c.errno))
			if c.errno != unix.EMSGSIZE && c.errno != unix.EINVAL {
				c.lost(err)
			}
			return err
		}
	}
	return nil
}

// writeOnce is to writing what readOnce is to reading.
func (c *conn) writeOnce(fd uintptr) bool {
	var n int
	n, c.errno = c.out.send(fd, c.sent, c.unsent)
	c.sent, c.unsent = c.sent+n, c.unsent-n
	return c.errno != unix.EAGAIN
}

// Flush implements transport.Flusher. It asks the kernel again and again, as that does not
// tell by itself.
func (c *conn) Flush(ctx context.Context) error {
	const first, longest = 500 * time.Microsecond, 20 * time.Millisecond
	for pause := first; ; pause = min(2*pause, longest) {
		var left uint32
		var err error
		controlErr := c.raw.Control(func(fd uintptr) { left, err = unacknowledged(int(fd)) })
		switch err = errors.Join(controlErr, err); {
		case c.closed.Load():
			return fmt.Errorf("flush: %w", net.ErrClosed)
		case err != nil:
			return fmt.Errorf("flush to sctp %s: %w", c.RemoteAddrs()[0], err)
		case left == 0:
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// CloseWrite begins the orderly end: what was sent is delivered, nothing can be sent any
// more, and Receive goes on until the peer's end has agreed. Who closes at once while the
// peer sends may make the kernel abort the association, and loses what was sent last.
func (c *conn) CloseWrite() error {
	var err error
	controlErr := c.raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) })
	return errors.Join(controlErr, os.NewSyscallError("shutdown", err))
}

func (c *conn) Close() error { return c.close(false) }
func (c *conn) Abort() error { return c.close(true) }

func (c *conn) close(abort bool) error {
	c.closing.Do(func() {
		c.closed.Store(true)
		err := c.raw.Control(func(fd uintptr) {
			if abort {
				c.closeErr = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				return
			}
			// The kernel aborts the association when a socket is closed
			// with unread messages, and what we sent is lost.
			_ = unix.Shutdown(int(fd), unix.SHUT_WR) // fails when the peer has ended it already
			discardUnread(int(fd))
		})
		c.closeErr = errors.Join(c.closeErr, err, c.file.Close())
		c.reads.Release()
		c.writes.Release()
	})
	return c.closeErr
}

// discardUnread reads what has arrived. It works beside a goroutine that waits
// in Receive.
func discardUnread(fd int) {
	var buf [4096]byte
	for range maxDiscard {
		if n, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT); n <= 0 || err != nil {
			return
		}
	}
}
