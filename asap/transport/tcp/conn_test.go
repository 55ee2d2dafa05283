package tcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/transporttest"
)

// raw returns a Conn and the socket at its other end.
func raw(t *testing.T, opt transport.Options) (transport.Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := New().Dial(t.Context(), nil, []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return conn, peer.(*net.TCPConn)
}

// patience bounds what only takes so long when something hangs.
const patience = time.Minute

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAMB_02_BadLengthCloses(t *testing.T) {
	conn, peer := raw(t, transport.Options{})
	if _, err := peer.Write([]byte{5, 0, 0, 2, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Receive(within(t, patience), make([]byte, 100)); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("receive: %v, want %v", err, transport.ErrMalformed)
	}
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer reads %v; want the end of the connection", err)
	}
}

func TestEndInTheMiddle(t *testing.T) {
	for _, half := range []string{"\x05\x00", "\x05\x00\x00\x08", "\x05\x00\x00\x05abcde"[:5]} {
		conn, peer := raw(t, transport.Options{})
		if _, err := io.WriteString(peer, half); err != nil {
			t.Fatal(err)
		}
		peer.Close()
		for range 2 {
			if _, err := conn.Receive(within(t, patience), make([]byte, 100)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("receive after %q: %v, want %v", half, err, io.ErrUnexpectedEOF)
			}
		}
		if e := <-conn.Events(); e.Type != transport.Down || e.Err == nil {
			t.Errorf("event %+v, want Down with its reason", e)
		}
	}
}

func TestSendPadsAndChecks(t *testing.T) {
	conn, peer := raw(t, transport.Options{})
	msg := func(s string) transport.Message { return transport.Message{Data: []byte(s)} }
	for _, bad := range []string{"", "\x05\x00\x00", "\x05\x00\x00\x03", "\x05\x00\x00\x05", "\x05\x00\x00\x04abcd", "\x05\x00\x00\x09abcd"} {
		if err := conn.Send(t.Context(), msg("\x01\x00\x00\x04"), msg(bad)); !errors.Is(err, transport.ErrMalformed) {
			t.Errorf("send %q: %v, want %v", bad, err, transport.ErrMalformed)
		}
	}
	for _, m := range []string{"\x05\x00\x00\x07abc", "\x05\x00\x00\x06ab\x00", "\x05\x00\x00\x05a\x00\x00\x00"} {
		if err := conn.Send(t.Context(), msg(m)); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	got, err := io.ReadAll(peer)
	if want := "\x05\x00\x00\x07abc\x00\x05\x00\x00\x06ab\x00\x00\x05\x00\x00\x05a\x00\x00\x00"; err != nil || string(got) != want {
		t.Errorf("the peer got %q, %v; want %q", got, err, want)
	}
}

// TestSendBatchBeyondTheBuffer: a batch of any size arrives as it is.
func TestSendBatchBeyondTheBuffer(t *testing.T) {
	conn, peer := raw(t, transport.Options{})
	var batch []transport.Message
	var want bytes.Buffer
	for i := range 500 {
		m := framed(4 + i*29%3000)
		want.Write(m)
		batch = append(batch, transport.Message{Data: m})
	}
	received := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(peer) // compared below
		received <- got
	}()
	if err := conn.Send(t.Context(), batch...); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := <-received; !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d octets arrived, others than the %d sent", len(got), want.Len())
	}
}

// TestSendJoined: messages that lie together in memory, or nearly, arrive as they
// are.
func TestSendJoined(t *testing.T) {
	three := bytes.Join([][]byte{framed(8), framed(12), framed(4)}, nil)
	a, b, c := three[:8], three[8:20], three[20:]
	elsewhere := framed(12)
	clipped := bytes.Clone(three)[:8:8]
	tests := []struct {
		name   string
		msgs   [][]byte
		joined bool
	}{
		{"one", [][]byte{a}, true},
		{"all", [][]byte{a, b, c}, true},
		{"a gap", [][]byte{a, c}, false},
		{"another order", [][]byte{b, a}, false},
		{"the same twice", [][]byte{a, a}, false},
		{"one from elsewhere", [][]byte{a, elsewhere, c}, false},
		{"without room behind", [][]byte{clipped, b}, false},
		{"without padding", [][]byte{framed(7)[:7], b}, false},
		{"none", nil, false},
	}
	for _, tt := range tests {
		conn, peer := raw(t, transport.Options{})
		var msgs []transport.Message
		var want []byte
		for _, m := range tt.msgs {
			msgs = append(msgs, transport.Message{Data: m})
			want = append(append(want, m...), make([]byte, padded(len(m))-len(m))...)
		}
		if _, ok := joined(msgs); ok != tt.joined {
			t.Errorf("%s: joined: %v", tt.name, ok)
		}
		if err := conn.Send(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the peer got % x, %v; want % x", tt.name, got, err, want)
		}
	}
}

