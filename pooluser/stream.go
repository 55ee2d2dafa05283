package pooluser

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// streamChunk is the longest user message that a stream is cut into.
const streamChunk = 16384

// receiveData waits for the next message that is not ASAP's.
func receiveData(ctx context.Context, conn transport.Conn, buf []byte) (transport.Message, error) {
	for {
		m, err := conn.Receive(ctx, buf)
		if err != nil || m.PPID != transport.PPIDASAP {
			return m, err
		}
	}
}

// stream is a byte stream over the user messages of an association.
type stream struct {
	conn transport.Conn
	ppid uint32

	reading sync.Mutex // one Read at a time; guards buf and rest
	buf     []byte
	rest    []byte

	read, write deadline
}

func newStream(conn transport.Conn, ppid uint32) *stream {
	return &stream{conn: conn, ppid: ppid, buf: make([]byte, transport.MaxMessage)}
}

// Read reads what is there of the next message.
func (s *stream) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for len(s.rest) == 0 {
		m, err := during(&s.read, func(ctx context.Context) (transport.Message, error) {
			return receiveData(ctx, s.conn, s.buf)
		})
		if err != nil {
			return 0, err
		}
		s.rest = m.Data
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends p as one message, or as several if it is long.
func (s *stream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		chunk := p[sent:min(len(p), sent+streamChunk)]
		_, err := during(&s.write, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.conn.Send(ctx, transport.Message{Data: chunk, PPID: s.ppid})
		})
		if err != nil {
			return sent, err
		}
		sent += len(chunk)
	}
	return sent, nil
}

// Close also frees the timers of deadlines that lie ahead.
func (s *stream) Close() error {
	err := s.conn.Close()
	s.read.set(time.Time{})
	s.write.set(time.Time{})
	return err
}

func (s *stream) LocalAddr() net.Addr  { return addr{s.conn.Network(), s.conn.LocalAddrs()} }
func (s *stream) RemoteAddr() net.Addr { return addr{s.conn.Network(), s.conn.RemoteAddrs()} }

func (s *stream) SetDeadline(t time.Time) error {
	s.read.set(t)
	s.write.set(t)
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.read.set(t)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.write.set(t)
	return nil
}

// addr is the net.Addr of an association's end: its primary address.
type addr struct {
	network string
	addrs   []netip.AddrPort
}

func (a addr) Network() string { return a.network }

func (a addr) String() string {
	if len(a.addrs) == 0 {
		return ""
	}
	return a.addrs[0].String()
}

// errMoved ends calls so that they go on with another deadline.
var errMoved = errors.New("deadline moved")

// deadline is a deadline that may be moved while calls run.
type deadline struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
}

func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		d.ctx, d.cancel = context.WithCancelCause(context.Background())
		d.stop = func() {}
	}
	return d.ctx
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel(errMoved)
		d.stop()
	}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.stop = func() {}
	if !t.IsZero() {
		d.ctx, d.stop = context.WithDeadline(d.ctx, t)
	}
}

// during calls f with the deadline's context, again when the deadline is moved.
func during[T any](d *deadline, f func(context.Context) (T, error)) (T, error) {
	for {
		ctx := d.context()
		out, err := f(ctx)
		switch {
		case err == nil || ctx.Err() == nil:
			return out, err
		case errors.Is(context.Cause(ctx), errMoved):
			continue
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			return out, os.ErrDeadlineExceeded
		default:
			return out, err
		}
	}
}
