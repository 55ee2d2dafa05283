//go:build linux && !386

package sctp

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

// A message that the kernel took counts as sent although the connection is closed at
// that moment: sessions send what was not sent to another element.
func TestSentBeforeTheClose(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "test")
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{
		file: file, raw: raw, writing: make(chan struct{}, 1),
		reads:  transport.NewInterrupter(file.SetReadDeadline),
		writes: transport.NewInterrupter(file.SetWriteDeadline),
	}
	c.writeFn = func(fd uintptr) bool {
		c.closed.Store(true)
		return c.writeOnce(fd)
	}
	if err := c.Send(t.Context(), transport.Message{Data: []byte("once")}); err != nil {
		t.Errorf("send: %v", err)
	}
	buf := make([]byte, 10)
	if n, err := unix.Read(fds[1], buf); err != nil || string(buf[:n]) != "once" {
		t.Errorf("the peer got %q, %v", buf[:max(n, 0)], err)
	}
	if err := c.Abort(); err != nil {
		t.Error(err)
	}
}
