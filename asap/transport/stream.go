package transport

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// StreamChunk is the longest message that byte streams are cut into.
const StreamChunk = 16 << 10

// Messages is what a Stream goes through: an association, or what stands for one.
type Messages interface {
	// Next waits for the next message, in memory of its own; one without octets is
	// passed over. io.EOF is the end of the stream.
	Next(ctx context.Context) (Message, error)
	Send(ctx context.Context, msgs ...Message) error
	Close() error
	Network() string
	LocalAddrs() []netip.AddrPort
	RemoteAddrs() []netip.AddrPort
}

// Stream is a byte stream over messages, as net.Conn has it. The borders of messages mean
// nothing; a Write goes as one message, or as several if it is long, with nothing of another
// Write between them.
type Stream struct {
	over Messages
	ppid uint32

	reading Turn // guards rest
	rest    []byte
	writing Turn

	read, write Deadline
}

var _ net.Conn = (*Stream)(nil)

// NewStream makes a byte stream that sends with this PPID. It owns over from now on.
func NewStream(over Messages, ppid uint32) *Stream {
	return &Stream{over: over, ppid: ppid, reading: NewTurn(), writing: NewTurn()}
}

// Read reads what is there of the next message.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.read.Until(s.reading.Take); err != nil {
		return 0, err
	}
	defer s.reading.End()
	for len(s.rest) == 0 {
		err := s.read.Until(func(ctx context.Context) error {
			m, err := s.over.Next(ctx)
			s.rest = m.Data
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends p.
func (s *Stream) Write(p []byte) (int, error) {
	if err := s.write.Until(s.writing.Take); err != nil {
		return 0, err
	}
	defer s.writing.End()
	sent := 0
	for sent < len(p) {
		chunk := p[sent:min(len(p), sent+StreamChunk)]
		err := s.write.Until(func(ctx context.Context) error {
			return s.over.Send(ctx, Message{Data: chunk, PPID: s.ppid})
		})
		if err != nil {
			return sent, err
		}
		sent += len(chunk)
	}
	return sent, nil
}

// Close closes what the stream goes through, and frees the timers of deadlines that lie
// ahead.
func (s *Stream) Close() error {
	err := s.over.Close()
	s.read.Set(time.Time{})
	s.write.Set(time.Time{})
	return err
}

// LocalAddr and RemoteAddr return the primary address at each end.
func (s *Stream) LocalAddr() net.Addr  { return PrimaryAddr(s.over.Network(), s.over.LocalAddrs()) }
func (s *Stream) RemoteAddr() net.Addr { return PrimaryAddr(s.over.Network(), s.over.RemoteAddrs()) }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	s.read.Set(t)
	s.write.Set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.read.Set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.write.Set(t)
	return nil
}

// AddrPort returns the IP address and port of a TCP connection's end, an IPv4-mapped IPv6
// address as IPv4, and the zero value for others.
func AddrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// PrimaryAddr is the net.Addr of a connection's end that has these addresses: the first.
func PrimaryAddr(network string, addrs []netip.AddrPort) net.Addr { return primaryAddr{network, addrs} }

type primaryAddr struct {
	network string
	addrs   []netip.AddrPort
}

func (a primaryAddr) Network() string { return a.network }

func (a primaryAddr) String() string {
	if len(a.addrs) == 0 {
		return ""
	}
	return a.addrs[0].String()
}
