package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
)

// These tests run the program over TCP on loopback, with a scripted registrar
// and elements in this process.

// loopback is a free port there.
var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// element is a server that answers lines with its name and the line.
type element struct {
	listener net.Listener
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newElement(t *testing.T, name string) *element {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &element{listener: l}
	e.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, conn)
			e.mu.Unlock()
			e.work.Go(func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					fmt.Fprintf(conn, "%s %s\n", name, in.Text())
				}
			})
		}
	})
	t.Cleanup(e.stop)
	return e
}

// stop ends the element and its connections.
func (e *element) stop() {
	_ = e.listener.Close()
	e.mu.Lock()
	for _, c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	e.work.Wait()
}

func poolElement(id param.PEID, at net.Addr) param.PoolElement {
	ap := netip.MustParseAddrPort(at.String())
	return param.PoolElement{
		ID: id, Life: 300, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: ap.Port(), Addrs: []netip.Addr{ap.Addr()}},
	}
}

// registrar knows one pool with these elements.
func registrar(t *testing.T, elements ...param.PoolElement) *hunttest.Registrar {
	t.Helper()
	r, err := hunttest.Start(tcp.New(), netip.MustParseAddrPort("127.0.0.1:0"), func(msg asap.Message) []asap.Message {
		q, ok := msg.(*asap.HandleResolution)
		switch {
		case !ok:
			return nil
		case q.Handle != "pool":
			return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}}
		}
		return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Elements: elements}}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

type result struct {
	code        cli.ExitCode
	out, errOut string
}

func program() *cobra.Command { return command(transport.NewNetworks(tcp.New())) }

// patient gives every step the time that a machine with much to do may need.
var patient = []string{"--timeout", "1m", "--attempt-timeout", "1m", "--log-level", "warn"}

// rsppu runs the program.
func rsppu(t *testing.T, r *hunttest.Registrar, input string, args ...string) result {
	t.Helper()
	cmd := program()
	cmd.SetIn(strings.NewReader(input))
	var out, errOut bytes.Buffer
	args = slices.Concat([]string{"--registrar", "tcp://" + r.Addr().String()}, patient, args)
	code := cli.Run(t.Context(), cmd, args, &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func (r result) want(t *testing.T, code cli.ExitCode, out string) {
	t.Helper()
	if r.code != code || r.out != out {
		t.Errorf("exit code %d (%s), output %q, want %d, %q", r.code, r.errOut, r.out, code, out)
	}
}

func TestRequestAndStream(t *testing.T) {
	e := newElement(t, "one")
	r := registrar(t, poolElement(1, e.listener.Addr()))
	t.Run("Request", func(t *testing.T) {
		rsppu(t, r, "", "pool", "--request", "hello").want(t, cli.OK, "one hello\n")
	})
	t.Run("Lines", func(t *testing.T) {
		rsppu(t, r, "a\nb\n", "pool", "--lines").want(t, cli.OK, "one a\none b\n")
	})
	t.Run("Sticky", func(t *testing.T) {
		rsppu(t, r, "a\nb\n", "pool", "--lines", "--sticky").want(t, cli.OK, "one a\none b\n")
	})
	t.Run("Stream", func(t *testing.T) {
		rsppu(t, r, "a\nb\n", "pool").want(t, cli.OK, "one a\none b\n")
	})
	t.Run("ReadToTheEnd", func(t *testing.T) {
		rsppu(t, r, "", "pool", "--request", "x\ny\n", "--read", "eof").want(t, cli.OK, "one x\none y\n")
	})
	t.Run("RequestFromInput", func(t *testing.T) {
		rsppu(t, r, "from input", "pool", "--repeat", "2", "--interval", "0", "--raw").want(t, cli.OK, "one from input\none from input\n")
	})
	t.Run("ExecWithEndlessOutput", func(t *testing.T) {
		start := time.Now()
		res := rsppu(t, r, "", "pool", "--exec", `yes & yes`, "--attempt-timeout", "300ms", "--timeout", "1s")
		if took := time.Since(start); res.code == cli.OK || took > 3*time.Second {
			t.Errorf("exit code %v after %v", res.code, took)
		}
	})
	t.Run("Exec", func(t *testing.T) {
		rsppu(t, r, "", "pool", "--exec", `echo "$RSPPU_POOL $RSPPU_ELEMENT $RSPPU_ADDRESS"`).
			want(t, cli.OK, "pool 0x00000001 "+e.listener.Addr().String()+"\n")
	})
}

func TestFailoverBetweenRequests(t *testing.T) {
	dead, live := newElement(t, "dead"), newElement(t, "live")
	r := registrar(t, poolElement(1, dead.listener.Addr()), poolElement(2, live.listener.Addr()))
	dead.stop()
	res := rsppu(t, r, "", "pool", "--request", "x", "--repeat", "4", "--interval", "1ms", "-o", "json")
	if res.code != cli.OK {
		t.Fatalf("exit code %d: %s", res.code, res.errOut)
	}
	lines := strings.Split(strings.TrimSpace(res.out), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, want 4 requests and a summary:\n%s", len(lines), res.out)
	}
	var first record
	var sum summary
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[4]), &sum); err != nil {
		t.Fatal(err)
	}
	if first.Element != "0x00000002" || first.Attempts != 2 || first.Answer != "live x" || first.Address != live.listener.Addr().String() {
		t.Errorf("first request %+v", first)
	}
	if sum.Requests != 4 || sum.Answered != 4 || sum.Failovers != 1 || len(sum.Elements) != 1 || sum.Elements[0].Answers != 4 {
		t.Errorf("summary %+v", sum)
	}
	reports := func() (n int) {
		for _, m := range r.Received() {
			if u, ok := m.Message.(*asap.EndpointUnreachable); ok && u.ID == 1 {
				n++
			}
		}
		return n
	}
	waitFor(t, func() bool { return reports() > 0 })
	if n := reports(); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
}

