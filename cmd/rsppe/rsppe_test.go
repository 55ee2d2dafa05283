package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/asap/transport/transporttest"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/clidoc"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		play(role)
	}
	goleak.VerifyTestMain(m)
}

func TestReferenceIsUpToDate(t *testing.T) { clidoc.Check(t, command(), 8) }

// registrar is a registrar on loopback that answers as told and reports what it
// gets.
type registrar struct {
	t    *testing.T
	addr string
	got  chan asap.Message
	stop func() // may be called twice
}

// newRegistrar starts a registrar; answer returns the answer to a message, nil
// for none.
func newRegistrar(t *testing.T, answer func(asap.Message) asap.Message) *registrar {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := tcp.New().Listen(ctx, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &registrar{t: t, addr: "tcp://" + l.Addrs()[0].String(), got: make(chan asap.Message, 100)}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			tasks.Go(func() { r.serve(ctx, conn, answer) })
		}
	})
	r.stop = func() {
		cancel()
		l.Close()
		tasks.Wait()
	}
	t.Cleanup(r.stop)
	return r
}

func (r *registrar) serve(ctx context.Context, conn transport.Conn, answer func(asap.Message) asap.Message) {
	defer conn.Close()
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := conn.Receive(ctx, buf)
		if err != nil {
			return
		}
		msg, _, err := asap.Decode(m.Data)
		if err != nil {
			r.t.Errorf("registrar got %x: %v", m.Data, err)
			return
		}
		if a := answer(msg); a != nil {
			data, err := a.Append(nil)
			if err == nil {
				err = conn.Send(ctx, transport.Message{Data: data})
			}
			if err != nil {
				r.t.Errorf("registrar answers: %v", err)
			}
		}
		r.got <- msg
	}
}

// oblige answers everything with success.
func oblige(msg asap.Message) asap.Message {
	switch m := msg.(type) {
	case *asap.Registration:
		return &asap.RegistrationResponse{Handle: m.Handle, ID: m.Element.ID}
	case *asap.Deregistration:
		return &asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID}
	}
	return nil
}

// ignoring answers like oblige, but not the messages of one type.
func ignoring[M asap.Message](msg asap.Message) asap.Message {
	if _, ok := msg.(M); ok {
		return nil
	}
	return oblige(msg)
}

func expect[M asap.Message](t *testing.T, r *registrar) M {
	t.Helper()
	select {
	case msg := <-r.got:
		m, ok := msg.(M)
		if !ok {
			t.Fatalf("registrar got %T, want %T", msg, m)
		}
		return m
	case <-time.After(time.Minute):
		var m M
		t.Fatalf("registrar got no %T", m)
		return m
	}
}

// program is a rsppe that runs.
type program struct {
	terminate context.CancelFunc
	exit      chan cli.ExitCode
	stdout    output
	stderr    output
}

// output is what has been written so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func start(t *testing.T, args ...string) *program {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	p := &program{terminate: cancel, exit: make(chan cli.ExitCode, 1)}
	// A machine that does something else for some seconds fails a check or two.
	args = append([]string{"--check-interval", "200ms", "--check-timeout", "200ms", "--check-fall", "5", "--check-rise", "1"}, args...)
	go func() { p.exit <- cli.Run(ctx, command(), args, &p.stdout, &p.stderr) }()
	return p
}

func (p *program) expectExit(t *testing.T, want cli.ExitCode, says string) {
	t.Helper()
	select {
	case got := <-p.exit:
		if got != want || !strings.Contains(p.stderr.String(), says) {
			t.Errorf("exit code %d, want %d; want it to say %q:\n%s", got, want, says, &p.stderr)
		}
	case <-time.After(time.Minute):
		t.Fatal("rsppe does not end")
	}
}

func TestServerJoinsLeavesAndComesBack(t *testing.T) {
	r := newRegistrar(t, oblige)
	var mu sync.Mutex
	healthy := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	set := func(h bool) {
		mu.Lock()
		defer mu.Unlock()
		healthy = h
	}
	address := strings.TrimPrefix(server.URL, "http://")
	p := start(t, "--pool", "echo", "--policy", "wrr:5", "--service", "tcp://"+address, "--registrar", r.addr,
		"--check", server.URL+"/health", "--life", "1m", "--id", "0x11223344")

	reg := expect[*asap.Registration](t, r)
	want := netip.MustParseAddrPort(address)
	if u := reg.Element.User; u.Type != param.TypeTCPTransport || len(u.Addrs) != 1 || u.AddrPorts()[0] != want {
		t.Errorf("registered %+v, want %v", u, want)
	}
	if e := reg.Element; reg.Handle != "echo" || e.ID != 0x11223344 || e.Life != 60 ||
		e.Policy != (param.Policy{Type: param.WeightedRoundRobin, Weight: 5}) {
		t.Errorf("registered %+v", reg)
	}
	set(false)
	expect[*asap.Deregistration](t, r)
	set(true)
	expect[*asap.Registration](t, r)
	p.terminate()
	expect[*asap.Deregistration](t, r)
	p.expectExit(t, cli.OK, "service is down")
}

