package mem

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

// streamSegment is the most octets of a stream that travel together.
const streamSegment = 16 << 10

// stream is one end of a byte stream: a connection whose messages have no borders. It
// is for a pair of DialStream and ListenStream.
type stream struct {
	c           *conn
	read, write deadline
	shut, reset bool // after CloseWrite, after SetLinger(0)
}

// deadline is guarded by Network.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// DialStream connects to a listener of ListenStream by what passes for TCP; it has the
// form of (*net.Dialer).DialContext. Faults act as on other connections. Streams have
// CloseWrite and SetLinger, as a *net.TCPConn has.
func (h *Host) DialStream(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	remote, err := h.streamAddrs(ctx, network, address)
	if err != nil {
		return fail(err)
	}
	c, err := h.Dial(ctx, nil, remote, transport.Options{})
	if err != nil {
		return fail(err)
	}
	return &stream{c: c.(*conn)}, nil
}

// ListenStream listens for byte streams; it has the form of (*net.ListenConfig).Listen.
// An empty host stands for all addresses of the machine, port 0 for a free one. Its
// ports are those of Listen. When the listener is closed, Accept ends.
func (h *Host) ListenStream(ctx context.Context, network, address string) (net.Listener, error) {
	local, err := h.streamAddrs(ctx, network, address)
	var l transport.Listener
	if err == nil {
		l, err = h.Listen(ctx, local, transport.Options{})
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	return streamListener{l}, nil
}

func (h *Host) streamAddrs(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil, net.UnknownNetworkError(network)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	return transport.Endpoint{Network: transport.Mem, Hosts: []string{host}, Port: uint16(number)}.Resolve(ctx, h)
}

type streamListener struct{ l transport.Listener }

func (l streamListener) Accept() (net.Conn, error) {
	c, err := l.l.Accept(context.Background())
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
	}
	return &stream{c: c.(*conn)}, nil
}

func (l streamListener) Close() error   { return l.l.Close() }
func (l streamListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.l.Addrs()[0]) }

// Read takes what has arrived, as much as fits.
func (s *stream) Read(p []byte) (int, error) {
	c := s.c
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		if err := s.ready("read", &s.read); err != nil {
			return 0, err
		}
		switch {
		case len(p) == 0:
			return 0, nil
		case len(c.arrived) > 0:
			m := &c.arrived[0]
			n := copy(p, m.Data)
			if m.Data = m.Data[n:]; len(m.Data) == 0 {
				c.arrived = c.arrived[1:]
			}
			c.octets -= n
			c.peer.wake.fire()
			return n, nil
		case c.last || c.err == io.EOF:
			return 0, io.EOF
		case c.err != nil:
			return 0, s.opError("read", c.err)
		}
		// Without a context's end, wait does not fail.
		_ = c.n.wait(context.Background(), &c.wake)
	}
}

// Write returns when the network has taken everything.
func (s *stream) Write(p []byte) (int, error) {
	c := s.c
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	sent := 0
	for {
		if err := s.ready("write", &s.write); err != nil {
			return sent, err
		}
		if err := c.sendError(); err != nil {
			return sent, s.opError("write", err)
		}
		if s.shut {
			return sent, s.opError("write", syscall.EPIPE)
		}
		if sent == len(p) {
			return sent, nil
		}
		if room := c.n.Buffer - c.peer.octets; room > 0 {
			segment := p[sent:min(len(p), sent+streamSegment, sent+room)]
			c.peer.put(packet{msg: transport.Message{Data: slices.Clone(segment)}})
			if sent += len(segment); sent == len(p) {
				return sent, nil
			}
			continue
		}
		_ = c.n.wait(context.Background(), &c.wake)
	}
}

// ready waits while the process is frozen, and fails when the stream is closed or a
// deadline has passed.
func (s *stream) ready(op string, d *deadline) error {
	if err := s.c.h.running(context.Background(), &s.c.closed); err != nil {
		return s.opError(op, net.ErrClosed)
	}
	if d.passed() {
		return s.opError(op, os.ErrDeadlineExceeded)
	}
	return nil
}

func (s *stream) opError(op string, err error) error {
	if inner := errors.Unwrap(err); inner != nil && s.c.err == err {
		err = os.NewSyscallError(op, inner)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// CloseWrite ends this direction of the stream.
func (s *stream) CloseWrite() error {
	n := s.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := s.ready("close", new(deadline)); err != nil {
		return err
	}
	if !s.shut {
		s.shut = true
		s.c.peer.put(packet{kind: half})
		s.c.wake.fire()
	}
	return nil
}

// SetLinger makes Close a reset if sec is 0. Close never waits.
func (s *stream) SetLinger(sec int) error {
	n := s.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.c.closed {
		return s.opError("set", net.ErrClosed)
	}
	s.reset = sec == 0
	return nil
}

// Close ends the stream; what was written still arrives.
func (s *stream) Close() error {
	n := s.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.c.closed {
		return s.opError("close", net.ErrClosed)
	}
	if s.reset {
		s.c.end(rst)
	} else {
		s.c.end(fin)
	}
	for _, d := range []*deadline{&s.read, &s.write} {
		s.set(d, time.Time{})
	}
	return nil
}

func (s *stream) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(s.c.local[0]) }
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.c.remote[0]) }

func (s *stream) SetDeadline(t time.Time) error { return s.setAll(t, &s.read, &s.write) }

func (s *stream) SetReadDeadline(t time.Time) error { return s.setAll(t, &s.read) }

func (s *stream) SetWriteDeadline(t time.Time) error { return s.setAll(t, &s.write) }

func (s *stream) setAll(t time.Time, deadlines ...*deadline) error {
	n := s.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.c.closed {
		return s.opError("set", net.ErrClosed)
	}
	for _, d := range deadlines {
		s.set(d, t)
	}
	return nil
}

// set moves a deadline and lets waiting calls look at it. One that has passed needs no
// timer.
func (s *stream) set(d *deadline, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if ahead := time.Until(t); ahead > 0 {
		d.timer = time.AfterFunc(ahead, func() {
			s.c.n.mu.Lock()
			defer s.c.n.mu.Unlock()
			s.c.wake.fire()
		})
	}
	s.c.wake.fire()
}