// TestHalfSentMessageCloses: when the context ends between two messages the
// connection stays, in the middle of one it goes.
func TestHalfSentMessageCloses(t *testing.T) {
	conn, peer := raw(t, transport.Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const length = 65532
	var many []transport.Message // more than sockets hold, in one piece
	for rest := bytes.Repeat(framed(length), 500); len(rest) > 0; rest = rest[length:] {
		many = append(many, transport.Message{Data: rest[:length]})
	}
	sent := make(chan error, 1)
	go func() { sent <- conn.Send(ctx, many...) }()
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(peer, make([]byte, 100)); err != nil { // Send is at it
		t.Fatal(err)
	}
	stop()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Fatalf("send: %v, want the context's cause", err)
	}
	if _, err := conn.Receive(within(t, patience), make([]byte, 100)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive after half a message was sent: %v, want net.ErrClosed", err)
	}

	conn, peer = raw(t, transport.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := conn.Send(ended, transport.Message{Data: framed(8)}); !errors.Is(err, context.Canceled) {
		t.Errorf("send with an ended context: %v", err)
	}
	if err := conn.Send(t.Context(), transport.Message{Data: framed(12)}); err != nil {
		t.Errorf("send after nothing was sent: %v", err)
	}
	conn.Close()
	if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, framed(12)) {
		t.Errorf("the peer got % x, %v", got, err)
	}
}

func TestAtBoundary(t *testing.T) {
	b := append(framed(5), framed(12)...)
	for n := range len(b) + 1 {
		if want := n == 0 || n == 8 || n == 20; atBoundary(b, n) != want {
			t.Errorf("%d octets of messages of 8 and 12 are whole messages: %v", n, !want)
		}
	}
}

// TestLastAnswerArrives: what was sent before Close arrives although the peer's
// octets were not all read.
func TestLastAnswerArrives(t *testing.T) {
	for range 20 {
		conn, peer := raw(t, transport.Options{})
		if _, err := peer.Write(bytes.Repeat(framed(400), 500)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Receive(within(t, patience), make([]byte, 400)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // let all of it arrive
		if err := conn.Send(t.Context(), transport.Message{Data: framed(16)}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, framed(16)) {
			t.Fatalf("the peer got % x, %v", got, err)
		}
	}
}

func TestAbortResets(t *testing.T) {
	conn, peer := raw(t, transport.Options{})
	if err := conn.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer reads %v, want a reset", err)
	}
}

func TestDialAlternatives(t *testing.T) {
	l, err := New().Listen(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused := netip.MustParseAddrPort("127.0.0.1:1")
	good := l.Addrs()[0]
	mapped := netip.AddrPortFrom(netip.AddrFrom16(good.Addr().As16()), good.Port())
	many := append(slices.Repeat([]netip.AddrPort{refused}, 100), good)
	for _, remote := range [][]netip.AddrPort{{good}, {refused, good}, {refused, refused, mapped, refused}, {good, good, good}, many} {
		start := time.Now()
		c, err := New().Dial(within(t, patience), nil, remote, transport.Options{})
		if err != nil || c.RemoteAddrs()[0] != good {
			t.Errorf("dial %v: %v, %v", remote, c, err)
			continue
		}
		took := time.Since(start)
		t.Logf("%d addresses took %v", len(remote), took)
		if took > 50*stagger { // the many would take twice as long
			t.Errorf("dial %v took %v although refusals come at once", remote, took)
		}
		c.Close()
	}
	_, err = New().Dial(within(t, patience), nil, []netip.AddrPort{refused, netip.MustParseAddrPort("127.0.0.2:1")}, transport.Options{})
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "127.0.0.2:1") {
		t.Errorf("dial: %v; want what was wrong with each address", err)
	}
	if c, err := New().Dial(within(t, patience), []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}, []netip.AddrPort{good}, transport.Options{}); err == nil {
		t.Errorf("dialled IPv4 from IPv6: %v", c.LocalAddrs())
	}
}

