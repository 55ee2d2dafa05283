package sidecar

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwaitNone(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		counts []int // one each 100 ms, the last one stays; -1 fails
		took   time.Duration
		left   int
		err    error
	}{
		{"NoneAtAll", []int{0}, 0, 0, nil},
		{"TheyEnd", []int{3, 2, 2, 1, 0}, 400 * time.Millisecond, 0, nil},
		{"TheyDont", []int{3, 2}, time.Second, 2, nil},
		{"NobodyKnows", []int{2, -1}, 100 * time.Millisecond, 0, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second-time.Millisecond)
				defer cancel()
				began := time.Now()
				left, err := AwaitNone(ctx, func() (int, error) {
					n := tt.counts[0]
					if len(tt.counts) > 1 {
						tt.counts = tt.counts[1:]
					}
					if n < 0 {
						return 0, broken
					}
					return n, nil
				})
				if took := time.Since(began).Round(10 * time.Millisecond); took != tt.took || left != tt.left || !errors.Is(err, tt.err) {
					t.Errorf("after %v: %d left, %v", took, left, err)
				}
			})
		})
	}
}

func TestTableOfSockets(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:D432 08 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 0100007F:1F90 0100007F:D433 06 00000000:00000000 03:00000000 00000000     0        0 0 3
   5: 0100007F:1F91 0100007F:D434 01 00000000:00000000 00:00000000 00000000     0        0 5 1
   6: nonsense
`
	for want, ports := range map[int][]uint16{0: {80}, 2: {8080}, 3: {8080, 8081}} {
		if n, err := countConnections(strings.NewReader(table), ports); n != want || err != nil {
			t.Errorf("ports %v: %d, %v, want %d", ports, n, err, want)
		}
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	count := func(want int) {
		t.Helper()
		if n, err := Connections(port); err != nil {
			t.Skip("the system does not tell:", err)
		} else if n != want {
			t.Errorf("%d connections, want %d", n, want)
		}
	}
	count(0)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	count(1)
	server.Close()
	client.Close()
	count(0)
}
