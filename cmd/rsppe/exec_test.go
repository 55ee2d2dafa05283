package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/transport/transporttest"
	"rserpool/cmd/internal/cli"
)

// These tests run the test's own program as the server, and in one case as rsppe.

const envRole = "RSPPE_TEST_ROLE"

// play is a server that echoes lines and says what happens to it, or rsppe.
//
//	serve:ADDRESS      obeys SIGTERM; ends with code N when told "exit N"
//	late:ADDRESS       listens after SIGUSR1
//	stubborn:ADDRESS   ignores SIGTERM
//	exit:N             ends at once
//	environment        prints its environment
//	rsppe              is rsppe
func play(role string) {
	kind, rest, _ := strings.Cut(role, ":")
	signals := make(chan os.Signal, 10)
	switch kind {
	case "rsppe":
		os.Setenv(envRole, os.Getenv(envRole+"_NEXT"))
		main()
	case "environment":
		fmt.Println(strings.Join(os.Environ(), "\n"))
		os.Exit(0)
	case "exit":
		code, err := strconv.Atoi(rest)
		if err != nil {
			panic(err)
		}
		os.Exit(code)
	}
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	if kind == "late" {
		fmt.Println("waiting")
		for s := range signals {
			if s == syscall.SIGUSR1 {
				break
			}
		}
	}
	l, err := net.Listen("tcp", rest)
	if err != nil {
		panic(err)
	}
	fmt.Println("listening", os.Getpid())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					if code, err := strconv.Atoi(strings.TrimPrefix(in.Text(), "exit ")); err == nil {
						os.Exit(code)
					}
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
	for s := range signals {
		fmt.Println("got", s)
		if s == syscall.SIGTERM && kind != "stubborn" {
			os.Exit(0)
		}
	}
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// startServer starts rsppe with this program as the server.
func startServer(t *testing.T, r *registrar, role, address string, flags ...string) *program {
	t.Helper()
	t.Setenv(envRole, role)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // of the race detector, where it is used
	args := append([]string{"--pool", "echo", "--service", "tcp://" + address, "--registrar", r.addr, "--check-start", "5ms", "--restart-min", "10ms"}, flags...)
	return start(t, append(args, "--", os.Args[0])...)
}

func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { c.Close() })
	return c
}

func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	fmt.Fprintln(c, "hello")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("the server answers %q, %v", line, err)
	}
}

func TestCommandIsRegisteredWhenItListens(t *testing.T) {
	r := newRegistrar(t, oblige)
	address := transporttest.FreeAddress(t)
	p := startServer(t, r, "late:"+address, address)
	until(t, "the server runs", func() bool { return strings.Contains(p.stdout.String(), "waiting") })
	select {
	case msg := <-r.got:
		t.Fatalf("registrar got %T before the server listens", msg)
	default:
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil { // to rsppe, which passes it on
		t.Fatal(err)
	}
	expect[*asap.Registration](t, r)
	c := connect(t, address)
	echoes(t, c)
	c.Close()
	p.terminate()
	expect[*asap.Deregistration](t, r)
	p.expectExit(t, cli.OK, "stopping server")
	if out := p.stdout.String(); !strings.HasSuffix(out, "got terminated\n") {
		t.Errorf("output %q", out)
	}
}

func TestCommandThatFailsLeavesThePoolAndComesBack(t *testing.T) {
	r := newRegistrar(t, oblige)
	address := transporttest.FreeAddress(t)
	p := startServer(t, r, "serve:"+address, address)
	for range 3 {
		expect[*asap.Registration](t, r)
		fmt.Fprintln(connect(t, address), "exit 3")
		expect[*asap.Deregistration](t, r)
	}
	expect[*asap.Registration](t, r)
	p.terminate()
	expect[*asap.Deregistration](t, r)
	p.expectExit(t, cli.OK, "exit code 3")
}

// The server serves on until its clients have gone.
func TestDrain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("connections are counted on Linux only")
	}
	t.Run("UntilTheLastClientEnds", func(t *testing.T) {
		r := newRegistrar(t, oblige)
		address := transporttest.FreeAddress(t)
		p := startServer(t, r, "serve:"+address, address, "--drain", "1m")
		expect[*asap.Registration](t, r)
		c := connect(t, address)
		echoes(t, c)
		p.terminate()
		expect[*asap.Deregistration](t, r)
		until(t, "drain", func() bool { return strings.Contains(p.stderr.String(), "waiting for clients to end") })
		echoes(t, c)
		late := connect(t, address) // of a user whose cache is old
		echoes(t, late)
		late.Close()
		if out := p.stdout.String(); strings.Contains(out, "got") {
			t.Errorf("output %q", out)
		}
		c.Close()
		p.expectExit(t, cli.OK, "stopping server")
	})
	t.Run("AtMostSoLong", func(t *testing.T) {
		r := newRegistrar(t, oblige)
		address := transporttest.FreeAddress(t)
		p := startServer(t, r, "serve:"+address, address, "--drain", "50ms")
		expect[*asap.Registration](t, r)
		echoes(t, connect(t, address))
		p.terminate()
		p.expectExit(t, cli.OK, "clients are still connected")
	})
	t.Run("OfAServerThatOthersRun", func(t *testing.T) {
		r := newRegistrar(t, oblige)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p := start(t, "--pool", "echo", "--service", "tcp://"+l.Addr().String(), "--check", "none", "--registrar", r.addr, "--drain", "1m")
		expect[*asap.Registration](t, r)
		client := connect(t, l.Addr().String())
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.terminate()
		expect[*asap.Deregistration](t, r)
		until(t, "drain", func() bool { return strings.Contains(p.stderr.String(), "waiting for clients to end") })
		client.Close()
		server.Close()
		p.expectExit(t, cli.OK, "connections=1")
	})
}

