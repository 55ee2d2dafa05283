package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

// These tests run over TCP on loopback, with a scripted registrar.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// server runs handle for each connection.
type server struct {
	net.Listener
	work sync.WaitGroup
}

func newServer(t *testing.T, handle func(*net.TCPConn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l}
	s.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.work.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				handle(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	s.Close()
	s.work.Wait()
}

// echo answers the whole of what it is told, once that has ended.
func echo(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		text, err := io.ReadAll(c)
		if err == nil {
			_, _ = fmt.Fprintf(c, "%s %s", name, text)
		}
	}
}

// world is a registrar, a resolver and a forwarder that serves.
type world struct {
	*Forwarder
	registrar *hunttest.Registrar
	resolver  *pooluser.Resolver
	at        net.Addr
	stop      func() // ends Serve and waits
	end       context.CancelFunc
	done      chan error
}

func forward(t *testing.T, cfg Config, servers ...*server) *world {
	t.Helper()
	l, err := Listen(t.Context(), "tcp://127.0.0.1:0", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return forwardAt(t, l, cfg, servers...)
}

func forwardAt(t *testing.T, l net.Listener, cfg Config, servers ...*server) *world {
	t.Helper()
	var elements []param.PoolElement
	for i, s := range servers {
		at := netip.MustParseAddrPort(s.Addr().String())
		elements = append(elements, param.PoolElement{
			ID: param.PEID(i + 1), Life: 300, Policy: param.Policy{Type: param.RoundRobin},
			User: param.Transport{Type: param.TypeTCPTransport, Port: at.Port(), Addrs: []netip.Addr{at.Addr()}},
		})
	}
	registrar, err := hunttest.Start(tcp.New(), netip.MustParseAddrPort("127.0.0.1:0"), func(msg asap.Message) []asap.Message {
		if q, ok := msg.(*asap.HandleResolution); ok && len(elements) > 0 {
			return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Elements: elements}}
		} else if ok {
			return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	at, err := transport.ParseEndpoint("tcp://"+registrar.Addr().String(), transport.TCP, 0)
	if err != nil {
		t.Fatal(err)
	}
	resolver, err := pooluser.New(pooluser.Config{
		Registrars: []transport.Endpoint{at}, Networks: transport.NewNetworks(tcp.New()), DialStream: DialStream(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	resolver.Start()
	cfg.Pool = "pool"
	f, err := New(cfg, resolver)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	w := &world{Forwarder: f, registrar: registrar, resolver: resolver, at: l.Addr(), end: end, done: make(chan error, 1)}
	go func() { w.done <- f.Serve(ctx, l) }()
	w.stop = sync.OnceFunc(func() {
		end()
		select {
		case err := <-w.done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
	})
	t.Cleanup(func() {
		w.stop()
		resolver.Stop()
		registrar.Stop()
	})
	return w
}

// dial connects a client.
func (w *world) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial(w.at.Network(), w.at.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// ask says something, ends its direction and returns the answer.
func (w *world) ask(t *testing.T, text string) (string, error) {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(halfCloser).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

func (w *world) until(t *testing.T, what string, condition func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(w.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: %+v", what, w.Stats())
		}
	}
}

// wantReports waits until the registrar has all that was sent to it, and counts the
// reports.
func (w *world) wantReports(t *testing.T, want int) {
	t.Helper()
	// Messages on one connection keep their order.
	before := len(w.resolutions())
	if _, err := w.resolver.Renew(t.Context(), "pool"); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the registrar", func(Stats) bool { return len(w.resolutions()) > before })
	got := 0
	for _, m := range w.registrar.Received() {
		if u, ok := m.Message.(*asap.EndpointUnreachable); ok && u.ID == 1 {
			got++
		}
	}
	if got != want {
		t.Errorf("%d reports of the first element, want %d", got, want)
	}
}

func (w *world) resolutions() (all []asap.Message) {
	for _, m := range w.registrar.Received() {
		if q, ok := m.Message.(*asap.HandleResolution); ok {
			all = append(all, q)
		}
	}
	return all
}

func TestClientsReachThePool(t *testing.T) {
	long := strings.Repeat("long ", 100_000)
	for _, tt := range []struct{ name, address string }{
		{"TCP", "127.0.0.1:0"},
		{"Unix", "unix:" + filepath.Join(t.TempDir(), "pool")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := Listen(t.Context(), tt.address, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			w := forwardAt(t, l, Config{}, newServer(t, echo("one")), newServer(t, echo("two")))
			var got []string
			for range 4 {
				answer, err := w.ask(t, long)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, strings.TrimSuffix(answer, " "+long))
			}
			if text := strings.Join(got, " "); text != "one two one two" {
				t.Errorf("answered by %.200s", text)
			}
			w.stop()
			if s := w.Stats(); s.Ended != 4 || s.Active != 0 || s.FromClients != uint64(4*len(long)) || s.ToClients != uint64(4*len(long)+16) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestDeadElementIsReplacedBeforeTheClientNotices(t *testing.T) {
	dead, live := newServer(t, echo("dead")), newServer(t, echo("live"))
	w := forward(t, Config{}, dead, live)
	dead.stop()
	for range 3 {
		if answer, err := w.ask(t, "x"); err != nil || answer != "live x" {
			t.Errorf("%q, %v", answer, err)
		}
	}
	w.stop()
	if s := w.Stats(); s.Replaced != 1 || s.Ended != 3 {
		t.Errorf("%+v", s)
	}
	w.wantReports(t, 1)
}

func TestElementLostInMidStreamResetsTheClient(t *testing.T) {
	fail := make(chan struct{})
	failing := newServer(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "begin")
		<-fail
		_ = c.SetLinger(0)
	})
	w := forward(t, Config{}, failing)
	c := w.dial(t)
	begin := make([]byte, 5)
	if _, err := io.ReadFull(c, begin); err != nil {
		t.Fatal(err)
	}
	close(fail)
	if n, err := c.Read(begin); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %d octets, %v, want a reset", n, err)
	}
	w.stop()
	if s := w.Stats(); s.ElementLost != 1 {
		t.Errorf("%+v", s)
	}
	w.wantReports(t, 1)
}

func TestLostClientResetsTheElement(t *testing.T) {
	seen := make(chan error, 1)
	w := forward(t, Config{}, newServer(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		seen <- err
	}))
	c := w.dial(t)
	if _, err := io.WriteString(c, "begin"); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the beginning", func(s Stats) bool { return s.FromClients == 5 })
	abort(c)
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("element read %v, want a reset", err)
	}
	w.stop()
	if s := w.Stats(); s.ClientLost != 1 {
		t.Errorf("%+v", s)
	}
	w.wantReports(t, 0)
}

func TestWithoutElementTheClientIsReset(t *testing.T) {
	gone := newServer(t, echo("gone"))
	gone.stop()
	for _, tt := range []struct {
		name    string
		servers []*server
	}{{"UnknownPool", nil}, {"NoneAnswers", []*server{gone}}} {
		t.Run(tt.name, func(t *testing.T) {
			w := forward(t, Config{ConnectTimeout: 300 * time.Millisecond}, tt.servers...)
			c, err := net.Dial("tcp", w.at.String())
			if err == nil { // the reset may already be there
				defer c.Close()
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("client got %v, want a reset", err)
			}
			w.until(t, "the end", func(s Stats) bool { return s.Refused == 1 && s.Active == 0 })
		})
	}
}

func TestMoreClientsThanAllowedWait(t *testing.T) {
	w := forward(t, Config{MaxConnections: 2}, newServer(t, echo("one")))
	first, second := w.dial(t), w.dial(t)
	w.until(t, "two connections", func(s Stats) bool { return s.Active == 2 && s.Full == 1 })
	third := w.dial(t)
	if _, err := io.WriteString(third, "patient"); err != nil {
		t.Fatal(err)
	}
	if err := third.(halfCloser).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	first.Close()
	answer, err := io.ReadAll(third)
	if err != nil || string(answer) != "one patient" {
		t.Errorf("%q, %v", answer, err)
	}
	second.Close()
}

func TestEndOfServe(t *testing.T) {
	t.Run("LetsConnectionsFinish", func(t *testing.T) {
		w := forward(t, Config{Drain: time.Minute}, newServer(t, echo("one")))
		c := w.dial(t)
		if _, err := io.WriteString(c, "half "); err != nil {
			t.Fatal(err)
		}
		w.until(t, "the first half", func(s Stats) bool { return s.FromClients == 5 })
		w.end()
		for { // no new ones
			late, err := net.Dial("tcp", w.at.String())
			if err != nil {
				break
			}
			late.Close()
		}
		if _, err := io.WriteString(c, "whole"); err != nil {
			t.Fatal(err)
		}
		if err := c.(halfCloser).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(c); err != nil || string(answer) != "one half whole" {
			t.Errorf("%q, %v", answer, err)
		}
		w.stop()
	})
	t.Run("ResetsThoseThatDont", func(t *testing.T) {
		w := forward(t, Config{Drain: time.Millisecond}, newServer(t, echo("one")))
		c := w.dial(t)
		if _, err := io.WriteString(c, "half "); err != nil {
			t.Fatal(err)
		}
		w.until(t, "the first half", func(s Stats) bool { return s.FromClients == 5 })
		w.stop()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client read %v, want a reset", err)
		}
		if s := w.Stats(); s.Stopped != 1 {
			t.Errorf("%+v", s)
		}
		w.wantReports(t, 0)
	})
}

func TestSocketOfADeadProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix:"+path, 0); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside a living one: %v", err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	l, err := Listen(t.Context(), "unix://"+path, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:9000": true, "tcp://[::1]:9000": true, "unix:/run/p": true, "unix:///run/p": true, ":80": true,
		"9000": false, "127.0.0.1:": false, "127.0.0.1:99999": false, "unix:": false, "": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestValidateNamesAllProblems(t *testing.T) {
	_, err := New(Config{MaxConnections: -1, ConnectTimeout: -1}, nil)
	for _, want := range []string{"Pool is missing", "MaxConnections is -1", "ConnectTimeout is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
