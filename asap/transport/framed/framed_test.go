package framed

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/asap/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is a transport.Network of framed connections over TCP.
type loopback struct{}

func (loopback) Name() string     { return transport.TCP }
func (loopback) Available() error { return nil }

func (loopback) options(opt transport.Options) Options {
	return Options{MaxMessage: opt.MaxMessage, DefaultPPID: opt.DefaultPPID}
}

func (n loopback) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if len(remote) == 0 {
		return nil, errors.New("no address")
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var d net.Dialer
	if len(local) > 0 {
		d.LocalAddr = net.TCPAddrFromAddrPort(local[0])
	}
	stream, err := d.DialContext(ctx, "tcp", remote[0].String())
	if err != nil {
		return nil, err
	}
	return Client(ctx, stream, n.options(opt))
}

func (n loopback) Listen(_ context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	if len(local) == 0 {
		return nil, errors.New("no address")
	}
	socket, err := net.Listen("tcp", local[0].String())
	if err != nil {
		return nil, err
	}
	return NewListener(socket, n.options(opt)), nil
}

func TestSuite(t *testing.T) {
	for name, addr := range transporttest.Loopbacks {
		t.Run(name, func(t *testing.T) {
			transporttest.Need(t, addr)
			transporttest.Suite{
				Setup: func(*testing.T) transporttest.Sides {
					return transporttest.Sides{Client: loopback{}, Server: loopback{}, Listen: []netip.AddrPort{addr}}
				},
				PPID: true, NoStreams: true, Buffered: true, Next: true,
			}.Run(t)
		})
	}
}

// assocs is a network of memory with heartbeats.
type assocs struct{ transport.Network }

func (n assocs) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := n.Network.Dial(ctx, local, remote, opt)
	if err != nil {
		return nil, err
	}
	return Over(c), nil
}

func (n assocs) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Network.Listen(ctx, local, opt)
	return assocListener{l}, err
}

type assocListener struct{ transport.Listener }

func (l assocListener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return Over(c), nil
}

func TestSuiteOverAssociations(t *testing.T) {
	transporttest.Suite{
		Setup: func(*testing.T) transporttest.Sides {
			n := mem.NewNetwork(1)
			return transporttest.Sides{
				Client: assocs{n.Host("client", "192.0.2.2")}, Server: assocs{n.Host("server", "192.0.2.1")},
				Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")},
			}
		},
		Wrap: func(t *testing.T, test func(*testing.T)) { synctest.Test(t, test) },
		PPID: true, Buffered: true, Next: true,
	}.Run(t)
}

