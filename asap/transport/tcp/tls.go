package tcp

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// TLS makes a network protect its connections by TLS 1.3, with certificates at
// both ends.
type TLS struct {
	// Credentials are this end's. Required.
	Credentials *Credentials
	// Timeout bounds a handshake. Default 5 s.
	Timeout time.Duration
	// Handshakes bounds those under way at one listener. When there are more
	// the oldest is given up: who is in earnest takes a few round trips.
	// Default 64.
	Handshakes int
	// Failed is told of handshakes with those who dialled that failed; it must
	// be quick and may be called concurrently. Default nil.
	Failed func(remote netip.AddrPort, err error)
}

// Option adjusts a network.
type Option func(*network)

// WithTLS makes a network speak TLS only.
func WithTLS(t TLS) Option {
	if t.Timeout <= 0 {
		t.Timeout = 5 * time.Second
	}
	if t.Handshakes <= 0 {
		t.Handshakes = 64
	}
	return func(n *network) { n.tls = &t }
}

// errNames: the certificate names a registrar in a way that can't be read.
var errNames = errors.New("names of registrars")

// errTooMany: more handshakes under way than TLS.Handshakes.
var errTooMany = errors.New("given up for newer handshakes")

// HandshakeReason says in one word why a handshake failed, as metrics do.
func HandshakeReason(err error) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &unknown):
		return "unknown-authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired"
	case errors.As(err, &invalid):
		return "invalid-certificate"
	case errors.As(err, &name):
		return "other-cluster"
	case errors.Is(err, errNames):
		return "unreadable-identity"
	case errors.As(err, &record):
		return "not-tls"
	case errors.As(err, &alert) && alert.Op == "remote error": // the alert itself has no exported type
		return "refused-by-peer"
	case errors.Is(err, errTooMany):
		return "too-many"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "hung-up"
	case strings.Contains(err.Error(), "didn't provide a certificate"): // has no type
		return "no-certificate"
	}
	return "other"
}

// secured hides what a connection offers beyond transport.Conn, which may go
// past TLS to the socket. It knows what the other end's certificate names.
type secured struct {
	transport.Conn
	registrars []param.RegistrarID
}

// Registrars implements transport.Named.
func (s *secured) Registrars() []param.RegistrarID { return s.registrars }

// Stuck only looks at the socket.
func (s *secured) Stuck(since time.Duration) bool { return s.Conn.(*conn).Stuck(since) }

// conn makes a connection of the link.
func (l link) conn(opt transport.Options) transport.Conn {
	c := newConn(l, opt)
	if l.tls == nil {
		return c
	}
	// The handshake has checked that there is no error.
	named, _ := transport.NamedRegistrars(l.tls.ConnectionState().PeerCertificates[0].URIs)
	return &secured{c, named}
}

// farewell is how long closing a connection may wait for room to say so to the
// peer.
const farewell = 10 * time.Millisecond

// socket is a TCP connection below TLS, whose last words can be made short.
type socket struct {
	*net.TCPConn
	closing atomic.Bool
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.closing.Load() {
		if latest := time.Now().Add(farewell); t.After(latest) {
			t = latest
		}
	}
	return s.TCPConn.SetWriteDeadline(t)
}

// client does the handshake of who dialled.
func (t *TLS) client(ctx context.Context, raw *net.TCPConn) (link, error) {
	s := &socket{TCPConn: raw}
	return t.handshake(ctx, s, tls.Client(s, t.Credentials.configs().client))
}

func (t *TLS) server(ctx context.Context, raw *net.TCPConn) (link, error) {
	s := &socket{TCPConn: raw}
	return t.handshake(ctx, s, tls.Server(s, t.Credentials.configs().server))
}

func (t *TLS) handshake(ctx context.Context, s *socket, c *tls.Conn) (link, error) {
	within, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	if err := c.HandshakeContext(within); err != nil {
		if cause := context.Cause(within); cause != nil {
			err = cause
		}
		_ = s.Close() // nothing was sent on it
		return link{}, fmt.Errorf("TLS: %w", err)
	}
	return link{stream: c, tcp: s.TCPConn, tls: c, below: s}, nil
}

// handshakes are those under way at a listener.
type handshakes struct {
	*TLS
	mu      sync.Mutex
	running list.List // of context.CancelCauseFunc, oldest first
}

// do does the handshake of a new connection and gives it to deliver. It is called
// by a goroutine of its own.
func (h *handshakes) do(listening context.Context, raw *net.TCPConn, deliver func(context.Context, link)) {
	ctx, cancel := context.WithCancelCause(listening)
	defer cancel(nil)
	h.mu.Lock()
	me := h.running.PushBack(cancel)
	if h.running.Len() > h.Handshakes {
		h.running.Remove(h.running.Front()).(context.CancelCauseFunc)(errTooMany)
	}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.running.Remove(me) // again, if it was given up: no matter
		h.mu.Unlock()
	}()
	l, err := h.server(ctx, raw)
	switch {
	case err == nil:
		deliver(ctx, l)
	case h.Failed != nil && listening.Err() == nil:
		h.Failed(transport.AddrPort(raw.RemoteAddr()), err)
	}
}
