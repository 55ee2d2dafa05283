//go:build !386

package sctp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	kernel "github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// The package's own calls hand pointers on as integers, through functions in
// which the stack may move: the kernel then writes where nothing is any more. So
// the system calls are made here.

// setOption sets a socket option to the octets of *value.
func setOption[T any](fd, name int, value *T) error {
	return setOptionBytes(fd, name, unsafe.Slice((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value)))
}

func setOptionBytes(fd, name int, value []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), kernel.SOL_SCTP, uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	if errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}

// getOption reads a socket option; what value has before is the question.
func getOption(fd, name int, value []byte) error {
	return getOptionOf(fd, kernel.SOL_SCTP, name, value)
}

func getOptionOf(fd, level, name int, value []byte) error {
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

// unacknowledged returns how much memory the kernel has for messages that were sent and
// not acknowledged.
func unacknowledged(fd int) (uint32, error) {
	// Words of SO_MEMINFO: received, its limit, being sent, its limit, reserve, queued
	// until acknowledged, options, backlog, drops.
	var words [9 * 4]byte
	err := getOptionOf(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, words[:])
	return binary.NativeEndian.Uint32(words[5*4:]), err
}

// sockaddrs turns addresses that share a port into the form of bindx and
// connectx, one sockaddr_in or sockaddr_in6 behind the other.
func sockaddrs(addrs []netip.AddrPort) []byte {
	list := kernel.SCTPAddr{Port: int(addrs[0].Port())}
	for _, a := range addrs {
		list.IPAddrs = append(list.IPAddrs, net.IPAddr{IP: a.Addr().AsSlice(), Zone: a.Addr().Zone()})
	}
	return list.ToRawSockAddrBuf()
}

// getAddrs returns the addresses at one end of an association.
func getAddrs(fd, name int) ([]netip.AddrPort, error) {
	// struct sctp_getaddrs: association 4, number 4, sockaddrs.
	var answer [8 + 4096]byte
	if err := getOption(fd, name, answer[:]); err != nil {
		return nil, err
	}
	rest := answer[8:]
	n := int(binary.NativeEndian.Uint32(answer[4:]))
	addrs := make([]netip.AddrPort, min(n, len(rest)/unix.SizeofSockaddrInet4))
	for i := range addrs {
		size := sockaddrLen(rest)
		if size == 0 {
			return nil, fmt.Errorf("address %d of %d is not readable", i+1, len(addrs))
		}
		addrs[i] = parseSockaddr(rest)
		rest = rest[size:]
	}
	if len(addrs) == 0 {
		return nil, os.NewSyscallError("getsockopt", unix.ENOTCONN)
	}
	return addrs, nil
}

// sockaddrLen returns the length of the sockaddr at the beginning of b, or 0.
func sockaddrLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	size := 0
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		size = unix.SizeofSockaddrInet4
	case unix.AF_INET6:
		size = unix.SizeofSockaddrInet6
	}
	if size > len(b) {
		return 0
	}
	return size
}

// parseSockaddr reads a sockaddr_in or a sockaddr_in6, IPv4-mapped addresses as
// IPv4. Anything else gives the zero value.
func parseSockaddr(b []byte) netip.AddrPort {
	if sockaddrLen(b) == 0 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	if binary.NativeEndian.Uint16(b) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	}
	addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	if addr.IsLinkLocalUnicast() { // the kernel gives a scope to others, too
		if i, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(b[24:]))); err == nil {
			addr = addr.WithZone(i.Name)
		}
	}
	return netip.AddrPortFrom(addr, port)
}
