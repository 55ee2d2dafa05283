package pooluser

import (
	"context"
	"net"
	"net/netip"
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

	read, write transport.Deadline
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
	s.read.Set(time.Time{})
	s.write.Set(time.Time{})
	return err
}

func (s *stream) LocalAddr() net.Addr  { return addr{s.conn.Network(), s.conn.LocalAddrs()} }
func (s *stream) RemoteAddr() net.Addr { return addr{s.conn.Network(), s.conn.RemoteAddrs()} }

func (s *stream) SetDeadline(t time.Time) error {
	s.read.Set(t)
	s.write.Set(t)
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.read.Set(t)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.write.Set(t)
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

// during calls f with the deadline's context.
func during[T any](d *transport.Deadline, f func(context.Context) (T, error)) (out T, _ error) {
	err := d.Until(func(ctx context.Context) (err error) {
		out, err = f(ctx)
		return err
	})
	return out, err
}
