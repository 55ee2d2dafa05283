package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Links over bare sockets are watched together by one goroutine: one for each costs a
// third more, of processors that the servers need.

// socket is a connection that the scheduler does not know. One goroutine uses it.
// Nothing waits for reads: there may be nothing to read.
type socket struct {
	net.Conn // closed
	fd       int
}

// bare takes a TCP connection from the scheduler.
func bare(c net.Conn) (net.Conn, error) {
	s := &socket{Conn: c, fd: -1}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }), err)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *socket) Close() (err error) {
	if s.fd >= 0 {
		err = unix.Close(s.fd)
		s.fd = -1
	}
	return err
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.call(unix.SYS_READ, b)
	switch {
	case err == unix.EAGAIN:
		return 0, nil
	case err != 0:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := s.call(unix.SYS_WRITE, b[n:])
		switch err {
		case 0:
			n += m
		case unix.EAGAIN:
			room := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			if m, err := unix.Poll(room, int(patience/time.Millisecond)); m == 0 && err == nil {
				return n, fmt.Errorf("a server takes nothing for %s", patience)
			}
		default:
			return n, os.NewSyscallError("write", err)
		}
	}
	return n, nil
}

func (s *socket) call(what uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(what, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// socketOf returns the socket of a link, nil if it has none.
func socketOf(l link) *socket {
	if r, ok := l.(*registrationLink); ok {
		s, _ := r.Conn.(*socket)
		return s
	}
	return nil
}

// watched reports whether watch can run the links.
func watched(links []link) bool { return socketOf(links[0]) != nil }

// watchPause is how often watch looks whether it is to end.
const watchPause = 100 * time.Millisecond

// watch runs links over sockets.
func watch(ctx context.Context, paces []*pace) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(epoll)
	for i, p := range paces {
		ready := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, socketOf(p.link).fd, &ready); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
		if err := p.start(); err != nil {
			return err
		}
	}
	ready := make([]unix.EpollEvent, len(paces))
	for left := len(paces); left > 0 && ctx.Err() == nil; {
		n, err := unix.EpollWait(epoll, ready, int(watchPause/time.Millisecond))
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			p := paces[ready[i].Fd]
			over := p.over() // and a keep-alive has come
			if err := p.step(); err != nil {
				return err
			}
			if !over && p.over() {
				left--
			}
		}
	}
	return nil
}