// The user's own policy counts, and a key keeps its element over runs and registrars'
// orders.
func TestOwnPolicy(t *testing.T) {
	one, two := newElement(t, "one"), newElement(t, "two")
	a, b := poolElement(1, one.listener.Addr()), poolElement(2, two.listener.Addr())
	orders := []*hunttest.Registrar{registrar(t, a, b), registrar(t, b, a)}
	many := func(r *hunttest.Registrar, args ...string) string {
		t.Helper()
		res := rsppu(t, r, "", append([]string{"pool", "--request", "x", "--repeat", "4", "--interval", "0", "--raw"}, args...)...)
		if res.code != cli.OK {
			t.Errorf("exit code %d: %s", res.code, res.errOut)
		}
		return res.out
	}
	if got := many(orders[0]); got != "one x\ntwo x\none x\ntwo x\n" {
		t.Errorf("the pool's: %q", got)
	}
	owners := map[string]bool{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		first := many(orders[0], "--policy", "hrw", "--key", key)
		owners[first] = true
		if again := many(orders[1], "--policy", "hrw", "--key", key); again != first || strings.Count(first, first[:4]) != 4 {
			t.Errorf("key %s: %q, then %q", key, first, again)
		}
	}
	if len(owners) != 2 {
		t.Errorf("all keys to one element: %v", owners)
	}
	// Who has not answered yet is tried before who has.
	for range 8 {
		if got := strings.Split(many(orders[0], "--policy", "ewma"), "\n"); len(got) != 5 || got[0] == got[1] {
			t.Errorf("ewma: %q", got)
		}
	}
	a.Policy = param.Policy{Type: param.LeastUsed, Load: 2}
	b.Policy = param.Policy{Type: param.LeastUsed, Load: 1}
	if got := many(registrar(t, a, b), "--policy", "p2c"); got != strings.Repeat("two x\n", 4) {
		t.Errorf("p2c: %q", got)
	}
}

// An element that accepts and says nothing costs one attempt's time.
func TestSilentElementIsLeft(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	live := newElement(t, "live")
	r := registrar(t, poolElement(1, silent.Addr()), poolElement(2, live.listener.Addr()))
	// More time, until what each attempt has is enough here for the one that answers.
	var res result
	for patience := 50 * time.Millisecond; patience < time.Minute; patience *= 2 {
		if res = rsppu(t, r, "", "pool", "--request", "x", "--attempt-timeout", patience.String()); res.code == cli.OK {
			break
		}
	}
	res.want(t, cli.OK, "live x\n")
	t.Run("NobodyAnswers", func(t *testing.T) {
		r := registrar(t, poolElement(1, silent.Addr()))
		res := rsppu(t, r, "", "pool", "--request", "x", "--attempt-timeout", "50ms", "--timeout", "200ms")
		res.want(t, cli.TimedOut, "")
	})
	t.Run("CommandFails", func(t *testing.T) {
		res := rsppu(t, r, "", "pool", "--exec", `test $RSPPU_ELEMENT = 0x00000002 && echo fine`)
		res.want(t, cli.OK, "fine\n")
	})
}

