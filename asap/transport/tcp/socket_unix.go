//go:build unix

package tcp

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDiscard limits how much a close reads for nothing.
const maxDiscard = 1 << 20

func reusePort(_, _ string, raw syscall.RawConn) error {
	var err error
	ctlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(ctlErr, err)
}

// discardUnread reads what has arrived, as far as that goes without waiting. It
// works beside a goroutine that waits in Read.
func discardUnread(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // fails when closed: nothing to do
		var buf [4096]byte
		for range maxDiscard / len(buf) {
			if n, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT); n <= 0 || err != nil {
				return
			}
		}
	})
}
