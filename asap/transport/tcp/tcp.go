// Package tcp carries messages over TCP, one after the other, each as long as
// its length field says and padded to four octets.
//
// The RFCs give TCP to pool users only and leave out how messages lie in the
// stream; see AMB-02. With TLS (WithTLS) the same octets go through it.
package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

const (
	// stagger is how long Dial waits for one address before it also tries
	// the next (RFC 8305, section 5).
	stagger = 250 * time.Millisecond
	// acceptPause keeps a listener that is out of descriptors from spinning.
	acceptPause = 50 * time.Millisecond
	// portTries is how often Listen looks for a port that is free on several
	// addresses.
	portTries = 8
)

// keepAlive finds a peer that vanished without a word within a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

type network struct{ tls *TLS }

// New returns the TCP network of this machine.
func New(options ...Option) transport.Network {
	var n network
	for _, option := range options {
		option(&n)
	}
	return n
}

func (network) Name() string     { return transport.TCP }
func (network) Available() error { return nil }

func (n network) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	opt = opt.WithDefaults()
	if len(remote) == 0 {
		return nil, errors.New("dial: no remote address")
	}
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		link link
		err  error
	}
	results := make(chan result)
	started, pending := 0, 0
	next := time.NewTimer(0)
	var won link
	var errs []error
	for won.tcp == nil {
		// Asked once a round: ctx may end at any moment.
		turn := next.C
		if started == len(remote) || ctx.Err() != nil {
			turn = nil
		}
		if turn == nil && pending == 0 {
			break
		}
		select {
		case <-turn:
			to := remote[started]
			go func() {
				link, err := n.dialOne(ctx, local, to, opt)
				results <- result{link, err}
			}()
			started, pending = started+1, pending+1
			next.Reset(stagger)
		case r := <-results:
			pending--
			if won = r.link; r.err != nil {
				errs = append(errs, r.err)
				next.Reset(0)
			}
		}
	}
	ended := ctx.Err() != nil
	cause := context.Cause(ctx)
	cancel()
	next.Stop()
	for range pending {
		if r := <-results; r.err == nil {
			_ = r.link.tcp.Close() // too late, nothing was sent on it
		}
	}
	if won.tcp != nil {
		return won.conn(opt), nil
	}
	if ended {
		errs = append(errs, cause)
	}
	return nil, errors.Join(errs...)
}

