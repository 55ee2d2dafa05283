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
	"unsafe"

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
	conn := kernel.NewSCTPConn(fd, nil)
	streams := int(opt.Streams)
	if err := conn.SetInitMsg(streams, streams, 0, 0); err != nil {
		return os.NewSyscallError("set streams", err)
	}
	// Data I/O brings the PPID and the stream of each message.
	if err := conn.SubscribeEvents(kernel.SCTP_EVENT_DATA_IO | kernel.SCTP_EVENT_ASSOCIATION | kernel.SCTP_EVENT_ADDRESS |
		kernel.SCTP_EVENT_SHUTDOWN | kernel.SCTP_EVENT_PARTIAL_DELIVERY); err != nil {
		return os.NewSyscallError("subscribe to events", err)
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
	return setRetransmission(conn, opt)
}

// setRetransmission sets the limits for paths and associations to come (RFC
// 6458, sections 8.1.2 and 8.1.12). Zero leaves what the kernel has.
func setRetransmission(conn *kernel.SCTPConn, opt transport.Options) error {
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
		if err := setOption(conn, kernel.SCTP_PEER_ADDR_PARAMS, params[:]); err != nil {
			return os.NewSyscallError("set path parameters", err)
		}
	}
	if opt.AssocMaxRetrans > 0 {
		// struct sctp_assocparams: association 4, retransmissions 2, number
		// of peer addresses 2, windows 4 + 4, cookie life 4.
		var params [20]byte
		binary.NativeEndian.PutUint16(params[4:], opt.AssocMaxRetrans)
		if err := setOption(conn, kernel.SCTP_ASSOCINFO, params[:]); err != nil {
			return os.NewSyscallError("set association parameters", err)
		}
	}
	return nil
}

func setOption(conn *kernel.SCTPConn, name uintptr, value []byte) error {
	_, _, err := conn.Setsockopt(name, uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)))
	return err
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
	return os.NewSyscallError("bind", kernel.SCTPBind(fd, kernelAddr(addrs), kernel.SCTP_BINDX_ADD_ADDR))
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
	err = bind(fd, local)
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
	_, err := kernel.SCTPConnect(fd, kernelAddr(remote))
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connectx", err)
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
		return true, os.NewSyscallError("connectx", syscall.Errno(errno))
	}
	return err != nil, os.NewSyscallError("getsockopt", err)
}

// kernelAddr turns addresses that share a port into the package's form.
func kernelAddr(addrs []netip.AddrPort) *kernel.SCTPAddr {
	out := &kernel.SCTPAddr{Port: int(addrs[0].Port())}
	for _, a := range addrs {
		out.IPAddrs = append(out.IPAddrs, net.IPAddr{IP: a.Addr().AsSlice(), Zone: a.Addr().Zone()})
	}
	return out
}

// associationAddrs returns the addresses at both ends, in front the peer's primary
// address and the one that we use towards it.
func associationAddrs(fd int) (local, remote []netip.AddrPort, err error) {
	conn := kernel.NewSCTPConn(fd, nil)
	ours, err := conn.SCTPLocalAddr(0)
	if err != nil {
		return nil, nil, os.NewSyscallError("get local addresses", err)
	}
	theirs, err := conn.SCTPRemoteAddr(0)
	if err != nil {
		return nil, nil, os.NewSyscallError("get peer addresses", err)
	}
	local, remote = addrPorts(ours), addrPorts(theirs)
	if len(remote) > 1 {
		if primary, err := conn.SCTPGetPrimaryPeerAddr(); err == nil {
			toFront(remote, addrPorts(primary)[0].Addr())
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

func addrPorts(a *kernel.SCTPAddr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ip := range a.IPAddrs {
		addr, _ := netip.AddrFromSlice(ip.IP)
		addr = addr.Unmap()
		if addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(ip.Zone) // the kernel gives one to others too
		}
		out = append(out, netip.AddrPortFrom(addr, uint16(a.Port)))
	}
	return out
}
