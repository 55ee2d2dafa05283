package poolelement

import (
	"context"
	"net"
	"net/netip"

	"rserpool/asap/transport"
)

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
	return &StreamSession{Conn: transport.NewStream(streamed{s}, 0), Control: &s.Control}
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
