//go:build !unix

package tcp

import (
	"fmt"
	"net"
	"syscall"

	"rserpool/asap/transport"
)

func reusePort(_, _ string, _ syscall.RawConn) error {
	return fmt.Errorf("port reuse: %w", transport.ErrUnsupported)
}

func discardUnread(*net.TCPConn) {}
