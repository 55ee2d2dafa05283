//go:build !386

package sctp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	kernel "github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

func available() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := openSocket(family)
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.EAFNOSUPPORT) {
			return err
		}
	}
	return fmt.Errorf("%w: neither IPv4 nor IPv6", transport.ErrUnsupported)
}

func openSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
		return -1, fmt.Errorf("%w: this kernel has no SCTP (modprobe sctp, as root, loads it where it is a module)", transport.ErrUnsupported)
	case err != nil:
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}

// newSocket opens a socket that can have all of the addresses and has the
// options set. Associations inherit the options of the listening socket.
func newSocket(addrs []netip.AddrPort, opt transport.Options) (int, error) {
	family := unix.AF_INET
	if slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return a.Addr().Is6() }) {
		family = unix.AF_INET6
	}
	fd, err := openSocket(family)
	if err != nil {
		return -1, err
	}
	if err := setOptions(fd, family, opt); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func setOptions(fd, family int, opt transport.Options) error {
	streams := kernel.InitMsg{NumOstreams: opt.Streams, MaxInstreams: opt.Streams}
	if err := setOption(fd, kernel.SCTP_INITMSG, &streams); err != nil {
		return fmt.Errorf("set streams: %w", err)
	}
	// Data I/O brings the PPID and the stream of each message.
	events := kernel.EventSubscribe{DataIO: 1, Association: 1, Address: 1, Shutdown: 1, PartialDelivery: 1}
	if err := setOption(fd, kernel.SCTP_EVENTS, &events); err != nil {
		return fmt.Errorf("subscribe to events: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, kernel.SCTP_NODELAY, 1); err != nil {
		return os.NewSyscallError("set nodelay", err)
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return os.NewSyscallError("allow IPv4", err)
		}
	}
	if opt.ReusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("reuse port", err)
		}
	}
	return setRetransmission(fd, opt)
}

// setRetransmission sets the limits for paths and associations to come (RFC
// 6458, sections 8.1.2 and 8.1.12). Zero leaves what the kernel has.
func setRetransmission(fd int, opt transport.Options) error {
	if opt.Heartbeat > 0 || opt.PathMaxRetrans > 0 {
		const heartbeatEnable = 1
		// struct sctp_paddrparams: association 4, address 128, heartbeat
		// interval in ms 4, path retransmissions 2, path MTU 4, SACK delay
		// 4, flags 4, IPv6 flow label 4, DSCP 1, padding.
		var params [156]byte
		if opt.Heartbeat > 0 {
			ms := min(max(opt.Heartbeat, time.Millisecond)/time.Millisecond, 1<<31-1)
			binary.NativeEndian.PutUint32(params[132:], uint32(ms))
			binary.NativeEndian.PutUint32(params[146:], heartbeatEnable)
		}
		binary.NativeEndian.PutUint16(params[136:], opt.PathMaxRetrans)
		if err := setOption(fd, kernel.SCTP_PEER_ADDR_PARAMS, &params); err != nil {
			return fmt.Errorf("set path parameters: %w", err)
		}
	}
	if opt.AssocMaxRetrans > 0 {
		// struct sctp_assocparams: association 4, retransmissions 2, number
		// of peer addresses 2, windows 4 + 4, cookie life 4.
		var params [20]byte
		binary.NativeEndian.PutUint16(params[4:], opt.AssocMaxRetrans)
		if err := setOption(fd, kernel.SCTP_ASSOCINFO, &params); err != nil {
			return fmt.Errorf("set association parameters: %w", err)
		}
	}
	return nil
}

// bind binds to all the addresses.
func bind(fd int, addrs []netip.AddrPort) error {
	if len(addrs) == 0 {
		return nil
	}
	for _, a := range addrs[1:] {
		if a.Port() != addrs[0].Port() {
			return fmt.Errorf("the addresses %v do not share one port", addrs)
		}
	}
	if err := setOptionBytes(fd, kernel.SCTP_SOCKOPT_BINDX_ADD, sockaddrs(addrs)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func listen(local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	if len(local) == 0 {
		return nil, errors.New("no local address")
	}
	fd, err := newSocket(local, opt)
	if errors.Is(err, unix.EAFNOSUPPORT) && local[0].Addr() == netip.IPv6Unspecified() {
		local = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), local[0].Port())}
		fd, err = newSocket(local, opt)
	}
	if err != nil {
		return nil, err
	}
	// Associations of a former life may take long to end, where the peer has
	// gone. Another listener is still refused.
	err = os.NewSyscallError("reuse address", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if err == nil {
		err = bind(fd, local)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN))
	}
	var port uint16
	if err == nil {
		port, err = localPort(fd)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	addrs := make([]netip.AddrPort, len(local))
	for i, a := range local {
		addrs[i] = netip.AddrPortFrom(a.Addr(), port)
	}
	return newListener(fd, addrs, opt)
}