func TestExitCodesWithACommand(t *testing.T) {
	r := newRegistrar(t, oblige)
	address := transporttest.FreeAddress(t)
	for _, tt := range []struct {
		name, role string
		flags      []string
		code       cli.ExitCode
		says       string
	}{
		{"Done", "exit:0", nil, 0, ""},
		{"DoneAgainAndAgain", "exit:0", []string{"--restart", "always", "--restart-limit", "2"}, 0, "again_in"},
		{"Failed", "exit:7", []string{"--restart", "never"}, 7, "the server ended: exit code 7"},
		{"FailedAgainAndAgain", "exit:8", []string{"--restart-limit", "2"}, 8, "again_in=20ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			startServer(t, r, tt.role, address, tt.flags...).expectExit(t, tt.code, tt.says)
		})
	}
	base := []string{"--pool", "echo", "--service", "tcp://" + address, "--registrar", r.addr, "--"}
	t.Run("NotThere", func(t *testing.T) {
		start(t, append(base, "no-such-server")...).expectExit(t, 127, "executable file not found")
	})
	t.Run("NotExecutable", func(t *testing.T) {
		start(t, append(base, t.TempDir())...).expectExit(t, 126, "permission denied")
	})
	for name, code := range map[string]cli.ExitCode{"KilledBySomebody": 137, "KilledByUs": cli.TimedOut} {
		t.Run(name, func(t *testing.T) {
			p := startServer(t, r, "stubborn:"+address, address, "--restart", "never", "--kill-after", "50ms")
			until(t, "the server runs", func() bool { return strings.Contains(p.stdout.String(), "\n") })
			if code == cli.TimedOut {
				p.terminate()
			} else {
				var pid int
				if _, err := fmt.Sscanf(p.stdout.String(), "listening %d", &pid); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			p.expectExit(t, code, "killed")
		})
	}
}

// A registrar's refusal ends the program, and the server with it.
func TestRefusalStopsTheCommand(t *testing.T) {
	address := transporttest.FreeAddress(t)
	p := startServer(t, newRegistrar(t, refuse), "serve:"+address, address)
	p.expectExit(t, cli.Failed, "Inconsistent Pooling Policy")
	if out := p.stdout.String(); !strings.HasSuffix(out, "got terminated\n") {
		t.Errorf("output %q", out)
	}
}