func TestTCPCheckIsTheDefault(t *testing.T) {
	r := newRegistrar(t, oblige)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "--pool", "echo", "--service", "tcp://"+l.Addr().String(), "--registrar", r.addr)
	expect[*asap.Registration](t, r)
	l.Close()
	expect[*asap.Deregistration](t, r)
	p.terminate()
	p.expectExit(t, cli.OK, "connection refused")
}

func TestAdvertisedSCTPServiceWithControlChannel(t *testing.T) {
	r := newRegistrar(t, oblige)
	p := start(t, "--pool", "echo", "--service", "sctp://127.0.0.1:7", "--advertise", "192.0.2.7,[2001:db8::7]:70",
		"--control-channel", "--registrar", r.addr)
	reg := expect[*asap.Registration](t, r)
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:70"), netip.MustParseAddrPort("[2001:db8::7]:70")}
	if u := reg.Element.User; u.Type != param.TypeSCTPTransport || u.Use != param.DataAndControl ||
		len(u.Addrs) != 2 || u.AddrPorts()[0] != want[0] || u.AddrPorts()[1] != want[1] {
		t.Errorf("registered %+v", u)
	}
	p.terminate()
	p.expectExit(t, cli.OK, "registered")
}

func TestLoadReachesTheRegistrar(t *testing.T) {
	r := newRegistrar(t, oblige)
	load := t.TempDir() + "/load"
	if err := os.WriteFile(load, []byte("75%\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--pool", "echo", "--policy", "lu", "--service", "tcp://127.0.0.1:7", "--check", "none", "--registrar", r.addr,
		"--load", "file:"+load, "--load-interval", "10ms", "--load-report-interval", "1ms")
	for expect[*asap.Registration](t, r).Element.Policy.Load != 0xbfffffff {
	}
	p.terminate()
	p.expectExit(t, cli.OK, "")
}

func TestExitCodes(t *testing.T) {
	args := []string{"--pool", "echo", "--service", "tcp://127.0.0.1:7", "--check", "none", "--timers", "fast"}
	t.Run("RefusedForGood", func(t *testing.T) {
		r := newRegistrar(t, func(msg asap.Message) asap.Message {
			m, ok := msg.(*asap.Registration)
			if !ok {
				return nil
			}
			cause := param.PolicyCause(param.CauseInconsistentPolicy, param.Policy{Type: param.LeastUsed})
			return &asap.RegistrationResponse{Reject: true, Handle: m.Handle, ID: m.Element.ID, Error: param.OperationError{cause}}
		})
		start(t, append(args, "--registrar", r.addr)...).expectExit(t, cli.Failed, "Inconsistent Pooling Policy")
	})
	t.Run("NoAnswer", func(t *testing.T) {
		r := newRegistrar(t, ignoring[*asap.Registration])
		start(t, append(args, "--registrar", r.addr, "--give-up", "--stop-timeout", "10ms")...).expectExit(t, cli.Unreachable, "")
	})
	t.Run("NoRegistrar", func(t *testing.T) {
		start(t, append(args, "--registrar", "tcp://"+transporttest.FreeAddress(t), "--give-up")...).expectExit(t, cli.Unreachable, "no registrar reachable")
	})
	t.Run("RegistrarLost", func(t *testing.T) {
		r := newRegistrar(t, oblige)
		p := start(t, append(args, "--registrar", r.addr, "--give-up", "--stop-timeout", "10ms")...)
		expect[*asap.Registration](t, r)
		r.stop()
		p.expectExit(t, cli.Unreachable, "no registrar reachable")
	})
	t.Run("DeregistrationNotConfirmed", func(t *testing.T) {
		r := newRegistrar(t, ignoring[*asap.Deregistration])
		p := start(t, append(args, "--registrar", r.addr, "--stop-timeout", "10ms")...)
		expect[*asap.Registration](t, r)
		until(t, "the answer", func() bool { return strings.Contains(p.stderr.String(), "msg=registered") })
		p.terminate()
		p.expectExit(t, cli.TimedOut, "not confirmed in time")
	})
	t.Run("Usage", func(t *testing.T) {
		start(t, "--pool", "echo", "--service", "tcp://127.0.0.1").expectExit(t, cli.Usage, "has no port")
	})
}

// parse returns the settings of a command line.
func parse(t *testing.T, args ...string) settings {
	t.Helper()
	var c settings
	fs := pflag.NewFlagSet("rsppe", pflag.ContinueOnError)
	c.declare(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReloadChangesPolicyAndLife(t *testing.T) {
	r := newRegistrar(t, oblige)
	base := []string{"--pool", "echo", "--service", "tcp://127.0.0.1:7", "--check", "none", "--registrar", r.addr}
	files := make(chan func() (settings, error), 1)
	hangups := make(chan os.Signal)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := logrus.New()
	log.SetOutput(&bytes.Buffer{})
	ended := make(chan error, 1)
	go func() {
		j := job{log: log, hangups: hangups, load: func() (settings, error) { return (<-files)() }}
		ended <- j.run(ctx, parse(t, append(base, "--policy", "wrr:1")...))
	}()
	if reg := expect[*asap.Registration](t, r); reg.Element.Policy.Weight != 1 {
		t.Errorf("registered %+v", reg.Element.Policy)
	}

	files <- func() (settings, error) { return settings{}, os.ErrNotExist }
	hangups <- nil
	next := parse(t, append(base, "--policy", "wrr:9", "--life", "2m")...)
	files <- func() (settings, error) { return next, nil }
	hangups <- nil
	for {
		if e := expect[*asap.Registration](t, r).Element; e.Policy.Weight == 9 && e.Life == 120 {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestValidateNamesAllProblems(t *testing.T) {
	c := parse(t, "--service", "ftp://x", "--policy", "best", "--life", "-1s", "--id", "0", "--listen", "x:y",
		"--check", "ping", "--check-status", "ok", "--load", "cpu", "--announce", "192.0.2.1", "--timers", "slow")
	err := c.validate()
	for _, want := range []string{
		"pool: which pool", "does not begin with tcp://", "policy: unknown policy", "life: -1s", "id: ", "listen: ",
		"announce: ", "timers: ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("validate does not say %q:\n%v", want, err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--service", "tcp://[::1]:80", "--check", "ping"}, "unknown kind"},
		{[]string{"--service", "tcp://[::1]:80", "--check-status", "ok"}, "check-status"},
		{[]string{"--service", "tcp://[::1]:80", "--load", "file:/x"}, `the policy "rr" has no load`},
		{[]string{"--service", "tcp://[::1]:80", "--policy", "ewma", "--load", "file:/x"}, `the policy "ewma" has no load`},
		{[]string{"--service", "tcp://[::1]:80", "--control-channel"}, "only an SCTP service"},
		{[]string{"--service", "tcp://[::1]:80", "--advertise", "name.example"}, "not an IP address"},
		{[]string{"--service", "tcp://[::1]:80", "--advertise", "192.0.2.1,192.0.2.2"}, "several addresses"},
		{[]string{"--service", "tcp://[::1]:80", "--check-timeout", "1m"}, "not be longer than"},
		{[]string{"--service", "tcp://[::1]:80", "--life", "10s", "--reregister", "11s"}, "shorter than Life"},
	} {
		args := append([]string{"--pool", "echo", "--registrar", "192.0.2.1"}, c.args...)
		s := parse(t, args...)
		if err := s.validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
	// rsplib's types do not say that they follow a load.
	s := parse(t, "--pool", "echo", "--registrar", "192.0.2.1", "--service", "tcp://[::1]:80", "--policy", "ludpf", "--load", "file:/x")
	if err := s.validate(); err != nil {
		t.Error(err)
	}
}

func TestASAP_3_2_18_DeregistrationCutsNoTraffic(t *testing.T) {
	r := newRegistrar(t, oblige)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := start(t, "--pool", "echo", "--service", "tcp://"+l.Addr().String(), "--check", "none", "--registrar", r.addr)
	at := expect[*asap.Registration](t, r).Element.User.AddrPorts()[0]
	user, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p.terminate()
	expect[*asap.Deregistration](t, r)
	p.expectExit(t, cli.OK, "deregistered")

	answer := make([]byte, 2)
	if _, err := user.Write([]byte("hi")); err != nil {
		t.Error(err)
	}
	if _, err := server.Read(answer); err != nil || string(answer) != "hi" {
		t.Errorf("the server read %q, %v", answer, err)
	}
	t.Run("ASAP_3_2_09_NewUsersMayStillCome", func(t *testing.T) {
		late, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		late.Close()
	})
}
