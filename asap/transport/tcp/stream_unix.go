//go:build unix && !linux

package tcp

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

func newStream(tcp *net.TCPConn) net.Conn { return tcp }

// tryWrite writes what the kernel takes at once, which may be nothing.
func tryWrite(fd uintptr, b []byte) (int, error) {
	n, err := unix.Write(int(fd), b)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return max(n, 0), err
}
