package pooluser

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// sessionLink is a session's connection to one element.
type sessionLink interface {
	kind() linkKind
	// next waits for a message, in memory of its own. An end that looks orderly
	// is io.EOF.
	next(ctx context.Context) (transport.Message, error)
	// send sends messages. n tells how many octets of data may have left when
	// it fails.
	send(ctx context.Context, msgs ...transport.Message) (n int, err error)
	// beat sends a heartbeat, without waiting; heard is when something came.
	beat()
	heard() time.Time
	// linger tells the element that nothing follows and waits until it has got
	// all and has ended too, if it can be told. Nobody is in next any more.
	linger(ctx context.Context)
	// leave ends the connection, at once or in an orderly way.
	leave(orderly bool) error
	addrs() (local, remote net.Addr)
}

// linkConfig says what connections a session has.
type linkConfig struct {
	plain       bool // TCP elements have no framing
	beatSCTP    bool
	maxMessage  int
	defaultPPID uint32
}

// dialLink connects to an element.
func (r *Resolver) dialLink(ctx context.Context, to param.Transport, cfg linkConfig) (sessionLink, error) {
	switch to.Type {
	case param.TypeTCPTransport:
		stream, err := r.dialStream(ctx, to)
		if err != nil {
			return nil, err
		}
		if cfg.plain {
			return newPlainLink(stream), nil
		}
		conn, err := framed.Client(ctx, stream, framed.Options{MaxMessage: cfg.maxMessage, DefaultPPID: cfg.defaultPPID})
		if err != nil {
			return nil, err
		}
		return framedLink{conn}, nil
	case param.TypeSCTPTransport:
		opt := r.cfg.Options
		opt.MaxMessage = cfg.maxMessage
		conn, err := r.dialMessages(ctx, to, opt)
		if err != nil {
			return nil, err
		}
		l := &assocLink{
			assoc: framed.Over(conn), ppid: cfg.defaultPPID,
			is: linkKind{control: to.Use == param.DataAndControl, beats: cfg.beatSCTP, orderly: cfg.beatSCTP},
		}
		if cfg.beatSCTP {
			l.beat() // tells the element what it talks to
		}
		return l, nil
	}
	return nil, fmt.Errorf("%w: %v carries no sessions", ErrTransport, to.Type)
}

// framedLink is a byte stream with the session framing.
type framedLink struct{ conn *framed.Conn }

func (framedLink) kind() linkKind { return linkKind{control: true, beats: true, orderly: true} }

func (l framedLink) next(ctx context.Context) (transport.Message, error) { return l.conn.Next(ctx) }
func (l framedLink) beat()                                               { l.conn.Beat() }
func (l framedLink) heard() time.Time                                    { return l.conn.Heard() }

func (l framedLink) send(ctx context.Context, msgs ...transport.Message) (int, error) {
	err := l.conn.Send(ctx, msgs...)
	if err == nil || errors.Is(err, framed.ErrNotSent) {
		return 0, err
	}
	return octets(msgs), err
}

func octets(msgs []transport.Message) (n int) {
	for _, m := range msgs {
		n += max(len(m.Data), 1)
	}
	return n
}

func (l framedLink) leave(orderly bool) error {
	if orderly {
		return l.conn.Close()
	}
	return l.conn.Abort()
}

func (l framedLink) linger(ctx context.Context) { framed.Linger(ctx, l.conn) }

func (l framedLink) addrs() (local, remote net.Addr) {
	return l.conn.Stream().LocalAddr(), l.conn.Stream().RemoteAddr()
}

// assocLink is an SCTP association. It takes whole messages or none of them.
type assocLink struct {
	assoc *framed.Assoc
	is    linkKind
	ppid  uint32
	// behind tells that data on another stream than the control channel's could
	// overtake what was sent there, a cookie for example.
	behind atomic.Bool
}

func (l *assocLink) kind() linkKind   { return l.is }
func (l *assocLink) beat()            { l.assoc.Beat() }
func (l *assocLink) heard() time.Time { return l.assoc.Heard() }

func (l *assocLink) next(ctx context.Context) (transport.Message, error) {
	m, err := l.assoc.Next(ctx)
	if err == io.EOF && l.is.orderly && !l.assoc.Orderly() {
		err = framed.ErrCut
	}
	return m, err
}

