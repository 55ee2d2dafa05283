package transporttest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"rserpool/asap/transport"
)

func testAddresses(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	client, server := connect(t, sides, l, transport.Options{})
	name := sides.Server.Name()
	if l.Network() != name || client.Network() != name || server.Network() != name {
		t.Errorf("networks %s, %s, %s; want %s", l.Network(), client.Network(), server.Network(), name)
	}
	if port := l.Addrs()[0].Port(); port == 0 || slices.ContainsFunc(l.Addrs(), func(a netip.AddrPort) bool { return a.Port() != port }) {
		t.Errorf("the listener's addresses are %v; want one real port", l.Addrs())
	}
	for _, addrs := range [][]netip.AddrPort{client.LocalAddrs(), client.RemoteAddrs(), server.LocalAddrs(), server.RemoteAddrs()} {
		for _, a := range addrs {
			if a.Addr().IsUnspecified() || a.Addr().Is4In6() || a.Port() == 0 {
				t.Errorf("address %v of a connection", a)
			}
		}
	}
	same := func(what string, a, b []netip.AddrPort) {
		if len(a) == 0 || !slices.ContainsFunc(a, func(x netip.AddrPort) bool { return slices.Contains(b, x) }) {
			t.Errorf("%s: %v at the client, %v at the server", what, a, b)
		}
	}
	same("the client's addresses", client.LocalAddrs(), server.RemoteAddrs())
	same("the server's addresses", client.RemoteAddrs(), server.LocalAddrs())
	if client.RemoteAddrs()[0].Port() != l.Addrs()[0].Port() {
		t.Errorf("connected to %v, listening on %v", client.RemoteAddrs(), l.Addrs())
	}
}

func testPeerCloses(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	send(t, client, message(1, 8), message(2, 1000))
	if err := client.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	check(t, receive(t, server), 1, 8)
	check(t, receive(t, server), 2, 1000)
	for range 2 {
		if _, err := server.Receive(patient(t), make([]byte, 100)); err != io.EOF {
			t.Errorf("receive after the peer closed: %v, want io.EOF", err)
		}
	}
	waitFor(t, server, transport.Down)
}

func testPeerAborts(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	if err := client.Abort(); err != nil {
		t.Errorf("abort: %v", err)
	}
	_, err := server.Receive(patient(t), make([]byte, 100))
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("receive after the peer aborted: %v, want an error that is not the orderly end", err)
	}
	if e := waitFor(t, server, transport.Down); e.Err == nil {
		t.Error("the Down event says no reason")
	}
}

// later runs f soon, while the test waits in some call, and at the end waits
// for it.
func later(t *testing.T, f func() error) {
	var done sync.WaitGroup
	done.Go(func() {
		time.Sleep(20 * time.Millisecond)
		if err := f(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(done.Wait)
}

func testCloseWakesReceive(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	for name, end := range map[string]func(transport.Conn) error{"close": transport.Conn.Close, "abort": transport.Conn.Abort} {
		_, server := connect(t, sides, l, transport.Options{})
		later(t, func() error { return end(server) })
		if _, err := server.Receive(patient(t), make([]byte, 100)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("receive during %s: %v, want net.ErrClosed", name, err)
		}
	}
}

func testCloseWakesSend(t *testing.T, s Suite) {
	client, _ := s.pair(t, transport.Options{})
	later(t, client.Close)
	for {
		if err := client.Send(patient(t), message(1, 60000)); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("close did not wake a sender")
			}
			return
		}
	}
}

func testClosedConn(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	send(t, client, message(1, 8))
	receive(t, server)
	send(t, client, message(2, 8))
	for range 2 {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := server.Abort(); err != nil {
		t.Errorf("abort after close: %v", err)
	}
	if _, err := server.Receive(patient(t), make([]byte, 100)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive on a closed connection: %v, want net.ErrClosed", err)
	}
	if err := server.Send(patient(t), message(1, 8)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send on a closed connection: %v, want net.ErrClosed", err)
	}
	if server.Buffered() {
		t.Error("a closed connection has something buffered")
	}
}

func testCloseWakesAccept(t *testing.T, s Suite) {
	_, l := s.listen(t, transport.Options{})
	later(t, l.Close)
	for range 2 {
		if _, err := l.Accept(patient(t)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v, want net.ErrClosed", err)
		}
	}
}

func testAcceptEndsWithContext(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer time.AfterFunc(20*time.Millisecond, func() { cancel(errEnough) }).Stop()
	for range 2 {
		if c, err := l.Accept(ctx); !errors.Is(err, errEnough) {
			t.Errorf("accept: %v, %v, want the context's cause", c, err)
		}
	}
	client, server := connect(t, sides, l, transport.Options{})
	send(t, client, message(1, 8))
	check(t, receive(t, server), 1, 8)
}

func testListenerGoes(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	client, server := connect(t, sides, l, transport.Options{})
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("close the listener: %v", err)
		}
	}
	send(t, client, message(1, 8))
	check(t, receive(t, server), 1, 8)
	send(t, server, message(2, 8))
	check(t, receive(t, client), 2, 8)
}

func testDialNobody(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	addrs := l.Addrs()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := patient(t)
	if c, err := sides.Client.Dial(ctx, nil, addrs, transport.Options{}); err == nil || ctx.Err() != nil {
		t.Errorf("dial where nobody listens: %v, %v; want an error at once", c, err)
	}
	if c, err := sides.Client.Dial(ctx, nil, nil, transport.Options{}); err == nil {
		t.Errorf("dial without an address: %v", c)
	}
	if l, err := sides.Server.Listen(ctx, nil, transport.Options{}); err == nil {
		t.Errorf("listen without an address: %v", l)
	}
}

func testDialEndedContext(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	if c, err := sides.Client.Dial(ctx, nil, l.Addrs(), transport.Options{}); !errors.Is(err, errEnough) {
		t.Errorf("dial with an ended context: %v, %v; want its cause", c, err)
	}
}

func testDialFromAddress(t *testing.T, s Suite) {
	sides, l := s.listen(t, transport.Options{})
	first, _ := connect(t, sides, l, transport.Options{})
	from := netip.AddrPortFrom(first.LocalAddrs()[0].Addr(), 0)
	client, err := sides.Client.Dial(patient(t), []netip.AddrPort{from}, l.Addrs(), transport.Options{})
	if err != nil {
		t.Fatalf("dial from %v: %v", from, err)
	}
	defer client.Close()
	server, err := l.Accept(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got := server.RemoteAddrs(); len(got) != 1 || got[0].Addr() != from.Addr() {
		t.Errorf("the server sees %v, dialled from %v", got, from)
	}
}

func testManyConnections(t *testing.T, s Suite) {
	const count = 50
	sides, l := s.listen(t, transport.Options{})
	var done sync.WaitGroup
	for i := range count {
		client, server := connect(t, sides, l, transport.Options{})
		done.Go(func() { // echo until the end
			defer server.Close()
			buf := make([]byte, 1000)
			for {
				m, err := server.Receive(patient(t), buf)
				if err == nil {
					err = server.Send(patient(t), m)
				}
				if err != nil {
					return
				}
			}
		})
		done.Go(func() {
			defer client.Close()
			buf := make([]byte, 1000)
			for j := range 20 {
				if err := client.Send(patient(t), message(i*100+j, 100)); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				m, err := client.Receive(patient(t), buf)
				if err != nil || string(m.Data) != string(message(i*100+j, 100).Data) {
					t.Errorf("connection %d, message %d: %.8x, %v", i, j, m.Data, err)
					return
				}
			}
		})
	}
	done.Wait()
}
