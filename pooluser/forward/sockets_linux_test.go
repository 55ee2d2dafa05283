package forward

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both ends of what is forwarded find a peer whose host has vanished.
func TestSocketsFindAVanishedPeer(t *testing.T) {
	for _, tt := range []struct {
		dead                       time.Duration
		userTimeout, idle, between int // ms, s, s
	}{
		{30 * time.Second, 30_000, 10, 10},
		{time.Second, 1000, 1, 1},
		{0, 0, 15, 15}, // what the net package does
	} {
		l, err := Listen(t.Context(), "127.0.0.1:0", tt.dead)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dialled, err := DialStream(tt.dead)(context.Background(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		for end, c := range map[string]net.Conn{"client": accepted, "element": dialled} {
			for name, option := range map[string]struct{ number, want int }{
				"TCP_USER_TIMEOUT": {unix.TCP_USER_TIMEOUT, tt.userTimeout},
				"TCP_KEEPIDLE":     {unix.TCP_KEEPIDLE, tt.idle},
				"TCP_KEEPINTVL":    {unix.TCP_KEEPINTVL, tt.between},
			} {
				raw, err := c.(*net.TCPConn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var got int
				if err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option.number) }); err != nil {
					t.Fatal(err)
				}
				if err != nil || got != option.want {
					t.Errorf("dead after %v: %s's %s is %d, %v, want %d", tt.dead, end, name, got, err, option.want)
				}
			}
		}
	}
}
