// Package transporttest is the test suite that every transport.Network passes.
package transporttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap/transport"
)

// patience bounds each step of a test; it only passes when something hangs.
const patience = time.Minute

// Sides are the two ends of a test: networks, which may be the same, and what
// the server listens on. The port is 0.
type Sides struct {
	Client, Server transport.Network
	Listen         []netip.AddrPort
}

// Suite says how to test a network.
type Suite struct {
	// Setup makes the sides, once per test.
	Setup func(t *testing.T) Sides
	// Wrap runs a test, for example synctest.Test; nil calls it.
	Wrap func(t *testing.T, test func(t *testing.T))
	// PPID and Buffered tell what the network can do: carry payload protocol
	// identifiers and streams; know what the next Receive will find.
	PPID, Buffered bool
	// NoStreams: it carries payload protocol identifiers, but no streams.
	NoStreams bool
	// Next: connections are transport.Nexter.
	Next bool
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"Addresses", testAddresses},
		{"Order", testOrder},
		{"ConcurrentSenders", testConcurrentSenders},
		{"PPID", testPPID},
		{"Buffered", testBuffered},
		{"Next", testNext},
		{"NextInterrupted", testNextInterrupted},
		{"NextTooLong", testNextTooLong},
		{"LongestMessage", testLongestMessage},
		{"TooLongForBuffer", testTooLongForBuffer},
		{"TooLongForLimit", testTooLongForLimit},
		{"BackPressure", testBackPressure},
		{"SendEndsWithContext", testSendEndsWithContext},
		{"ReceiveEndsWithContext", testReceiveEndsWithContext},
		{"CancelLosesNothing", testCancelLosesNothing},
		{"PeerCloses", testPeerCloses},
		{"PeerAborts", testPeerAborts},
		{"CloseWakesReceive", testCloseWakesReceive},
		{"CloseWakesSend", testCloseWakesSend},
		{"ClosedConn", testClosedConn},
		{"CloseWakesAccept", testCloseWakesAccept},
		{"AcceptEndsWithContext", testAcceptEndsWithContext},
		{"ListenerGoesConnectionsStay", testListenerGoes},
		{"DialNobody", testDialNobody},
		{"DialEndedContext", testDialEndedContext},
		{"DialFromAddress", testDialFromAddress},
		{"ManyConnections", testManyConnections},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := func(t *testing.T) { test.run(t, s) }
			if s.Wrap != nil {
				s.Wrap(t, body)
			} else {
				body(t)
			}
		})
	}
	goleak.VerifyNone(t)
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// listen returns the sides and a listener of the server.
func (s Suite) listen(t *testing.T, opt transport.Options) (Sides, transport.Listener) {
	t.Helper()
	sides := s.Setup(t)
	l, err := sides.Server.Listen(patient(t), sides.Listen, opt)
	if err != nil {
		t.Fatalf("listen on %v: %v", sides.Listen, err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the listener: %v", err)
		}
	})
	return sides, l
}

// connect returns the two ends of a connection to l.
func connect(t *testing.T, sides Sides, l transport.Listener, opt transport.Options) (client, server transport.Conn) {
	t.Helper()
	client, err := sides.Client.Dial(patient(t), nil, l.Addrs(), opt)
	if err != nil {
		t.Fatalf("dial %v: %v", l.Addrs(), err)
	}
	t.Cleanup(func() { _ = client.Close() }) // most tests have closed it before
	server, err = l.Accept(patient(t))
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func (s Suite) pair(t *testing.T, opt transport.Options) (client, server transport.Conn) {
	t.Helper()
	sides, l := s.listen(t, opt)
	return connect(t, sides, l, opt)
}

// message returns a well-framed message of n octets with a number in it and
// padding behind it.
func message(number, n int) transport.Message {
	data := make([]byte, n, n+3)
	data[0] = 0xfe
	binary.BigEndian.PutUint16(data[2:], uint16(n))
	if n >= 8 {
		binary.BigEndian.PutUint32(data[4:], uint32(number))
	}
	for i := 8; i < n; i++ {
		data[i] = byte(number + i)
	}
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	return transport.Message{Data: data, PPID: transport.PPIDASAP}
}

// check complains when m is not message(number, n).
func check(t *testing.T, m transport.Message, number, n int) {
	t.Helper()
	want := message(number, n)
	if string(m.Data) != string(want.Data) {
		t.Fatalf("received %d octets %.16x..., want message %d: %d octets %.16x...",
			len(m.Data), m.Data, number, len(want.Data), want.Data)
	}
}

func send(t *testing.T, c transport.Conn, msgs ...transport.Message) {
	t.Helper()
	if err := c.Send(patient(t), msgs...); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func receive(t *testing.T, c transport.Conn) transport.Message {
	t.Helper()
	m, err := c.Receive(patient(t), make([]byte, transport.MaxMessage))
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m
}

// waitFor waits for an event of this type and returns it.
func waitFor(t *testing.T, c transport.Conn, want transport.EventType) transport.Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-c.Events():
			if e.Type == want {
				return e
			}
		case <-timeout:
			t.Fatalf("no event of type %d", want)
		}
	}
}

// Loopbacks are the loopback addresses of both families, with port 0.
var Loopbacks = map[string]netip.AddrPort{
	"IPv4": netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0),
	"IPv6": netip.AddrPortFrom(netip.IPv6Loopback(), 0),
}

// ports hands out ports below those that the kernel gives to clients and to whoever
// listens anywhere, each once.
var ports = struct {
	sync.Mutex
	next int
}{next: 10000 + rand.IntN(10000)}

// FreeAddress returns a TCP address of loopback that nobody listens at, for a program
// that is told where to listen.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		ports.next++
		address := fmt.Sprintf("127.0.0.1:%d", ports.next)
		if l, err := net.Listen("tcp", address); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// Need skips the test, and says so, when this machine lacks the address.
func Need(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: this machine has no %s: %v", addr.Addr(), err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