func (l *assocLink) send(ctx context.Context, msgs ...transport.Message) (int, error) {
	for i := range msgs {
		if msgs[i].PPID == 0 {
			msgs[i].PPID = l.ppid
		}
		err := l.order(ctx, msgs[i])
		if err == nil {
			err = l.assoc.Send(ctx, msgs[i])
		}
		if err != nil {
			return octets(msgs[:i]), err
		}
	}
	return 0, nil
}

// order waits where a message would overtake the control channel. Streams have an order
// each, but the cookie comes before all data (RFC 5352, section 3.8).
func (l *assocLink) order(ctx context.Context, m transport.Message) error {
	switch {
	case m.PPID == transport.PPIDASAP:
		l.behind.Store(true)
	case m.Stream != 0 && l.behind.Load():
		if err := l.assoc.Flush(ctx); err != nil {
			return err
		}
		l.behind.Store(false)
	}
	return nil
}

func (l *assocLink) linger(ctx context.Context) { framed.Linger(ctx, l.assoc) }

func (l *assocLink) leave(orderly bool) error {
	if orderly {
		return l.assoc.Close()
	}
	return l.assoc.Abort()
}

func (l *assocLink) addrs() (local, remote net.Addr) {
	name := l.assoc.Network()
	return transport.PrimaryAddr(name, l.assoc.LocalAddrs()), transport.PrimaryAddr(name, l.assoc.RemoteAddrs())
}

// plainLink is a byte stream without anything. Its messages are what one read gave.
type plainLink struct {
	stream net.Conn
	reads  *transport.Interrupter
	writes *transport.Interrupter
	buf    []byte
	came   atomic.Int64 // Unix time, ns
	closed atomic.Bool
	cut    atomic.Bool // closed because of a write that was interrupted
}

// The buffer grows with what streams bring at a time.
const (
	plainBuffer    = 2048
	maxPlainBuffer = 32 << 10
)

func newPlainLink(stream net.Conn) *plainLink {
	return &plainLink{
		stream: stream, buf: make([]byte, plainBuffer),
		reads: transport.NewInterrupter(stream.SetReadDeadline), writes: transport.NewInterrupter(stream.SetWriteDeadline),
	}
}

func (*plainLink) kind() linkKind     { return linkKind{} }
func (*plainLink) beat()              {}
func (l *plainLink) heard() time.Time { return time.Unix(0, l.came.Load()) }

func (l *plainLink) next(ctx context.Context) (transport.Message, error) {
	for {
		if err := l.reads.Arm(ctx); err != nil {
			return transport.Message{}, err
		}
		n, err := l.stream.Read(l.buf)
		if n > 0 {
			l.came.Store(time.Now().UnixNano())
			m := transport.Message{Data: bytes.Clone(l.buf[:n])}
			if n == len(l.buf) && n < maxPlainBuffer {
				l.buf = make([]byte, 2*n)
			}
			return m, nil
		}
		switch {
		case l.cut.Load():
			return transport.Message{}, fmt.Errorf("%w: %w", transport.ErrInterruptedTLS, net.ErrClosed)
		case l.closed.Load():
			return transport.Message{}, net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			if ctx.Err() != nil {
				return transport.Message{}, context.Cause(ctx)
			}
		case err != nil:
			return transport.Message{}, err
		}
	}
}

func (l *plainLink) send(ctx context.Context, msgs ...transport.Message) (int, error) {
	sent := 0
	for _, m := range msgs {
		if err := l.writes.Arm(ctx); err != nil {
			return sent, err
		}
		n, err := l.stream.Write(m.Data)
		if _, secured := l.stream.(*tls.Conn); secured && errors.Is(err, os.ErrDeadlineExceeded) {
			n = len(m.Data) // or less: TLS does not tell
			l.cut.Store(true)
			_ = l.leave(false)
		}
		sent += n
		if err != nil {
			return sent, l.writes.Cause(ctx, err)
		}
	}
	return sent, nil
}

func (*plainLink) linger(context.Context) {}

func (l *plainLink) leave(orderly bool) error {
	l.closed.Store(true)
	end := transport.Reset
	if orderly {
		end = transport.Shut
	}
	err := end(l.stream)
	l.reads.Release()
	l.writes.Release()
	return err
}

func (l *plainLink) addrs() (local, remote net.Addr) {
	return l.stream.LocalAddr(), l.stream.RemoteAddr()
}
