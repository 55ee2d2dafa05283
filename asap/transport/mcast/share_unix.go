//go:build unix

package mcast

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharePort lets several processes of a machine receive announcements.
func sharePort(_, _ string, raw syscall.RawConn) error {
	var err error
	ctlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(ctlErr, err)
}
