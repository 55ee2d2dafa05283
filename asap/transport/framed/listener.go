package framed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// acceptPause keeps a listener that is out of descriptors from spinning.
const acceptPause = 50 * time.Millisecond

// Listener accepts framed connections. It has one goroutine, and one for each
// connection that has not been accepted yet; Close ends them and waits.
type Listener struct {
	socket   net.Listener
	opt      Options
	accepted chan accepted
	slots    chan struct{}   // one for each handshake
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	closing  sync.Once
	closeErr error
	running  sync.WaitGroup
}

type accepted struct {
	conn *Conn
	err  error
}

var _ transport.Listener = (*Listener)(nil)

// NewListener makes a listener of a socket, which it owns from now on.
func NewListener(socket net.Listener, opt Options) *Listener {
	opt = opt.withDefaults()
	l := &Listener{socket: socket, opt: opt, accepted: make(chan accepted), slots: make(chan struct{}, opt.MaxHandshakes)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.run)
	return l
}

func (l *Listener) run() {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		stream, err := l.socket.Accept()
		switch {
		case err == nil:
			l.running.Go(func() { l.greet(stream) })
			continue
		case l.ctx.Err() != nil:
			return
		}
		<-l.slots
		l.deliver(accepted{err: err})
		select {
		case <-time.After(acceptPause):
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *Listener) greet(stream net.Conn) {
	defer func() { <-l.slots }()
	ctx, cancel := context.WithTimeout(l.ctx, l.opt.Handshake)
	defer cancel()
	from := stream.RemoteAddr()
	conn, err := Server(ctx, stream, l.opt)
	switch {
	case err == nil:
		l.deliver(accepted{conn: conn})
	case l.opt.Refused != nil && l.ctx.Err() == nil:
		l.opt.Refused(from, err)
	}
}

// deliver waits until somebody accepts.
func (l *Listener) deliver(a accepted) {
	select {
	case l.accepted <- a:
	case <-l.ctx.Done():
		if a.conn != nil {
			_ = a.conn.Abort() // nobody will ever use it
		}
	}
}

// Accept waits for the next connection whose preamble has come. It also returns
// temporary errors, such as too many open files; it can be called again after them.
func (l *Listener) Accept(ctx context.Context) (transport.Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	closed := fmt.Errorf("accept on %v: %w", l.socket.Addr(), net.ErrClosed)
	if l.ctx.Err() != nil { // goes first
		return nil, closed
	}
	select {
	case a := <-l.accepted:
		if a.err != nil {
			return nil, fmt.Errorf("accept on %v: %w", l.socket.Addr(), a.err)
		}
		return a.conn, nil
	case <-l.ctx.Done():
		return nil, closed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Network returns transport.TCP.
func (l *Listener) Network() string { return transport.TCP }

// Addrs returns the socket's address.
func (l *Listener) Addrs() []netip.AddrPort { return addrPorts(l.socket.Addr()) }

// Close stops listening. Connections that were accepted stay.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		l.cancel()
		if err := l.socket.Close(); !errors.Is(err, net.ErrClosed) {
			l.closeErr = err
		}
		l.running.Wait()
	})
	return l.closeErr
}