func TestUsageWithACommand(t *testing.T) {
	base := []string{"--pool", "echo", "--service", "tcp://127.0.0.1:7", "--registrar", "192.0.2.1"}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"server"}, `unknown argument "server"; a server to run comes after --`},
		{[]string{"server", "--", "x"}, `unknown argument "server"`},
		{[]string{"--"}, "no command after --"},
		{[]string{"--restart", "sometimes", "--", "x"}, `Restart is "sometimes"`},
		{[]string{"--restart-min", "2m", "--", "x"}, "RestartMin is 2m"},
		{[]string{"--stop-signal", "STOPP", "--", "x"}, `stop-signal: "STOPP" is not a signal`},
		{[]string{"--pass-signals", "HUP,KILL", "--", "x"}, "KILL can't be passed on"},
		{[]string{"--drain", "soon", "--", "x"}, `drain: "soon" is not a duration`},
		{[]string{"--check-start", "-1s", "--", "x"}, "check-start: too small"},
	} {
		start(t, append(base, tt.args...)...).expectExit(t, cli.Usage, tt.says)
	}
}

// A rsppe that is killed leaves no server behind.
func TestServerEndsWithRsppe(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a process of its parent's death")
	}
	r := newRegistrar(t, oblige)
	address := transporttest.FreeAddress(t)
	rsppe := exec.Command(os.Args[0], "--pool", "echo", "--service", "tcp://"+address, "--registrar", r.addr, "--check-start", "5ms", "--", os.Args[0])
	rsppe.Env = append(os.Environ(), envRole+"=rsppe", envRole+"_NEXT=serve:"+address)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rsppe.Stdout = in
	if err := rsppe.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	expect[*asap.Registration](t, r)
	if err := rsppe.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var ended *exec.ExitError
	if err := rsppe.Wait(); !errors.As(err, &ended) {
		t.Errorf("rsppe: %v", err)
	}
	_ = out.SetReadDeadline(time.Now().Add(time.Minute))
	said, err := io.ReadAll(out) // to the server's end
	if err != nil || !strings.HasSuffix(string(said), "got terminated\n") {
		t.Errorf("the server says %q, %v", said, err)
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	manager := newManager(t)
	r := newRegistrar(t, oblige)
	t.Run("ReadyWhenTheServerIs", func(t *testing.T) {
		address := transporttest.FreeAddress(t)
		p := startServer(t, r, "late:"+address, address)
		until(t, "the server runs", func() bool { return strings.Contains(p.stdout.String(), "waiting") })
		manager.until(t, "STATUS=0 of 1 services registered")
		if told := *manager.told.Load(); strings.Contains(told, "READY") {
			t.Errorf("told %q before", told)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		manager.until(t, "READY=1", "STATUS=1 of 1 services registered")
		p.terminate()
		manager.until(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000", "STATUS=0 of 1 services registered")
		p.expectExit(t, cli.OK, "")
	})
	t.Run("ReadyAtOnceBesideAServer", func(t *testing.T) {
		p := start(t, "--pool", "echo", "--service", "tcp://"+transporttest.FreeAddress(t), "--registrar", r.addr)
		manager.until(t, "READY=1")
		p.terminate()
		p.expectExit(t, cli.OK, "")
	})
	t.Run("NotByTheServer", func(t *testing.T) {
		p := startServer(t, r, "environment", transporttest.FreeAddress(t))
		p.expectExit(t, cli.OK, "")
		if out := p.stdout.String(); strings.Contains(out, "NOTIFY_SOCKET") || !strings.Contains(out, "PATH=") {
			t.Errorf("environment %q", out)
		}
	})
}

// manager is a service manager that this process is told to notify.
type manager struct {
	conn *net.UnixConn
	told atomic.Pointer[string] // all of it
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := t.TempDir() + "/notify"
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	m := &manager{conn: c}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf, all := make([]byte, 1000), ""
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			all += string(buf[:n]) + "|"
			told := all
			m.told.Store(&told)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return m
}

// until waits until these messages have come.
func (m *manager) until(t *testing.T, messages ...string) {
	t.Helper()
	for _, message := range messages {
		until(t, message, func() bool {
			all := m.told.Load()
			return all != nil && strings.Contains("|"+*all, "|"+message+"|")
		})
	}
}
