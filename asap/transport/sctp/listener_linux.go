//go:build !386

package sctp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

// acceptPause keeps a listener that is out of descriptors from spinning.
const acceptPause = 50 * time.Millisecond

// listener has no goroutine of its own.
type listener struct {
	file   *os.File
	raw    syscall.RawConn
	addrs  []netip.AddrPort
	opt    transport.Options
	closed atomic.Bool

	turn      chan struct{} // holds a token while somebody accepts
	interrupt *transport.Interrupter

	closing  sync.Once
	closeErr error
}

func newListener(fd int, addrs []netip.AddrPort, opt transport.Options) (*listener, error) {
	file := os.NewFile(uintptr(fd), "sctp listener")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &listener{
		file: file, raw: raw, addrs: addrs, opt: opt,
		turn:      make(chan struct{}, 1),
		interrupt: transport.NewInterrupter(file.SetReadDeadline),
	}, nil
}

func (l *listener) Network() string         { return transport.SCTP }
func (l *listener) Addrs() []netip.AddrPort { return l.addrs }

// Accept also returns temporary errors, such as too many open files, after a
// short pause; it can be called again after them.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.accept(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("accept on sctp %s: %w", l.addrs[0], err)
	}
	return c, err
}

func (l *listener) accept(ctx context.Context) (transport.Conn, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		if err := l.interrupt.Arm(ctx); err != nil {
			return nil, err
		}
		fd, failed := -1, error(nil)
		err := l.raw.Read(func(lfd uintptr) bool {
			fd, _, failed = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case l.closed.Load():
			if fd >= 0 {
				_ = unix.Close(fd) // nobody will ever use it
			}
			return nil, net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // of ctx, or of an earlier one just before it was disarmed
		case err != nil:
			return nil, err
		case errors.Is(failed, unix.EINTR), errors.Is(failed, unix.ECONNABORTED):
			continue
		case failed != nil:
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			return nil, os.NewSyscallError("accept4", failed)
		}
		file := os.NewFile(uintptr(fd), "sctp")
		c, err := newConn(file, l.opt)
		if err != nil {
			_ = file.Close() // gone before it was accepted
			continue
		}
		return c, nil
	}
}

func (l *listener) Close() error {
	l.closing.Do(func() {
		l.closed.Store(true)
		l.closeErr = l.file.Close()
		l.interrupt.Release()
	})
	return l.closeErr
}