// The error says why the latest attempt failed that had its time, and what the end cut off.
func TestWhyTimeWasNotEnough(t *testing.T) {
	const timeout = time.Second
	for name, test := range map[string]struct {
		takes []time.Duration // the attempts, of which the last goes on
		want  string
	}{
		"TimeEndsAmidTheFirstAttempt": {[]time.Duration{time.Minute}, "no answer in time: 1s; last error: attempt 1 failed: cut off"},
		"TimeEndsAmidAnAttempt":       {[]time.Duration{400 * time.Millisecond, 0, time.Minute}, "no answer in time: 1s; last error: attempt 2 failed; cut off: attempt 3 failed: cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, n := time.Now(), 0
				err := tryUntil(t.Context(), timeout, func(ctx context.Context) (bool, error) {
					n++
					select {
					case <-time.After(test.takes[n-1]):
						return true, fmt.Errorf("attempt %d failed", n)
					case <-ctx.Done():
						return true, fmt.Errorf("attempt %d failed: cut off", n)
					}
				})
				if !errors.Is(err, errTimeout) || !strings.HasPrefix(err.Error(), test.want) || time.Since(start) != timeout {
					t.Errorf("after %v: %v, want %s", time.Since(start), err, test.want)
				}
			})
		})
	}
}

// A command that is at work when time is over is ended.
func TestTimeEndsACommand(t *testing.T) {
	r := registrar(t, poolElement(1, newElement(t, "one").listener.Addr()))
	res := rsppu(t, r, "", "pool", "--exec", "exec sleep 1000", "--timeout", "300ms")
	res.want(t, cli.TimedOut, "")
	if want := "no answer in time: 300ms; last error: "; !strings.Contains(res.errOut, want) {
		t.Errorf("%q", res.errOut)
	}
}

// The stream goes on at another element when one dies.
func TestStreamFailsOver(t *testing.T) {
	one, two := newElement(t, "one"), newElement(t, "two")
	r := registrar(t, poolElement(1, one.listener.Addr()), poolElement(2, two.listener.Addr()))
	cmd := program()
	nearIn, farIn := net.Pipe()
	nearOut, farOut := net.Pipe()
	cmd.SetIn(farIn)
	done := make(chan cli.ExitCode)
	go func() {
		var errOut bytes.Buffer
		args := []string{"pool", "--registrar", "tcp://" + r.Addr().String()}
		done <- cli.Run(context.Background(), cmd, slices.Concat(args, patient), farOut, &errOut)
		_ = farOut.Close()
	}()
	out := bufio.NewScanner(nearOut)
	say := func(line, want string) {
		t.Helper()
		if _, err := fmt.Fprintln(nearIn, line); err != nil {
			t.Fatal(err)
		}
		if !out.Scan() || out.Text() != want {
			t.Fatalf("answer %q, want %q", out.Text(), want)
		}
	}
	say("a", "one a")
	one.reset()
	// The loss is seen by the reader; what is written after it goes to two.
	waitFor(t, func() bool { return two.connections() > 0 })
	say("b", "two b")
	_ = nearIn.Close()
	if code := <-done; code != cli.OK {
		t.Errorf("exit code %d", code)
	}
}

// reset ends the element as a crash of its machine would: with RST.
func (e *element) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.listener.Close()
	for _, c := range e.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

func (e *element) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func TestHTTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	good := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s%s", r.Host, r.URL)
	})}
	bad := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })}
	var work sync.WaitGroup
	work.Go(func() { _ = good.Serve(l) })
	work.Go(func() { _ = bad.Serve(busy) })
	defer work.Wait()
	defer good.Close()
	defer bad.Close()
	r := registrar(t, poolElement(1, busy.Addr()), poolElement(2, l.Addr()))
	rsppu(t, r, "", "pool", "--http", "/a?b=1").want(t, cli.OK, "pool/a?b=1\n")
}

func TestExitCodes(t *testing.T) {
	e := newElement(t, "one")
	r := registrar(t, poolElement(1, e.listener.Addr()))
	rsppu(t, r, "", "nopool", "--request", "x").want(t, cli.NotFound, "")
	rsppu(t, r, "", "nopool").want(t, cli.NotFound, "")
	t.Run("NoAnswerIsAnEmptyList", func(t *testing.T) {
		res := rsppu(t, r, "", "nopool", "--request", "x", "-o", "json")
		if res.code != cli.NotFound || !strings.Contains(res.out, `"elements":[]`) {
			t.Errorf("exit code %d, %s", res.code, res.out)
		}
	})
	e.stop()
	t.Run("NoElement", func(t *testing.T) {
		res := rsppu(t, r, "", "pool", "--request", "x")
		res.want(t, cli.Failed, "")
		if !strings.Contains(res.errOut, e.listener.Addr().String()) {
			t.Errorf("%q does not name the element", res.errOut)
		}
	})
	r.Stop()
	rsppu(t, r, "", "pool", "--request", "x", "--timers", "fast").want(t, cli.Unreachable, "")
	t.Run("Interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cli.ErrSignal)
		var out, errOut bytes.Buffer
		if code := cli.Run(ctx, program(), []string{"pool", "--registrar", "127.0.0.1"}, &out, &errOut); code != cli.Interrupted {
			t.Errorf("exit code %d, want %d", code, cli.Interrupted)
		}
	})
}

