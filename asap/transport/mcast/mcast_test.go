package mcast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// testInterface is the interface for the tests; "" for loopback.
var testInterface string

// families are two groups of each family that nobody else uses.
var families = map[string][2]netip.Addr{
	"IPv4": {netip.MustParseAddr("239.255.77.1"), netip.MustParseAddr("239.255.77.2")},
	"IPv6": {netip.MustParseAddr("ff05::7701"), netip.MustParseAddr("ff05::7702")},
}

// eachFamily runs a test with two groups on one free port, and the address that
// announcements come from.
func eachFamily(t *testing.T, test func(t *testing.T, group, other netip.AddrPort, source netip.Addr)) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			test(t, netip.AddrPortFrom(f[0], port), netip.AddrPortFrom(f[1], port), needMulticast(t, f[0]))
		})
	}
}

func freePort(t *testing.T) uint16 {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// needMulticast skips the test when the test interface carries no multicast, and
// returns the address that announcements come from.
func needMulticast(t *testing.T, group netip.Addr) netip.Addr {
	t.Helper()
	skip := func(err error) {
		t.Helper()
		t.Skipf("SKIPPED, NOT TESTED: no multicast to %s here: %v", group, err)
	}
	i, err := net.InterfaceByName(interfaceName(t))
	if err != nil {
		skip(err)
	}
	g, err := openGroup(t.Context(), netip.AddrPortFrom(group, freePort(t)), Config{Hops: 1})
	if err != nil {
		skip(err)
	}
	defer g.close()
	if err := g.conn.join(i, group); err != nil {
		skip(err)
	}
	if err := g.conn.write([]byte("x"), *i, g.source(*i), g.addr); err != nil {
		skip(err)
	}
	received := make(chan error, 1)
	go func() {
		_, _, _, err := g.conn.read(make([]byte, 10))
		received <- err
	}()
	select {
	case err = <-received:
	case <-time.After(10 * time.Second):
		g.close()
		<-received
		err = errors.New("sent, but not received")
	}
	if err != nil {
		skip(err)
	}
	return addrOf(g.source(*i))
}

// open joins on the test interface, and fails the test when something is
// reported.
func open(t *testing.T, c Config) *Announcer {
	t.Helper()
	c.Interfaces = []string{interfaceName(t)}
	if c.Report == nil {
		c.Report = func(err error) { t.Errorf("reported: %v", err) }
	}
	a, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return a
}

func interfaceName(t *testing.T) string {
	if testInterface != "" {
		return testInterface
	}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			return i.Name
		}
	}
	t.Skip("SKIPPED, NOT TESTED: this machine has no loopback interface")
	return ""
}

func announce(t *testing.T, a *Announcer, s string) {
	t.Helper()
	if err := a.Announce(t.Context(), []byte(s)); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, a *Announcer, s string, source netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	buf := make([]byte, 100)
	n, from, err := a.ReceiveAnnouncement(ctx, buf)
	if err != nil || string(buf[:n]) != s || from != source {
		t.Fatalf("received %q from %s, %v; want %q from %s", buf[:n], from, err, s, source)
	}
}

func silent(t *testing.T, a *Announcer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	buf := make([]byte, 100)
	if n, from, err := a.ReceiveAnnouncement(ctx, buf); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %q from %s, %v; want silence", buf[:n], from, err)
	}
}

func TestAllMembersReceive(t *testing.T) {
	eachFamily(t, func(t *testing.T, group, other netip.AddrPort, source netip.Addr) {
		config := Config{Groups: []netip.AddrPort{group}}
		a, b := open(t, config), open(t, config)
		elsewhere := open(t, Config{Groups: []netip.AddrPort{other}})
		both := open(t, Config{Groups: []netip.AddrPort{group, other}})
		announce(t, a, strings.Repeat("longer than the buffer ", 10))
		announce(t, a, "one")
		for _, to := range []*Announcer{a, b, both} {
			wants(t, to, "one", netip.AddrPortFrom(source, group.Port()))
		}
		announce(t, elsewhere, "two")
		wants(t, both, "two", netip.AddrPortFrom(source, group.Port()))
		wants(t, elsewhere, "two", netip.AddrPortFrom(source, group.Port()))
		for _, to := range []*Announcer{a, b, both, elsewhere} {
			silent(t, to)
		}
	})
}