func localPort(fd int) (uint16, error) {
	name, err := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(name.Port), nil
	case *unix.SockaddrInet6:
		return uint16(name.Port), nil
	}
	return 0, os.NewSyscallError("getsockname", err)
}

func dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(remote) == 0 {
		return nil, errors.New("no remote address")
	}
	for _, a := range remote[1:] {
		if a.Port() != remote[0].Port() {
			return nil, fmt.Errorf("the addresses %v do not share one port", remote)
		}
	}
	c, err := dialFrom(ctx, local, remote, opt)
	if errors.Is(err, unix.EADDRNOTAVAIL) && opt.ReusePort && len(local) > 0 && local[0].Port() != 0 {
		// From this port there is an association with the peer already, or
		// still, when an earlier one could not be shut down.
		free := make([]netip.AddrPort, len(local))
		for i, a := range local {
			free[i] = netip.AddrPortFrom(a.Addr(), 0)
		}
		c, err = dialFrom(ctx, free, remote, opt)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func dialFrom(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (*conn, error) {
	local = withoutUnspecified(local)
	fd, err := newSocket(slices.Concat(local, remote), opt)
	if err != nil {
		return nil, err
	}
	if err := bind(fd, local); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "sctp")
	if err := connect(ctx, file, fd, remote); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	c, err := newConn(file, opt)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return c, nil
}

// withoutUnspecified leaves out a single unspecified address without a port:
// binding to it says nothing, but would fix the address family.
func withoutUnspecified(local []netip.AddrPort) []netip.AddrPort {
	if len(local) == 1 && local[0].Addr().IsUnspecified() && local[0].Port() == 0 {
		return nil
	}
	return local
}

// connect starts an association with all the peer's addresses and waits until it
// is up.
func connect(ctx context.Context, file *os.File, fd int, remote []netip.AddrPort) error {
	err := setOptionBytes(fd, kernel.SCTP_SOCKOPT_CONNECTX, sockaddrs(remote))
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	interrupt := transport.NewInterrupter(file.SetWriteDeadline)
	defer interrupt.Release()
	if err := interrupt.Arm(ctx); err != nil {
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, failed = connected(int(fd))
		return done
	})
	return errors.Join(interrupt.Cause(ctx, err), failed)
}

// connected tells whether the attempt to connect has ended, and how.
func connected(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	switch {
	case n == 0, errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return true, os.NewSyscallError("poll", err)
	case fds[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0:
		// Not a word about SO_ERROR: it also tells that one of the peer's
		// addresses was not reached.
		return true, nil
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		return true, os.NewSyscallError("connect", syscall.Errno(errno))
	}
	return err != nil, os.NewSyscallError("getsockopt", err)
}

// associationAddrs returns the addresses at both ends, in front the peer's primary
// address and the one that we use towards it.
func associationAddrs(fd int) (local, remote []netip.AddrPort, err error) {
	if local, err = getAddrs(fd, kernel.SCTP_GET_LOCAL_ADDRS); err != nil {
		return nil, nil, fmt.Errorf("get local addresses: %w", err)
	}
	if remote, err = getAddrs(fd, kernel.SCTP_GET_PEER_ADDRS); err != nil {
		return nil, nil, fmt.Errorf("get peer addresses: %w", err)
	}
	if len(remote) > 1 {
		var primary [4 + 128]byte // association, sockaddr_storage
		if err := getOption(fd, kernel.SCTP_PRIMARY_ADDR, primary[:]); err == nil {
			toFront(remote, parseSockaddr(primary[4:]).Addr())
		}
	}
	if len(local) > 1 {
		toFront(local, sourceFor(remote[0]))
	}
	return local, remote, nil
}

func toFront(addrs []netip.AddrPort, first netip.Addr) {
	i := slices.IndexFunc(addrs, func(a netip.AddrPort) bool { return a.Addr() == first })
	if i > 0 {
		a := addrs[i]
		copy(addrs[1:], addrs[:i])
		addrs[0] = a
	}
}

// sourceFor returns the address from which this machine sends to another one.
// The kernel doesn't tell for SCTP, but it does for UDP.
func sourceFor(remote netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(remote))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}