// That the pool went later does not make it one that never was.
func TestSomeAnsweredAndThenNoPool(t *testing.T) {
	e := newElement(t, "one")
	asked := 0
	r, err := hunttest.Start(tcp.New(), netip.MustParseAddrPort("127.0.0.1:0"), func(msg asap.Message) []asap.Message {
		q, ok := msg.(*asap.HandleResolution)
		if !ok {
			return nil
		}
		if asked++; asked > 1 {
			return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}}
		}
		return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Elements: []param.PoolElement{poolElement(1, e.listener.Addr())}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	res := rsppu(t, r, "", "pool", "--request", "x", "--repeat", "3", "--interval", "1ms", "--stale", "0", "--quiet")
	if res.code != cli.Failed || !strings.Contains(res.out, "3 requests, 1 answered, 2 failed") {
		t.Errorf("exit code %d (%s), output %q, want %d", res.code, res.errOut, res.out, cli.Failed)
	}
}

// A request that was on its way at an interruption is no failure of the pool.
func TestInterruptionIsNoFailure(t *testing.T) {
	answering := newElement(t, "one")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name, repeat string
		at           net.Addr
		code         cli.ExitCode
		out          string
	}{
		{"WithoutNumber", "0", answering.listener.Addr(), cli.OK, ", 0 failed"},
		{"BeforeTheLast", "1000000", answering.listener.Addr(), cli.Interrupted, ", 0 failed"},
		{"BeforeTheFirst", "0", silent.Addr(), cli.Interrupted, "0 requests, 0 answered, 0 failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := registrar(t, poolElement(1, tt.at))
			before := answering.connections()
			ctx, cancel := context.WithCancelCause(t.Context())
			var out, errOut bytes.Buffer
			ended := make(chan cli.ExitCode)
			go func() {
				ended <- cli.Run(ctx, program(), []string{"pool", "--registrar", "tcp://" + r.Addr().String(), "--request", "x", "--repeat", tt.repeat, "--interval", "0s", "--quiet", "--timeout", "1m", "--attempt-timeout", "1m"}, &out, &errOut)
			}()
			waitFor(t, func() bool {
				return len(r.Received()) > 0 && (tt.name == "BeforeTheFirst" || answering.connections() > before+20)
			})
			cancel(cli.ErrSignal)
			if code := <-ended; code != tt.code || !strings.Contains(out.String(), tt.out) {
				t.Errorf("exit code %d (%s), output %q, want %d, %q", code, errOut.String(), out.String(), tt.code, tt.out)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"pool"},
		{"pool", "--registrar", "x", "--request", "a", "--lines"},
		{"pool", "--registrar", "x", "--read", "word"},
		{"pool", "--registrar", "x", "--policy", "none"},
		{"pool", "--registrar", "x", "--timeout", "-1s"},
		{"pool", "--registrar", "x", "--lines", "--repeat", "2"},
		{"pool", "--registrar", "x", "--http", "/", "--sticky"},
		{"pool", "--registrar", "x", "--http", "status"},
		{"pool", "--registrar", "x", "--http", "http://web/status"},
		{"pool", "--registrar", "x", "--compat", "rsplib", "--subscribe"},
		{"pool", "--registrar", "x", "--pool", "other"},
		{"pool", "--registrar", "x", "--listen", "9000"},
		{"pool", "--registrar", "x", "--listen", "127.0.0.1:0", "--lines"},
		{"pool", "--registrar", "x", "--listen", "127.0.0.1:0", "--max-connections", "0"},
		{"pool", "--registrar", "x", "--listen", "127.0.0.1:0", "--metrics", "on"},
		{"pool", "--registrar", "x", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:99999"},
		{"--registrar", "x", "--listen", "127.0.0.1:0"},
		{"--registrar", "x", "--pool", "a", "--pool", "b", "--listen", "127.0.0.1:0"},
		{"--registrar", "x", "--pool", "a", "--pool", "b", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"},
	} {
		var out, errOut bytes.Buffer
		if code := cli.Run(t.Context(), program(), args, &out, &errOut); code != cli.Usage {
			t.Errorf("%q: exit code %d, want %d", args, code, cli.Usage)
		}
	}
}