func TestSourcePort(t *testing.T) {
	eachFamily(t, func(t *testing.T, group, _ netip.AddrPort, source netip.Addr) {
		port := freePort(t)
		a := open(t, Config{Groups: []netip.AddrPort{group}, SourcePort: port})
		announce(t, a, "one")
		wants(t, a, "one", netip.AddrPortFrom(source, port))
	})
}

func TestEnds(t *testing.T) {
	eachFamily(t, func(t *testing.T, group, _ netip.AddrPort, _ netip.Addr) {
		a := open(t, Config{Groups: []netip.AddrPort{group}})
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
		for range 2 {
			if _, _, err := a.ReceiveAnnouncement(ctx, make([]byte, 10)); !errors.Is(err, cause) {
				t.Errorf("receive: %v, want the context's cause", err)
			}
		}
		if err := a.Announce(ctx, []byte("x")); !errors.Is(err, cause) {
			t.Errorf("announce: %v, want the context's cause", err)
		}
		announce(t, a, "still works")
		var closed sync.WaitGroup
		defer closed.Wait()
		b := open(t, Config{Groups: []netip.AddrPort{group}})
		closed.Go(func() {
			time.Sleep(10 * time.Millisecond)
			if err := b.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		for range 2 {
			if _, _, err := b.ReceiveAnnouncement(t.Context(), make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("receive: %v, want net.ErrClosed", err)
			}
		}
		if err := b.Announce(t.Context(), []byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("announce: %v, want net.ErrClosed", err)
		}
	})
}

// reports collects what an announcer tells.
type reports struct {
	mu   sync.Mutex
	told []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, err.Error())
}

func (r *reports) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.told {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// TestASAP_9_2_16_FloodOfAnnouncements: announcements beyond the queue are dropped, which is told
// once.
func TestASAP_9_2_16_FloodOfAnnouncements(t *testing.T) {
	eachFamily(t, func(t *testing.T, group, _ netip.AddrPort, source netip.Addr) {
		var told reports
		a := open(t, Config{Groups: []netip.AddrPort{group}, Report: told.add})
		for i := range 2 * queueLength {
			announce(t, a, fmt.Sprint(i))
		}
		for deadline := time.Now().Add(time.Minute); told.count("dropped") == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("dropped announcements are not told")
			}
		}
		for range 20 {
			announce(t, a, "more")
		}
		if n := told.count("dropped"); n != 1 {
			t.Errorf("told %d times", n)
		}
		for i := range queueLength {
			wants(t, a, fmt.Sprint(i), netip.AddrPortFrom(source, group.Port()))
		}
	})
}

// TestInterfaceMissing: an interface that is not there is told, the others work.
func TestInterfaceMissing(t *testing.T) {
	eachFamily(t, func(t *testing.T, group, _ netip.AddrPort, source netip.Addr) {
		var told reports
		a, err := Open(t.Context(), Config{Groups: []netip.AddrPort{group}, Interfaces: []string{"none0", interfaceName(t)}, Report: told.add})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		a.refresh()
		if n := told.count(`"none0": not there`); n != 1 {
			t.Errorf("the missing interface was told %d times", n)
		}
		announce(t, a, "one")
		wants(t, a, "one", netip.AddrPortFrom(source, group.Port()))

		b, err := Open(t.Context(), Config{Groups: []netip.AddrPort{group}, Interfaces: []string{"none0"}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Announce(t.Context(), []byte("x")); err == nil {
			t.Error("announced on no interface")
		}
	})
}

func TestConfig(t *testing.T) {
	bad := Config{
		Groups: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:3863"), netip.MustParseAddrPort("224.0.1.185:0"), RFCGroups(SiteLocal)[0]},
		Hops:   256,
	}
	err := bad.Validate()
	for _, part := range []string{"10.0.0.1:3863", "224.0.1.185:0", "256"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v; want %s named", err, part)
		}
	}
	if _, err := Open(t.Context(), bad); err == nil {
		t.Error("opened with a bad configuration")
	}
	if got := fmt.Sprint(RFCGroups(SiteLocal), RFCGroups(14), RsplibGroups()); got != "[224.0.1.185:3863 [ff05::133]:3863] [224.0.1.185:3863 [ff0e::133]:3863] [239.0.0.50:3863]" {
		t.Errorf("groups %s", got)
	}
}
