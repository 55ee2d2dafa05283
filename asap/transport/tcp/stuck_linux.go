package tcp

import (
	"time"

	"golang.org/x/sys/unix"
)

// Stuck reports whether the peer's kernel has not acknowledged for so long what
// was sent, so that retransmissions set the pace. A peer whose process is slow to
// read does not make a connection stuck.
func (c *conn) Stuck(since time.Duration) bool {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return true
	}
	stuck := true // so is a closed one
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			silent := time.Duration(info.Last_ack_recv) * time.Millisecond
			stuck = info.Unacked > 0 && (silent >= since || info.Retransmits > 0)
		}
	})
	return stuck
}