// TestListenEverywhere: :: takes both families, 0.0.0.0 one, several addresses
// share a port.
func TestListenEverywhere(t *testing.T) {
	transporttest.Need(t, transporttest.Loopbacks["IPv6"])
	tests := []struct {
		listen string
		takes  map[string]bool
	}{
		{"[::]:0", map[string]bool{"127.0.0.1": true, "::1": true}},
		{"0.0.0.0:0", map[string]bool{"127.0.0.1": true, "::1": false}},
		{"0.0.0.0:0 [::]:0", map[string]bool{"127.0.0.1": true, "::1": true}},
		{"127.0.0.1:0 [::1]:0", map[string]bool{"127.0.0.1": true, "::1": true, "127.0.0.2": false}},
	}
	for _, tt := range tests {
		var local []netip.AddrPort
		for s := range strings.SplitSeq(tt.listen, " ") {
			local = append(local, netip.MustParseAddrPort(s))
		}
		l, err := New().Listen(t.Context(), local, transport.Options{})
		if err != nil {
			t.Errorf("listen on %s: %v", tt.listen, err)
			continue
		}
		for host, want := range tt.takes {
			to := netip.AddrPortFrom(netip.MustParseAddr(host), l.Addrs()[0].Port())
			c, err := New().Dial(within(t, patience), nil, []netip.AddrPort{to}, transport.Options{})
			if (err == nil) != want {
				t.Errorf("listening on %s, dial %s: %v", tt.listen, to, err)
			}
			if err != nil {
				continue
			}
			accepted, err := l.Accept(within(t, patience))
			if err != nil {
				t.Fatal(err)
			}
			if got := accepted.RemoteAddrs()[0].Addr(); got != to.Addr() {
				t.Errorf("connection from %s is seen from %s", to.Addr(), got)
			}
			accepted.Close()
			c.Close()
		}
		l.Close()
	}
}

// TestReusePort: a connection leaves from the port that we listen on.
func TestReusePort(t *testing.T) {
	for name, loopback := range transporttest.Loopbacks {
		transporttest.Need(t, loopback)
		opt := transport.Options{ReusePort: true}
		any := []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}
		own, err := New().Listen(t.Context(), any, opt)
		if err != nil {
			t.Fatal(err)
		}
		other, err := New().Listen(t.Context(), []netip.AddrPort{loopback}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := New().Dial(within(t, patience), own.Addrs(), other.Addrs(), opt)
		if err != nil {
			t.Errorf("%s: dial from the listener's port: %v", name, err)
		} else {
			if got := c.LocalAddrs()[0].Port(); got != own.Addrs()[0].Port() {
				t.Errorf("%s: dialled from port %d, listening on %v", name, got, own.Addrs())
			}
			c.Abort() // no TIME_WAIT
		}
		other.Close()
		own.Close()
	}
}

func BenchmarkEcho(b *testing.B) {
	l, err := New().Listen(b.Context(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, transport.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept(b.Context())
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, transport.MaxMessage)
		for {
			m, err := c.Receive(b.Context(), buf)
			if err == nil {
				err = c.Send(b.Context(), m)
			}
			if err != nil {
				return
			}
		}
	}()
	c, err := New().Dial(b.Context(), nil, l.Addrs(), transport.Options{})
	if err != nil {
		b.Fatal(err)
	}
	msg := transport.Message{Data: framed(64)}
	buf := make([]byte, transport.MaxMessage)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(b.Context(), msg); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Receive(b.Context(), buf); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	<-done
}

// A context that ends just as Dial begins ends Dial, wherever it has come to.
func TestDialEndsWithItsContext(t *testing.T) {
	refused := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	for i := range 10000 {
		ctx, cancel := context.WithCancel(context.Background())
		var begun atomic.Bool
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for !begun.Load() {
				runtime.Gosched()
			}
			for range i % 400 { // up to the time in which a dial begins
				_ = begun.Load()
			}
			cancel()
		}()
		begun.Store(true)
		if _, err := New().Dial(ctx, nil, refused, transport.Options{}); err == nil {
			t.Fatal("connected to nobody")
		}
		<-ended
	}
}
