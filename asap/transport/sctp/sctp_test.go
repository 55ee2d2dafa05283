//go:build linux && !386

package sctp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/transporttest"
)

// The lab (scripts/lab.sh) runs these tests as root in a guest of its own, with
// the addresses 10.8.0.1, 10.8.0.2 and fd00:8::1 on lo. There they must run.
var inLab = os.Getenv("RSERPOOL_LAB") != ""

func needSCTP(t *testing.T) {
	t.Helper()
	if err := New().Available(); err != nil {
		if inLab {
			t.Fatal(err)
		}
		t.Skipf("NOT TESTED HERE, run scripts/lab.sh sctp: %v", err)
	}
}

func needLab(t *testing.T) {
	t.Helper()
	needSCTP(t)
	if !inLab {
		t.Skip("NOT TESTED HERE: changes the machine's addresses; run scripts/lab.sh sctp")
	}
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func ports(addrs ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// pair returns the two ends of an association.
func pair(t *testing.T, local, listen []netip.AddrPort, opt transport.Options) (client, server transport.Conn) {
	t.Helper()
	needSCTP(t)
	l, err := New().Listen(patient(t), listen, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return associate(t, local, l, opt)
}

func associate(t *testing.T, local []netip.AddrPort, l transport.Listener, opt transport.Options) (client, server transport.Conn) {
	t.Helper()
	client, err := New().Dial(patient(t), local, l.Addrs(), opt)
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// read reads in the background until the end, so that events come.
func read(t *testing.T, c transport.Conn) <-chan error {
	end := make(chan error, 1)
	go func() {
		buf := make([]byte, transport.MaxMessage)
		for {
			if _, err := c.Receive(context.Background(), buf); err != nil {
				end <- err
				return
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close() })
	return end
}

func waitFor(t *testing.T, c transport.Conn, what transport.EventType, addr netip.Addr) transport.Event {
	t.Helper()
	for {
		select {
		case e := <-c.Events():
			if e.Type == what && (!addr.IsValid() || e.Addr.Addr() == addr) {
				return e
			}
		case <-patient(t).Done():
			t.Fatalf("no event of type %d about %v", what, addr)
		}
	}
}

func exchange(t *testing.T, from, to transport.Conn, text string) {
	t.Helper()
	if err := from.Send(patient(t), transport.Message{Data: []byte(text), PPID: 11}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	m, err := to.Receive(patient(t), buf)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != text {
		t.Fatalf("received %q, want %q", m.Data, text)
	}
}

func TestConformance(t *testing.T) {
	needSCTP(t)
	for _, test := range []struct {
		name   string
		listen []netip.AddrPort
		lab    bool
	}{
		{"IPv4", ports("127.0.0.1:0"), false},
		{"IPv6", ports("[::1]:0"), false},
		{"TwoAddresses", ports("10.8.0.1:0", "10.8.0.2:0"), true},
		{"BothFamilies", ports("10.8.0.1:0", "[fd00:8::1]:0"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.lab {
				needLab(t)
			}
			transporttest.Suite{
				Setup: func(*testing.T) transporttest.Sides {
					return transporttest.Sides{Client: New(), Server: New(), Listen: test.listen}
				},
				PPID: true, Buffered: true, Next: true,
			}.Run(t)
		})
	}
}

func TestUnavailableSaysWhy(t *testing.T) {
	if err := New().Available(); err == nil {
		t.Skip("this kernel has SCTP")
	} else if !errors.Is(err, transport.ErrUnsupported) {
		t.Errorf("error %v does not wrap ErrUnsupported", err)
	}
	for _, err := range []error{
		func() error {
			_, err := New().Listen(patient(t), ports("127.0.0.1:0"), transport.Options{})
			return err
		}(),
		func() error {
			_, err := New().Dial(patient(t), nil, ports("127.0.0.1:1"), transport.Options{})
			return err
		}(),
	} {
		if !errors.Is(err, transport.ErrUnsupported) {
			t.Errorf("error %v does not wrap ErrUnsupported", err)
		}
	}
}

func TestMultiHomedAddresses(t *testing.T) {
	needLab(t)
	listen := ports("10.8.0.1:0", "10.8.0.2:0", "[fd00:8::1]:0")
	client, server := pair(t, ports("10.8.0.2:0", "10.8.0.1:0"), listen, transport.Options{})
	addrs := func(list []netip.AddrPort) []string {
		var out []string
		for _, a := range list {
			out = append(out, a.Addr().String())
		}
		slices.Sort(out)
		return out
	}
	both := []string{"10.8.0.1", "10.8.0.2"}
	for _, test := range []struct {
		what string
		got  []netip.AddrPort
		want []string
	}{
		{"client's local", client.LocalAddrs(), both},
		{"client's remote", client.RemoteAddrs(), both}, // it has no IPv6 address
		{"server's local", server.LocalAddrs(), both},
		{"server's remote", server.RemoteAddrs(), both},
	} {
		if got := addrs(test.got); !slices.Equal(slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, ":") }), test.want) {
			t.Errorf("%s addresses %v, want %v", test.what, got, test.want)
		}
	}
	if got := client.RemoteAddrs()[0].Addr().String(); got != "10.8.0.1" {
		t.Errorf("primary is %s, want the first address dialled", got)
	}
}

func TestWildcardTakesBothFamilies(t *testing.T) {
	needSCTP(t)
	l, err := New().Listen(patient(t), ports("[::]:0"), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addrs()[0].Port()
	if got := l.Addrs()[0].Addr(); !got.IsUnspecified() || port == 0 {
		t.Errorf("listener's address is %v, want an unspecified one and its port", l.Addrs())
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
		client, err := New().Dial(patient(t), nil, []netip.AddrPort{to}, transport.Options{})
		if err != nil {
			t.Fatalf("dial %v: %v", to, err)
		}
		server, err := l.Accept(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, client, server, "to "+host)
		if got := client.RemoteAddrs()[0]; got != to {
			t.Errorf("remote address %v, want %v", got, to)
		}
		_, _ = client.Close(), server.Close()
	}
}

func TestPathEvents(t *testing.T) {
	needLab(t)
	// The time-outs of a path that doesn't answer grow up to a minute.
	command(t, "sysctl", "-q", "-w", "net.sctp.rto_max=1000")
	defer command(t, "sysctl", "-q", "-w", "net.sctp.rto_max=60000")
	opt := transport.Options{Heartbeat: 300 * time.Millisecond, PathMaxRetrans: 1, AssocMaxRetrans: 20}
	client, server := pair(t, ports("10.8.0.1:0"), ports("10.8.0.1:0", "10.8.0.2:0"), opt)
	second := netip.MustParseAddr("10.8.0.2")
	read(t, client)
	waitFor(t, client, transport.Up, netip.Addr{})
	command(t, "ip", "address", "del", "10.8.0.2/24", "dev", "lo")
	command(t, "ip", "route", "add", "blackhole", "10.8.0.2")
	waitFor(t, client, transport.PathDown, second)
	exchange(t, client, server, "still there")
	command(t, "ip", "route", "del", "blackhole", "10.8.0.2")
	command(t, "ip", "address", "add", "10.8.0.2/24", "dev", "lo")
	waitFor(t, client, transport.PathUp, second)
}

func TestRestartedPeer(t *testing.T) {
	needLab(t)
	l, err := New().Listen(patient(t), ports("10.8.0.1:0"), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := ports("10.8.0.2:7777")
	client, server := associate(t, from, l, transport.Options{})
	exchange(t, client, server, "before")
	end := read(t, server)
	// The client goes and nobody hears of it.
	command(t, "tc", "qdisc", "replace", "dev", "lo", "root", "netem", "loss", "100%")
	if err := client.Abort(); err != nil {
		t.Fatal(err)
	}
	command(t, "tc", "qdisc", "del", "dev", "lo", "root")
	again, err := New().Dial(patient(t), from, l.Addrs(), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	waitFor(t, server, transport.Up, netip.Addr{})
	if err := again.Send(patient(t), transport.Message{Data: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-end:
		t.Errorf("the association ended: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
}

func TestEventsOfAnEnd(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(transport.Conn) error
		want func(error) bool
	}{
		"Close": {transport.Conn.Close, func(err error) bool { return err == io.EOF }},
		"Abort": {transport.Conn.Abort, func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
			end := read(t, server)
			waitFor(t, server, transport.Up, netip.Addr{})
			if err := test.end(client); err != nil {
				t.Fatal(err)
			}
			e := waitFor(t, server, transport.Down, netip.Addr{})
			err := <-end
			if !test.want(err) {
				t.Errorf("Receive returned %v", err)
			}
			if (e.Err == nil) != (err == io.EOF) {
				t.Errorf("event says %v, Receive %v", e.Err, err)
			}
		})
	}
}

// What was sent before Close arrives although the closing side has messages
// that it did not read, which by itself makes the kernel abort.
func TestCloseWithUnreadMessages(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	for i := range 50 {
		if err := server.Send(patient(t), transport.Message{Data: fmt.Appendf(nil, "unread %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if err := client.Send(patient(t), transport.Message{Data: fmt.Appendf(nil, "last words %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for i := range 50 {
		m, err := server.Receive(patient(t), buf)
		if err != nil || string(m.Data) != fmt.Sprintf("last words %d", i) {
			t.Fatalf("message %d is %q, %v", i, m.Data, err)
		}
	}
	if _, err := server.Receive(patient(t), buf); err != io.EOF {
		t.Errorf("then %v, want EOF", err)
	}
}

func TestSizes(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	buf := make([]byte, transport.MaxMessage)
	for _, n := range []int{1, 4, 1 << 11, 1<<11 + 1, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1<<16 - 1, 1 << 16} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i * n >> 3)
		}
		go func() { _ = client.Send(patient(t), transport.Message{Data: data, Stream: 3, PPID: 12}) }()
		m, err := server.Receive(patient(t), buf)
		if err != nil {
			t.Fatalf("%d octets: %v", n, err)
		}
		if string(m.Data) != string(data) || m.Stream != 3 || m.PPID != 12 {
			t.Errorf("%d octets: got %d octets, stream %d, PPID %d", n, len(m.Data), m.Stream, m.PPID)
		}
	}
}

// Long messages between short ones, which are read ahead.
func TestMixedSizes(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	const count = 300
	size := func(i int) int { return []int{50, 40000, 100, 100, 100, 3000}[i%6] }
	begin := time.Now()
	go func() {
		for i := range count {
			if err := client.Send(patient(t), transport.Message{Data: bytes.Repeat([]byte{byte(i)}, size(i))}); err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
		}
	}()
	buf := make([]byte, transport.MaxMessage)
	for i := range count {
		m, err := server.Receive(patient(t), buf)
		if err != nil || len(m.Data) != size(i) || m.Data[0] != byte(i) || m.Data[size(i)-1] != byte(i) {
			t.Fatalf("message %d of %d octets: %d octets, %v", i, size(i), len(m.Data), err)
		}
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestReusePort(t *testing.T) {
	needSCTP(t)
	opt := transport.Options{ReusePort: true}
	listen := func() transport.Listener {
		l, err := New().Listen(patient(t), ports("127.0.0.1:0"), opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	ours, theirs := listen(), listen()
	client, server := associate(t, ours.Addrs(), theirs, opt)
	if got := server.RemoteAddrs()[0]; got != ours.Addrs()[0] {
		t.Errorf("association comes from %v, want the listener's %v", got, ours.Addrs()[0])
	}
	exchange(t, client, server, "hello")
	// Another to the same peer has to leave from another port.
	another, server2 := associate(t, ours.Addrs(), theirs, opt)
	if got := another.LocalAddrs()[0]; got.Addr() != ours.Addrs()[0].Addr() || got.Port() == ours.Addrs()[0].Port() {
		t.Errorf("second association comes from %v", got)
	}
	exchange(t, another, server2, "hello")
	// And there, too, others can be let in afterwards.
	late, err := New().Listen(patient(t), another.LocalAddrs(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	fromElsewhere, accepted2 := associate(t, nil, late, transport.Options{})
	exchange(t, fromElsewhere, accepted2, "hello")
	exchange(t, another, server2, "still there")
	// The listener goes on accepting.
	back, accepted := associate(t, nil, ours, transport.Options{})
	exchange(t, back, accepted, "hello")
}

func TestStreamsAreFew(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{Streams: 4})
	if err := client.Send(patient(t), transport.Message{Data: []byte("last"), Stream: 3}); err != nil {
		t.Error(err)
	}
	if err := client.Send(patient(t), transport.Message{Data: []byte("none"), Stream: 4}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("stream 4 of 4: %v, want EINVAL", err)
	}
	buf := make([]byte, 100)
	if m, err := server.Receive(patient(t), buf); err != nil || m.Stream != 3 {
		t.Errorf("received %+v, %v", m, err)
	}
	exchange(t, client, server, "goes on")
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	ctx := patient(t)
	buf := make([]byte, 2000)
	msg := transport.Message{Data: make([]byte, 100), PPID: 11}
	msgs := []transport.Message{msg, msg}
	n := testing.AllocsPerRun(200, func() {
		if err := client.Send(ctx, msgs...); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := server.Receive(ctx, buf); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n > 0 {
		t.Errorf("%v allocations for two messages", n)
	}
}

// Waiting readers hold no operating system threads.
func TestThreads(t *testing.T) {
	needSCTP(t)
	l, err := New().Listen(patient(t), ports("127.0.0.1:0"), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer debug.SetMaxThreads(debug.SetMaxThreads(100))
	for range 200 {
		client, server := associate(t, nil, l, transport.Options{})
		read(t, client)
		read(t, server)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "Threads:")
	line, _, _ := strings.Cut(rest, "\n")
	if n, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || n > 50 {
		t.Errorf("%d threads for 400 waiting readers (%v)", n, err)
	}
}

func TestRefused(t *testing.T) {
	needSCTP(t)
	_, err := New().Dial(patient(t), nil, ports("127.0.0.1:9"), transport.Options{})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial nobody: %v, want ECONNREFUSED", err)
	}
	if _, err := New().Dial(patient(t), nil, ports("127.0.0.1:9", "127.0.0.2:10"), transport.Options{}); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("two ports: %v", err)
	}
}

func TestSendAfterTheEnd(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	if err := server.Abort(); err != nil {
		t.Fatal(err)
	}
	for {
		err := client.Send(patient(t), transport.Message{Data: []byte("x")})
		if err == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send returned %v", err)
		}
		break
	}
	waitFor(t, client, transport.Down, netip.Addr{})
}