func (n network) dialOne(ctx context.Context, local []netip.AddrPort, remote netip.AddrPort, opt transport.Options) (link, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	d := net.Dialer{KeepAliveConfig: keepAlive}
	d.SetMultipathTCP(false)
	if opt.ReusePort {
		d.Control = reusePort
	}
	if len(local) > 0 {
		from, ok := localFor(local, remote.Addr())
		if !ok {
			return link{}, fmt.Errorf("dial %s: none of the local addresses %v is of its family", remote, local)
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	c, err := d.DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return link{}, err
	}
	raw := c.(*net.TCPConn)
	if n.tls == nil {
		return link{stream: newStream(raw), tcp: raw}, nil
	}
	l, err := n.tls.client(ctx, raw)
	if err != nil {
		return link{}, fmt.Errorf("dial %s: %w", remote, err)
	}
	return l, nil
}

// localFor returns the first of the local addresses from which remote can be
// reached.
func localFor(local []netip.AddrPort, remote netip.Addr) (netip.AddrPort, bool) {
	for _, l := range local {
		addr := l.Addr().Unmap()
		if addr == netip.IPv6Unspecified() && remote.Is4() {
			addr = netip.IPv4Unspecified()
		}
		if addr.Is4() == remote.Is4() {
			return netip.AddrPortFrom(addr, l.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

func (n network) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	opt = opt.WithDefaults()
	if len(local) == 0 {
		return nil, errors.New("listen: no local address")
	}
	if slices.ContainsFunc(local, func(a netip.AddrPort) bool { return a.Addr() == netip.IPv6Unspecified() }) {
		local = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), local[0].Port())}
	}
	for try := 1; ; try++ {
		sockets, err := listenAll(ctx, local, opt)
		if err == nil {
			return newListener(sockets, n.tls, opt), nil
		}
		// The port that the first address got can be taken on another.
		if local[0].Port() != 0 || len(local) == 1 || !errors.Is(err, syscall.EADDRINUSE) || try == portTries {
			return nil, err
		}
	}
}

func listenAll(ctx context.Context, local []netip.AddrPort, opt transport.Options) ([]*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(false)
	if opt.ReusePort {
		lc.Control = reusePort
	}
	port := local[0].Port()
	var sockets []*net.TCPListener
	for _, a := range local {
		addr := a.Addr().Unmap()
		family, host := "tcp6", addr.String()
		switch {
		case addr == netip.IPv6Unspecified():
			family, host = "tcp", "" // both, or what the machine has
		case addr.Is4():
			family = "tcp4"
		}
		l, err := lc.Listen(ctx, family, net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			errs := []error{err}
			for _, s := range sockets {
				errs = append(errs, s.Close())
			}
			return nil, errors.Join(errs...)
		}
		sockets = append(sockets, l.(*net.TCPListener))
		port = transport.AddrPort(l.Addr()).Port()
	}
	return sockets, nil
}

// listener hands out the connections of its sockets. Each socket has one
// goroutine, and each handshake has one; Close waits for them.
type listener struct {
	sockets  []*net.TCPListener
	addrs    []netip.AddrPort
	opt      transport.Options
	accepted chan accepted
	tls      *handshakes     // nil without TLS
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	closing  sync.Once
	closeErr error
	running  sync.WaitGroup
}

type accepted struct {
	link link
	err  error
}

func newListener(sockets []*net.TCPListener, t *TLS, opt transport.Options) *listener {
	l := &listener{sockets: sockets, opt: opt, accepted: make(chan accepted)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if t != nil {
		l.tls = &handshakes{TLS: t}
	}
	for _, s := range sockets {
		l.addrs = append(l.addrs, transport.AddrPort(s.Addr()))
		l.running.Go(func() { l.run(s) })
	}
	return l
}

func (l *listener) run(s *net.TCPListener) {
	for {
		tcp, err := s.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		switch {
		case err == nil && l.tls != nil:
			l.running.Go(func() {
				l.tls.do(l.ctx, tcp, func(ctx context.Context, secured link) { l.deliver(ctx, accepted{link: secured}) })
			})
		case err == nil:
			l.deliver(l.ctx, accepted{link: link{stream: newStream(tcp), tcp: tcp}})
		default:
			l.deliver(l.ctx, accepted{err: err})
			select {
			case <-time.After(acceptPause):
			case <-l.ctx.Done():
			}
		}
	}
}

// deliver waits until somebody accepts, or ctx ends.
func (l *listener) deliver(ctx context.Context, a accepted) {
	select {
	case l.accepted <- a:
	case <-ctx.Done():
		if a.err == nil {
			_ = a.link.tcp.Close() // nobody will ever use it
		}
	}
}

// Accept also returns temporary errors, such as too many open files; it can be
// called again after them.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if l.ctx.Err() != nil { // goes first
		return nil, fmt.Errorf("accept on %s: %w", l.addrs[0], net.ErrClosed)
	}
	select {
	case a := <-l.accepted:
		if a.err != nil {
			return nil, fmt.Errorf("accept on %s: %w", l.addrs[0], a.err)
		}
		return a.link.conn(l.opt), nil
	case <-l.ctx.Done():
		return nil, fmt.Errorf("accept on %s: %w", l.addrs[0], net.ErrClosed)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *listener) Network() string         { return transport.TCP }
func (l *listener) Addrs() []netip.AddrPort { return l.addrs }

func (l *listener) Close() error {
	l.closing.Do(func() {
		l.cancel()
		for _, s := range l.sockets {
			l.closeErr = errors.Join(l.closeErr, s.Close())
		}
		l.running.Wait()
	})
	return l.closeErr
}
