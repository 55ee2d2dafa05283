package poolelement

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"rserpool/asap/transport"
)

// StreamSession is a session in stream style at the element: a net.Conn, and what
// Control gives when ServeConfig.Control is set. Read takes care of cookies on the
// way: State tells, once Read has returned data, whether the user has brought one.
//
// After a Write that a deadline has interrupted a plain stream can go on, but not over TLS:
// further calls return transport.ErrInterruptedTLS, wrapped. With Control a Write that was
// interrupted in the middle of a message ends the session.
type StreamSession struct {
	net.Conn
	*Control
}

func newStreamSession(s *Session) *StreamSession {
	if s.conn == nil {
		return &StreamSession{Conn: &watchedStream{Conn: s.stream, control: &s.Control}, Control: &s.Control}
	}
	return &StreamSession{Conn: transport.NewStream(streamed{s}, 0), Control: &s.Control}
}

// watchedStream is a plain byte stream whose handler is watched.
type watchedStream struct {
	net.Conn
	control *Control
	broken  atomic.Bool // see transport.ErrInterruptedTLS
}

func (s *watchedStream) Read(p []byte) (int, error) {
	s.control.idle()
	defer s.control.busy()
	return s.Conn.Read(p)
}

// Write says why nothing can be written after a deadline: what TLS returns looks as if the
// deadline had come again.
func (s *watchedStream) Write(p []byte) (int, error) {
	defer s.control.give()()
	if s.broken.Load() {
		return 0, fmt.Errorf("write to %v: %w", s.RemoteAddr(), transport.ErrInterruptedTLS)
	}
	n, err := s.Conn.Write(p)
	if _, secured := s.Conn.(*tls.Conn); secured && errors.Is(err, os.ErrDeadlineExceeded) {
		s.broken.Store(true)
	}
	return n, err
}

// streamed is a session's data as what a byte stream goes through. Events have no octets.
type streamed struct{ *Session }

func (s streamed) Next(ctx context.Context) (transport.Message, error) {
	in, err := s.Receive(ctx)
	return in.Message, err
}

func (s streamed) Close() error                  { return s.conn.Close() }
func (s streamed) Network() string               { return s.conn.Network() }
func (s streamed) LocalAddrs() []netip.AddrPort  { return s.conn.LocalAddrs() }
func (s streamed) RemoteAddrs() []netip.AddrPort { return s.remote }