// pair returns the ends of a connection over net.Pipe, to be used in a bubble.
func pair(t *testing.T) (client, server *Conn) {
	t.Helper()
	a, b := net.Pipe()
	got := make(chan *Conn)
	go func() {
		c, err := Server(t.Context(), b, Options{})
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	client, err := Client(t.Context(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	server = <-got
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// keepReceiving receives and throws away until the connection ends.
func keepReceiving(c transport.Conn) {
	buf := make([]byte, transport.MaxMessage)
	for {
		if _, err := c.Receive(context.Background(), buf); err != nil {
			return
		}
	}
}

func TestPreambles(t *testing.T) {
	for name, tt := range map[string]struct {
		peer string // what it says, before it closes
		want string
	}{
		"an HTTP server":    {"HTTP/1.1 400 Bad Request\r\n", `begins with "HTTP/1.1"`},
		"a short greeting":  {"220", `begins with "220"`},
		"half of it":        {"RSPS\x01", "closed after 5 octets"},
		"another version":   {"RSPS\x02\x00\x00\x00", "version 2, here 1"},
		"a preamble's end ": {"RSPT\x01\x00\x00\x00", `begins with "RSPT`},
	} {
		t.Run(name, func(t *testing.T) {
			for end, connect := range map[string]func(context.Context, net.Conn, Options) (*Conn, error){"client": Client, "server": Server} {
				a, b := net.Pipe()
				go func() {
					go func() { _, _ = io.Copy(io.Discard, b) }()
					_, _ = io.WriteString(b, tt.peer)
					_ = b.Close()
				}()
				_, err := connect(t.Context(), a, Options{})
				if !errors.Is(err, ErrNoFraming) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v, want %v with %q", end, err, ErrNoFraming, tt.want)
				}
				if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("%s: the stream is left open: %v", end, err)
				}
			}
		})
	}
}

// A process that is stopped while its kernel accepts says nothing.
func TestNobodyAnswersThePreamble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { _, _ = io.ReadFull(b, make([]byte, preambleLen)) }()
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := Client(ctx, a, Options{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 75*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestClosedBeforeThePreamble(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		_, _ = io.ReadFull(b, make([]byte, preambleLen))
		_ = b.Close()
	}()
	if _, err := Client(t.Context(), a, Options{}); !errors.Is(err, ErrCut) || errors.Is(err, ErrNoFraming) {
		t.Errorf("%v, want %v: that says nothing about what it speaks", err, ErrCut)
	}
}

func TestOctetsOfTheFraming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		seen := make(chan []byte)
		go func() {
			preamble := make([]byte, 8)
			_, _ = io.ReadFull(b, preamble)
			_, _ = b.Write([]byte("RSPS\x01\xff\xff\xff")) // flags are for later versions
			rest, _ := io.ReadAll(b)
			seen <- append(preamble, rest...)
		}()
		c, err := Client(t.Context(), a, Options{DefaultPPID: 34})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), transport.Message{Data: []byte("abc"), PPID: 11}, transport.Message{}, transport.Message{Data: []byte{9}, PPID: 0x01020304}); err != nil {
			t.Fatal(err)
		}
		c.Beat()
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		want := "RSPS\x01\x00\x00\x00" +
			"\x00\x00\x00\x0b\x00\x00\x00\x03abc" +
			"\x00\x00\x00\x22\x00\x00\x00\x00" +
			"\x01\x02\x03\x04\x00\x00\x00\x01\x09" +
			"\xff\xff\xff\xff\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01" +
			"\xff\xff\xff\xff\x00\x00\x00\x00"
		if got := <-seen; string(got) != want {
			t.Errorf("sent % x\nwant % x", got, want)
		}
	})
}

func TestOrderlyEndAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		go func() {
			_ = client.Send(t.Context(), transport.Message{Data: []byte("last")})
			_ = client.Close()
		}()
		if m, err := server.Next(t.Context()); err != nil || string(m.Data) != "last" {
			t.Errorf("%q, %v", m.Data, err)
		}
		for range 2 {
			if _, err := server.Next(t.Context()); err != io.EOF {
				t.Errorf("after Close: %v, want io.EOF", err)
			}
		}
		client, server = pair(t)
		go client.stream.Close() // as the kernel does for a process that was killed
		for range 2 {
			if _, err := server.Next(t.Context()); !errors.Is(err, ErrCut) || errors.Is(err, io.EOF) {
				t.Errorf("after a kill: %v, want %v", err, ErrCut)
			}
		}
		if e := <-server.Events(); e.Type != transport.Down || !errors.Is(e.Err, ErrCut) {
			t.Errorf("event %+v", e)
		}
	})
}

func TestBadFramesEndTheConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		octets string
		want   error
	}{
		"too long":              {"\x00\x00\x00\x00\x00\x01\x00\x01", transport.ErrTooLong},
		"far too long":          {"\x00\x00\x00\x0b\xff\xff\xff\xff", transport.ErrTooLong},
		"a heartbeat of 4":      {"\xff\xff\xff\xff\x00\x00\x00\x04\x00\x00\x00\x00", transport.ErrMalformed},
		"a heartbeat without":   {"\xff\xff\xff\xff\xff\xff\xff\xff", transport.ErrMalformed},
		"the end in a header":   {"\x00\x00\x00\x0b\x00", ErrCut},
		"the end in a message ": {"\x00\x00\x00\x0b\x00\x00\x00\x02\x01", ErrCut},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := pair(t)
				go func() {
					_, _ = client.stream.Write([]byte(tt.octets))
					if tt.want == ErrCut {
						_ = client.stream.Close()
					}
				}()
				if _, err := server.Next(t.Context()); !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if _, err := server.Next(t.Context()); err == nil {
					t.Error("received on a connection that can't be used any more")
				}
				if cap(server.in.buf) > initialBuffer {
					t.Errorf("%d octets of memory for a promise", cap(server.in.buf))
				}
			})
		})
	}
}

func TestHeartbeatsNeedReceiversAtBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		go keepReceiving(client)
		ping := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return client.Ping(ctx)
		}
		if err := ping(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping of an end that does not receive: %v", err)
		}
		before := client.Heard()
		go keepReceiving(server)
		if err := ping(); err != nil {
			t.Errorf("ping: %v", err)
		}
		if !client.Heard().After(before) {
			t.Error("the answer is no sign of life")
		}
		if err := server.Ping(t.Context()); err != nil {
			t.Errorf("ping from the server: %v", err)
		}
	})
}

// Heartbeats wait behind nothing but what is being written, and are no queue.
func TestHeartbeatsToAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		for range 1000 {
			client.Beat()
			synctest.Wait()
		}
		var got bytes.Buffer
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(&got, server.stream) }()
		synctest.Wait()
		_ = client.stream.Close()
		<-done
		if n := binary.BigEndian.Uint64(got.Bytes()[24:]); got.Len() != 32 || n != 1000 {
			t.Errorf("%d octets, the last heartbeat is %d; want two, the first and the newest", got.Len(), n)
		}
	})
}

// Two ends that both have nothing but heartbeats and full buffers don't wait for
// each other.
func TestFullBuffersAndHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		long := make([]byte, transport.MaxMessage)
		for _, c := range []*Conn{client, server} {
			go keepReceiving(c)
			go func() {
				for range 50 {
					c.Beat()
					if err := c.Send(t.Context(), transport.Message{Data: long}); err != nil {
						t.Errorf("send: %v", err)
					}
				}
			}()
		}
		synctest.Wait()
		for _, c := range []*Conn{client, server} {
			if err := c.Ping(t.Context()); err != nil {
				t.Errorf("ping: %v", err)
			}
		}
	})
}

func TestPingEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := pair(t)
		time.AfterFunc(time.Second, func() { _ = client.Abort() })
		if err := client.Ping(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ping: %v", err)
		}
		client.Beat() // without effect
	})
}

func TestHeartbeatsOverAssociations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := mem.NewNetwork(1)
		addr := netip.MustParseAddrPort("192.0.2.1:1")
		l, err := n.Host("server", "192.0.2.1").Listen(t.Context(), []netip.AddrPort{addr}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw, err := n.Host("client", "192.0.2.2").Dial(t.Context(), nil, []netip.AddrPort{addr}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		client, server := Over(raw), Over(accepted)
		defer client.Close()
		defer server.Abort()
		go keepReceiving(client)
		go keepReceiving(server)
		if err := client.Ping(t.Context()); err != nil {
			t.Errorf("ping: %v", err)
		}
		n.Freeze("server")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := client.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping of a frozen process: %v", err)
		}
		if heard := time.Since(client.Heard()); heard != 2*time.Second {
			t.Errorf("last heard of a process frozen for 2 s: %v ago", heard)
		}
		n.Thaw("server")
		if err := client.Send(t.Context(), transport.Message{PPID: PPIDHeartbeat}); !errors.Is(err, ErrReserved) {
			t.Errorf("an application's heartbeat: %v", err)
		}
	})
}

func TestWhatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		m := transport.Message{Data: make([]byte, 100)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := client.Send(ctx, m); !errors.Is(err, ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody reads: %v, want %v", err, ErrNotSent)
		}
		if err := client.Send(ctx, m); !errors.Is(err, ErrNotSent) {
			t.Errorf("ended context: %v, want %v", err, ErrNotSent)
		}
		for _, bad := range []transport.Message{{PPID: PPIDHeartbeat}, {Data: make([]byte, maxMaxMessage+1)}} {
			if err := client.Send(t.Context(), bad); !errors.Is(err, ErrNotSent) {
				t.Errorf("a message that can't be sent: %v", err)
			}
		}
		go keepReceiving(server)
		if err := client.Send(t.Context(), m); err != nil {
			t.Errorf("send after what was not sent: %v", err)
		}

		client, server = pair(t)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, _ = server.stream.Read(make([]byte, 1)) }() // takes one octet
		if err := client.Send(ctx, m); err == nil || errors.Is(err, ErrNotSent) {
			t.Errorf("one octet was taken: %v", err)
		}
		if err := client.Send(t.Context(), m); !errors.Is(err, ErrNotSent) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("after half a message: %v, want a closed connection", err)
		}
	})
}

func TestWhatWasNotSentByTLS(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := newConn(tls.Client(a, &tls.Config{ServerName: "x"}), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Send(ctx, transport.Message{Data: []byte("x")}); !errors.Is(err, ErrNotSent) {
		t.Errorf("send: %v", err)
	}
	if !c.closed.Load() {
		t.Error("TLS goes on after a write that was interrupted")
	}
}

func TestListenerRefusesAndGoesOn(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 2)
	l := NewListener(socket, Options{
		MaxHandshakes: 1, Handshake: 50 * time.Millisecond,
		Refused: func(from net.Addr, err error) {
			if from == nil {
				t.Error("refused nobody")
			}
			refused <- err
		},
	})
	defer l.Close()
	silent, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	check, err := net.Dial("tcp", socket.Addr().String()) // as a health check does
	if err != nil {
		t.Fatal(err)
	}
	_ = check.Close()
	client, err := loopback{}.Dial(t.Context(), nil, l.Addrs(), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := <-refused; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that says nothing: %v", err)
	}
	if err := <-refused; !errors.Is(err, ErrCut) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a health check: %v", err)
	}
}

// FuzzReceive gives octets behind the preamble, in pieces, to a reader: it returns
// the frames that are there, takes no memory for what is not, and ends.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0b\x00\x00\x00\x03abc\xff\xff\xff\xff\x00\x00\x00\x00"), uint8(3))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x22\x00\x00\x00\x00"), uint8(200))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x08\xff\x00\x00\x00\x00\x00\x00\x01"), uint8(1))
	f.Add([]byte("\x00\x00\x00\x0b\x00\x01\x00\x01"), uint8(8))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		go func() {
			rest := append([]byte("RSPS\x01\x00\x00\x00"), in...)
			for len(rest) > 0 {
				n := min(len(rest), int(piece)+1)
				if _, err := b.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
			_ = b.Close()
		}()
		c, err := Client(context.Background(), a, Options{MaxMessage: 4096})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var again []byte
		for {
			m, err := c.Next(context.Background())
			if err != nil {
				break
			}
			again = appendFrame(again, m.PPID, m.Data)
		}
		var want []byte
		for rest := in; len(rest) >= headerLen; {
			ppid, n := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
			if n > 4096 || int(n) > len(rest)-headerLen || ppid == PPIDHeartbeat && n != beatLen {
				break
			}
			if ppid != PPIDHeartbeat {
				want = append(want, rest[:headerLen+n]...)
			}
			rest = rest[headerLen+n:]
		}
		if !bytes.Equal(again, want) {
			t.Errorf("received % x\nwant % x", again, want)
		}
	})
}

func BenchmarkRequestAndResponse(b *testing.B) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := NewListener(socket, Options{})
	defer l.Close()
	client, err := loopback{}.Dial(b.Context(), nil, l.Addrs(), transport.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, transport.MaxMessage)
		for {
			m, err := server.Receive(context.Background(), buf)
			if err != nil || server.Send(context.Background(), m) != nil {
				return
			}
		}
	}()
	buf, request := make([]byte, 1000), transport.Message{Data: make([]byte, 100), PPID: 1}
	b.ReportAllocs()
	for b.Loop() {
		if err := client.Send(b.Context(), request); err != nil {
			b.Fatal(err)
		}
		if _, err := client.Receive(b.Context(), buf); err != nil {
			b.Fatal(err)
		}
	}
}
