package transport

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNetwork records what it is asked for.
type fakeNetwork struct {
	name      string
	available error
	dial      func(ctx context.Context) (Conn, error)
	busy      []uint16 // ports that Listen refuses, first to last
	free      uint16   // next port given for 0
	listening []uint16
	closed    int
}

type fakeConn struct {
	Conn
	network string
}

func (c fakeConn) Network() string { return c.network }

type fakeListener struct {
	Listener
	n    *fakeNetwork
	addr netip.AddrPort
}

func (l fakeListener) Network() string         { return l.n.name }
func (l fakeListener) Addrs() []netip.AddrPort { return []netip.AddrPort{l.addr} }
func (l fakeListener) Close() error            { l.n.closed++; return nil }

func (n *fakeNetwork) Name() string     { return n.name }
func (n *fakeNetwork) Available() error { return n.available }

func (n *fakeNetwork) Dial(ctx context.Context, _, _ []netip.AddrPort, _ Options) (Conn, error) {
	if n.dial != nil {
		return n.dial(ctx)
	}
	return fakeConn{network: n.name}, nil
}

func (n *fakeNetwork) Listen(_ context.Context, local []netip.AddrPort, _ Options) (Listener, error) {
	port := local[0].Port()
	if port == 0 {
		n.free++
		port = n.free
	}
	if slices.Contains(n.busy, port) {
		return nil, syscall.EADDRINUSE
	}
	n.listening = append(n.listening, port)
	return fakeListener{n: n, addr: netip.AddrPortFrom(local[0].Addr(), port)}, nil
}

var errRefused = errors.New("refused")

func refuse(context.Context) (Conn, error) { return nil, errRefused }

func hang(ctx context.Context) (Conn, error) { <-ctx.Done(); return nil, ctx.Err() }

func TestNetworksDial(t *testing.T) {
	auto := Endpoint{Auto, []string{"127.0.0.1"}, 1}
	tests := []struct {
		name string
		sctp *fakeNetwork
		e    Endpoint
		want string // network, or "" for an error
	}{
		{"SCTP where there is", &fakeNetwork{name: SCTP}, auto, SCTP},
		{"TCP where there is no SCTP", &fakeNetwork{name: SCTP, available: ErrUnsupported}, auto, TCP},
		{"TCP when SCTP is refused", &fakeNetwork{name: SCTP, dial: refuse}, auto, TCP},
		{"TCP when SCTP is silent", &fakeNetwork{name: SCTP, dial: hang}, auto, TCP},
		{"named network only", &fakeNetwork{name: SCTP, dial: refuse}, Endpoint{SCTP, auto.Hosts, 1}, ""},
		{"named network not there", &fakeNetwork{name: SCTP, available: ErrUnsupported}, Endpoint{SCTP, auto.Hosts, 1}, ""},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			n := NewNetworks(&fakeNetwork{name: TCP}, tt.sctp)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, err := n.Dial(ctx, nil, tt.e, Options{})
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("%s: dialled by %s", tt.name, conn.Network())
			case tt.want != "" && (err != nil || conn.Network() != tt.want):
				t.Errorf("%s: %v, %v; want %s", tt.name, conn, err, tt.want)
			}
		})
	}
	if _, err := NewNetworks().Dial(t.Context(), nil, auto, Options{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no network at all: %v", err)
	}
}

func TestNetworksListenAuto(t *testing.T) {
	any := Endpoint{Auto, []string{""}, 0}
	t.Run("both on one port", func(t *testing.T) {
		sctp, tcp := &fakeNetwork{name: SCTP}, &fakeNetwork{name: TCP, busy: []uint16{1, 2}}
		ls, err := NewNetworks(tcp, sctp).Listen(t.Context(), any, Options{})
		if err != nil || len(ls) != 2 || ls[0].Addrs()[0].Port() != 3 || ls[1].Addrs()[0].Port() != 3 {
			t.Fatalf("%v, %v; want two listeners on port 3", ls, err)
		}
		if sctp.closed != 2 {
			t.Errorf("%d listeners closed on the way, want 2", sctp.closed)
		}
	})
	t.Run("TCP alone where there is no SCTP", func(t *testing.T) {
		n := NewNetworks(&fakeNetwork{name: SCTP, available: ErrUnsupported}, &fakeNetwork{name: TCP})
		ls, err := n.Listen(t.Context(), any, Options{})
		if err != nil || len(ls) != 1 || ls[0].Network() != TCP {
			t.Fatalf("%v, %v; want TCP", ls, err)
		}
		if got := n.Available(); !slices.Equal(got, []string{TCP}) {
			t.Errorf("available: %v", got)
		}
	})
	t.Run("all or nothing", func(t *testing.T) {
		sctp, tcp := &fakeNetwork{name: SCTP}, &fakeNetwork{name: TCP, busy: []uint16{9}}
		ls, err := NewNetworks(tcp, sctp).Listen(t.Context(), Endpoint{Auto, []string{""}, 9}, Options{})
		if !errors.Is(err, syscall.EADDRINUSE) || ls != nil || sctp.closed != 1 {
			t.Errorf("%v, %v, %d closed; want an error and SCTP closed", ls, err, sctp.closed)
		}
	})
}

func TestWithoutSaysWhy(t *testing.T) {
	n := NewNetworks(Without(SCTP, "TLS over SCTP is not available"))
	if names := n.Available(); len(names) != 0 {
		t.Errorf("available: %v", names)
	}
	_, err := n.Dial(t.Context(), nil, Endpoint{Network: SCTP, Hosts: []string{"192.0.2.1"}, Port: 1}, Options{})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "TLS over SCTP is not available") {
		t.Errorf("dial: %v", err)
	}
	if _, err := n.Listen(t.Context(), Endpoint{Network: Auto, Hosts: []string{""}}, Options{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("listen: %v", err)
	}
}
