package poolelement

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// streamChunk is the longest message that a byte stream is cut into.
const streamChunk = 16 << 10

// StreamSession is a session in stream style at the element: a net.Conn, and what
// Control gives when ServeConfig.Control is set. Read takes care of cookies on the
// way: State tells, once Read has returned data, whether the user has brought one.
type StreamSession struct {
	net.Conn
	*Control
}

func newStreamSession(s *Session) *StreamSession {
	if s.conn == nil {
		return &StreamSession{Conn: watchedStream{s.stream, &s.Control}, Control: &s.Control}
	}
	return &StreamSession{Conn: &messageStream{session: s}, Control: &s.Control}
}

// watchedStream is a plain byte stream whose handler is watched.
type watchedStream struct {
	net.Conn
	control *Control
}

func (s watchedStream) Read(p []byte) (int, error) {
	s.control.idle()
	defer s.control.busy()
	return s.Conn.Read(p)
}

func (s watchedStream) Write(p []byte) (int, error) {
	defer s.control.give()()
	return s.Conn.Write(p)
}

// messageStream is a byte stream over a session's messages.
type messageStream struct {
	session *Session

	reading sync.Mutex // one Read at a time; guards rest
	rest    []byte

	read, write transport.Deadline
}

// Read reads what is there of the next message.
func (m *messageStream) Read(p []byte) (int, error) {
	m.reading.Lock()
	defer m.reading.Unlock()
	for len(m.rest) == 0 {
		err := m.read.Until(func(ctx context.Context) error {
			in, err := m.session.Receive(ctx)
			m.rest = in.Data
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// Write sends p as one message, or as several if it is long.
func (m *messageStream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		chunk := p[sent:min(len(p), sent+streamChunk)]
		err := m.write.Until(func(ctx context.Context) error {
			return m.session.Send(ctx, transport.Message{Data: chunk})
		})
		if err != nil {
			return sent, err
		}
		sent += len(chunk)
	}
	return sent, nil
}

// Close also frees the timers of deadlines that lie ahead.
func (m *messageStream) Close() error {
	err := m.session.conn.Close()
	m.read.Set(time.Time{})
	m.write.Set(time.Time{})
	return err
}

func (m *messageStream) LocalAddr() net.Addr {
	return messageAddr{m.session.conn.Network(), m.session.conn.LocalAddrs()}
}

func (m *messageStream) RemoteAddr() net.Addr {
	return messageAddr{m.session.conn.Network(), m.session.remote}
}

func (m *messageStream) SetDeadline(t time.Time) error {
	m.read.Set(t)
	m.write.Set(t)
	return nil
}

func (m *messageStream) SetReadDeadline(t time.Time) error {
	m.read.Set(t)
	return nil
}

func (m *messageStream) SetWriteDeadline(t time.Time) error {
	m.write.Set(t)
	return nil
}

// messageAddr is the net.Addr of an association's end: its primary address.
type messageAddr struct {
	network string
	addrs   []netip.AddrPort
}

func (a messageAddr) Network() string { return a.network }

func (a messageAddr) String() string {
	if len(a.addrs) == 0 {
		return ""
	}
	return a.addrs[0].String()
}
