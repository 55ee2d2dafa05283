package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
)

// world is a network with machines a and b, connected.
type world struct {
	t        *testing.T
	n        *Network
	listener transport.Listener // on b
	a, b     transport.Conn
}

const port = 3863

func any(port uint16) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), port)}
}

func inWorld(t *testing.T, name string, test func(w *world)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, n: NewNetwork(7)}
			w.n.Host("a", "10.0.0.1", "10.0.1.1")
			w.n.Host("b", "10.0.0.2", "10.0.1.2")
			w.listen()
			w.a, w.b = w.connect()
			test(w)
		})
	})
}

func (w *world) listen() {
	w.t.Helper()
	var err error
	if w.listener, err = w.n.Host("b").Listen(w.t.Context(), any(port), transport.Options{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dial(ctx context.Context) (transport.Conn, error) {
	return w.n.Host("a").Dial(ctx, nil, w.listener.Addrs(), transport.Options{})
}

func (w *world) connect() (a, b transport.Conn) {
	w.t.Helper()
	a, err := w.dial(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if b, err = w.listener.Accept(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return a, b
}

func within(w *world, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) send(c transport.Conn, s string) {
	w.t.Helper()
	if err := c.Send(within(w, time.Second), transport.Message{Data: []byte(s)}); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// wants checks that c receives s after exactly d.
func (w *world) wants(c transport.Conn, s string, d time.Duration) {
	w.t.Helper()
	start := time.Now()
	m, err := c.Receive(within(w, time.Hour), make([]byte, 100))
	if err != nil || string(m.Data) != s || time.Since(start) != d {
		w.t.Fatalf("received %q, %v after %v; want %q after %v", m.Data, err, time.Since(start), s, d)
	}
}

// fails checks that c's Receive ends with want after exactly d, with a Down event
// or without.
func (w *world) fails(c transport.Conn, want error, d time.Duration, down bool) {
	w.t.Helper()
	start := time.Now()
	_, err := c.Receive(within(w, time.Hour), make([]byte, 100))
	if !errors.Is(err, want) || time.Since(start) != d {
		w.t.Fatalf("receive: %v after %v; want %v after %v", err, time.Since(start), want, d)
	}
	if e := w.event(c); (e.Type == transport.Down) != down {
		w.t.Errorf("event %+v; Down expected: %v", e, down)
	}
}

func (w *world) event(c transport.Conn) transport.Event {
	select {
	case e := <-c.Events():
		return e
	default:
		return transport.Event{}
	}
}

func (w *world) silent(c transport.Conn) {
	w.t.Helper()
	m, err := c.Receive(within(w, time.Second), make([]byte, 100))
	if !errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatalf("received %q, %v; want silence", m.Data, err)
	}
}

func TestFaults(t *testing.T) {
	inWorld(t, "cut and heal loses nothing", func(w *world) {
		w.n.Cut("a", "b")
		w.send(w.a, "one")
		w.send(w.b, "two")
		w.silent(w.b)
		w.silent(w.a)
		w.n.Heal("a", "b")
		w.wants(w.b, "one", 0)
		w.wants(w.a, "two", 0)
	})
	inWorld(t, "a long cut breaks the association for both", func(w *world) {
		w.n.FailureTime = 4 * time.Second
		w.n.Cut("a", "b")
		w.fails(w.a, syscall.ETIMEDOUT, 4*time.Second, true)
		w.fails(w.b, syscall.ETIMEDOUT, 0, true)
		if err := w.a.Send(w.t.Context(), transport.Message{Data: []byte("x")}); !errors.Is(err, syscall.ETIMEDOUT) {
			w.t.Errorf("send on a failed association: %v", err)
		}
	})
	inWorld(t, "so does a cut of one direction", func(w *world) {
		w.n.CutOneWay("a", "b")
		w.send(w.b, "x")
		w.fails(w.a, syscall.ETIMEDOUT, DefaultFailureTime, true)
		w.fails(w.b, syscall.ETIMEDOUT, 0, true)
	})
	inWorld(t, "short cuts don't add up", func(w *world) {
		for range 5 {
			w.n.Cut("a", "b")
			time.Sleep(DefaultFailureTime - 1)
			w.n.Heal("a", "b")
			time.Sleep(time.Nanosecond)
		}
		w.send(w.a, "x")
		w.wants(w.b, "x", 0)
	})
	inWorld(t, "dial waits for the link", func(w *world) {
		w.n.Cut("a", "b")
		if c, err := w.dial(within(w, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("dialled through a cut: %v, %v", c, err)
		}
		time.AfterFunc(time.Second, func() { w.n.Heal("a", "b") })
		start := time.Now()
		if _, err := w.dial(w.t.Context()); err != nil || time.Since(start) != time.Second {
			w.t.Errorf("dial: %v after %v; want success when the link heals", err, time.Since(start))
		}
	})
	inWorld(t, "kill is seen at once and for ever", func(w *world) {
		old := w.n.Host("b")
		w.send(w.b, "last words")
		w.n.Kill("b")
		w.wants(w.a, "last words", 0)
		w.fails(w.a, io.EOF, 0, true)
		w.fails(w.b, net.ErrClosed, 0, false)
		if err := w.a.Send(w.t.Context(), transport.Message{Data: []byte("x")}); !errors.Is(err, syscall.EPIPE) {
			w.t.Errorf("send to the dead: %v", err)
		}
		if _, err := w.dial(w.t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("dial the dead: %v", err)
		}
		w.listen() // a new process on b
		w.connect()
		if _, err := old.Dial(w.t.Context(), nil, w.listener.Addrs(), transport.Options{}); !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("the dead process dials: %v", err)
		}
		if _, err := old.Listen(w.t.Context(), any(0), transport.Options{}); !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("the dead process listens: %v", err)
		}
	})
	inWorld(t, "a frozen process takes but does not answer", func(w *world) {
		w.n.Freeze("b")
		w.send(w.a, "x")
		w.silent(w.b)
		if _, err := w.dial(within(w, time.Second)); err != nil {
			w.t.Errorf("dial a frozen process: %v", err)
		}
		if err := w.b.Send(within(w, time.Second), transport.Message{Data: []byte("y")}); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("a frozen process sends: %v", err)
		}
		time.Sleep(10 * DefaultFailureTime) // its kernel keeps the association
		w.n.Thaw("b")
		w.wants(w.b, "x", 0)
	})
	inWorld(t, "a frozen process's buffers fill up", func(w *world) {
		w.n.Freeze("b")
		var err error
		for err == nil {
			err = w.a.Send(within(w, time.Second), transport.Message{Data: make([]byte, 1000)})
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("send: %v", err)
		}
	})
	inWorld(t, "close wakes the calls of a frozen process", func(w *world) {
		w.n.Freeze("b")
		time.AfterFunc(time.Second, func() { w.b.Close() })
		w.fails(w.b, net.ErrClosed, time.Second, false)
	})
	inWorld(t, "an unplugged machine is noticed by time only", func(w *world) {
		w.n.Unplug("b")
		w.n.Kill("b") // nobody hears of it
		w.fails(w.a, syscall.ETIMEDOUT, DefaultFailureTime, true)
		w.n.Plug("b")
		w.listen()
		w.connect()
	})
	inWorld(t, "one path down, the other carries", func(w *world) {
		w.n.PathDown("10.0.0.2")
		if e := w.event(w.a); e.Type != transport.PathDown || e.Addr != netip.MustParseAddrPort("10.0.0.2:3863") {
			w.t.Errorf("event %+v, want PathDown of 10.0.0.2:3863", e)
		}
		time.Sleep(2 * DefaultFailureTime)
		w.send(w.a, "x")
		w.wants(w.b, "x", 0)
		w.n.PathDown("10.0.1.2")
		w.event(w.a)
		w.fails(w.a, syscall.ETIMEDOUT, DefaultFailureTime, true)
		w.n.PathUp("10.0.1.2")
		if c, _ := w.connect(); c.RemoteAddrs()[0] != netip.MustParseAddrPort("10.0.1.2:3863") {
			w.t.Errorf("primary address %v of a connection made while 10.0.0.2 is down", c.RemoteAddrs()[0])
		}
	})
	inWorld(t, "delay keeps the order", func(w *world) {
		w.n.Delay("a", "b", time.Second, time.Second)
		w.send(w.a, "one")
		w.n.Delay("a", "b", 0, 0)
		w.send(w.a, "two")
		w.wants(w.b, "one", time.Second)
		w.wants(w.b, "two", 0)
	})
	inWorld(t, "dial takes a round trip", func(w *world) {
		w.n.Delay("a", "b", time.Second, time.Second)
		start := time.Now()
		if w.connect(); time.Since(start) != 2*time.Second {
			w.t.Errorf("dial took %v", time.Since(start))
		}
	})
	inWorld(t, "drop next", func(w *world) {
		w.n.DropNext(func(data []byte) bool { return bytes.HasPrefix(data, []byte("b")) })
		for _, s := range []string{"a1", "b1", "a2", "b2"} {
			w.send(w.a, s)
		}
		for _, s := range []string{"a1", "a2", "b2"} {
			w.wants(w.b, s, 0)
		}
	})
	inWorld(t, "a full backlog makes dialers wait", func(w *world) {
		for range DefaultBacklog {
			if _, err := w.dial(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		}
		if _, err := w.dial(within(w, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Fatalf("dial: %v", err)
		}
		if _, err := w.listener.Accept(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.dial(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	})
}

func TestNames(t *testing.T) {
	n := NewNetwork(1)
	n.Host("a", "10.0.0.1", "2001:db8::1")
	n.Host("192.0.2.1")
	n.Host("b")
	n.Alias("both", "a", "192.0.2.1")
	h := n.Host("b")
	for name, want := range map[string]string{
		"a": "[10.0.0.1 2001:db8::1]", "192.0.2.1": "[192.0.2.1]", "both": "[10.0.0.1 2001:db8::1 192.0.2.1]", "b": "[10.0.0.3]",
	} {
		if got, err := h.LookupNetIP(t.Context(), "ip", name); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s has addresses %v, %v; want %s", name, got, err, want)
		}
	}
	var dnsErr *net.DNSError
	if _, err := h.LookupNetIP(t.Context(), "ip", "c"); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
		t.Errorf("unknown name: %v", err)
	}
	nets := transport.NewNetworks(h)
	e, err := transport.ParseEndpoint("mem://both:1", transport.Auto, port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nets.Dial(t.Context(), nil, e, transport.Options{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial by name: %v", err)
	}
}

func TestDialAlternatives(t *testing.T) {
	inWorld(t, "the next address when one is refused or silent", func(w *world) {
		w.n.Host("c", "10.0.0.3")
		w.n.Host("d", "10.0.0.4")
		w.n.Unplug("d")
		remote := []netip.AddrPort{
			netip.MustParseAddrPort("10.0.0.9:1"), netip.MustParseAddrPort("10.0.0.4:1"),
			netip.MustParseAddrPort("10.0.0.3:1"), netip.MustParseAddrPort("10.0.0.2:3863"),
		}
		c, err := w.n.Host("a").Dial(w.t.Context(), nil, remote, transport.Options{})
		if err != nil || c.RemoteAddrs()[0] != remote[3] {
			w.t.Fatalf("%v, %v; want a connection to %s", c, err, remote[3])
		}
	})
}

// TestSeed: the same seed gives the same delays, another one others.
func TestSeed(t *testing.T) {
	run := func(seed uint64) (times []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, n: NewNetwork(seed)}
			w.n.Host("a")
			w.n.Host("b")
			w.n.Delay("a", "b", 0, time.Second)
			w.listen()
			w.a, w.b = w.connect()
			start := time.Now()
			for range 20 {
				w.send(w.a, "x")
				if _, err := w.b.Receive(w.t.Context(), make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				times = append(times, time.Since(start))
			}
		})
		return times
	}
	if first := run(1); !slices.Equal(first, run(1)) || slices.Equal(first, run(2)) {
		t.Error("delays don't follow the seed")
	}
}

func TestAnnouncer(t *testing.T) {
	inWorld(t, "announcements", func(w *world) {
		group := netip.MustParseAddrPort("224.0.1.185:3863")
		w.n.Host("c")
		join := func(name string, group netip.AddrPort) transport.Announcer {
			a, err := w.n.Host(name).Announcer(group)
			if err != nil {
				w.t.Fatal(err)
			}
			return a
		}
		a, b, c := join("a", group), join("b", group), join("c", group)
		other := join("c", netip.MustParseAddrPort("239.0.0.50:3863"))
		wants := func(m transport.Announcer, s string) {
			w.t.Helper()
			buf := make([]byte, 10)
			k, source, err := m.ReceiveAnnouncement(within(w, time.Minute), buf)
			if err != nil || string(buf[:k]) != s || source != netip.MustParseAddrPort("10.0.0.1:3863") {
				w.t.Fatalf("%q from %s, %v; want %q", buf[:k], source, err, s)
			}
		}
		announce := func(s string) {
			w.t.Helper()
			if err := a.Announce(w.t.Context(), []byte(s)); err != nil {
				w.t.Fatal(err)
			}
		}
		w.n.CutOneWay("a", "c")
		w.n.Delay("a", "b", time.Second, time.Second)
		announce("longer than the buffer")
		announce("one")
		w.n.Heal("a", "c")
		announce("two")
		for _, s := range []string{"one", "two"} {
			wants(a, s)
			wants(b, s)
		}
		wants(c, "two")
		if _, _, err := other.ReceiveAnnouncement(within(w, time.Minute), make([]byte, 10)); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("another group: %v", err)
		}
		for range 3 * maxDatagrams {
			announce("flood")
		}
		for range maxDatagrams {
			wants(c, "flood")
		}
		time.AfterFunc(time.Second, func() { c.Close() })
		if _, _, err := c.ReceiveAnnouncement(w.t.Context(), make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("receive on a closed announcer: %v", err)
		}
		w.n.Kill("a")
		if err := a.Announce(w.t.Context(), []byte("x")); !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("the dead announce: %v", err)
		}
	})
}

func TestListenAddresses(t *testing.T) {
	inWorld(t, "conflicts", func(w *world) {
		b := w.n.Host("b")
		for want, local := range map[error]string{syscall.EADDRINUSE: "10.0.0.2:3863", syscall.EADDRNOTAVAIL: "10.0.0.1:3863"} {
			if _, err := b.Listen(w.t.Context(), []netip.AddrPort{netip.MustParseAddrPort(local)}, transport.Options{}); !errors.Is(err, want) {
				w.t.Errorf("listen on %s: %v, want %v", local, err, want)
			}
		}
		if _, err := b.Listen(w.t.Context(), []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 1)}, transport.Options{}); err != nil {
			w.t.Error(err)
		}
		w.listener.Close()
		w.listen() // the port is free again
	})
}
