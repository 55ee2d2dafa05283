package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
)

// output is what a program that runs has written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
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

// forwarding is a rsppu that listens.
type forwarding struct {
	end    context.CancelCauseFunc
	exit   chan cli.ExitCode
	log    output
	listen []string // where, in the order of the flags
}

// startListening runs the program until it listens at n addresses.
func startListening(t *testing.T, n int, args ...string) *forwarding {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &forwarding{end: cancel, exit: make(chan cli.ExitCode, 1)}
	go func() {
		f.exit <- cli.Run(ctx, program(), slices.Concat(patient, []string{"--log-level", "info"}, args), io.Discard, &f.log)
	}()
	t.Cleanup(func() { cancel(nil) })
	at := regexp.MustCompile(`msg=listening (?:listen|metrics)="?([^" ]+)`)
	waitFor(t, func() bool {
		f.listen = nil
		for _, m := range at.FindAllStringSubmatch(f.log.String(), -1) {
			f.listen = append(f.listen, m[1])
		}
		select {
		case code := <-f.exit:
			t.Fatalf("exit code %d: %s", code, f.log.String())
		default:
		}
		return len(f.listen) >= n
	})
	return f
}

// stop ends the program as a signal does.
func (f *forwarding) stop(t *testing.T) {
	t.Helper()
	f.end(cli.ErrSignal)
	if code := <-f.exit; code != cli.OK {
		t.Errorf("exit code %d: %s", code, f.log.String())
	}
}

func say(t *testing.T, network, address, text string) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintln(c, text)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("answer: %v", err)
	}
	return strings.TrimSpace(line)
}

func TestListenLeadsToPools(t *testing.T) {
	one, two := newElement(t, "one"), newElement(t, "two")
	r, err := hunttest.Start(tcp.New(), loopback, func(msg asap.Message) []asap.Message {
		if q, ok := msg.(*asap.HandleResolution); ok {
			at := map[param.PoolHandle]net.Addr{"first": one.listener.Addr(), "second": two.listener.Addr()}[q.Handle]
			return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Elements: []param.PoolElement{poolElement(1, at)}}}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	registrar := "tcp://" + r.Addr().String()
	socket := filepath.Join(t.TempDir(), "second")
	t.Run("OnePoolEach", func(t *testing.T) {
		f := startListening(t, 3, "--registrar", registrar, "--listen", "127.0.0.1:0", "--pool", "first",
			"--listen", "unix:"+socket, "--pool", "second", "--metrics", "127.0.0.1:0")
		if got := say(t, "tcp", f.listen[0], "hello"); got != "one hello" {
			t.Errorf("first pool: %q", got)
		}
		if got := say(t, "unix", socket, "hello"); got != "two hello" {
			t.Errorf("second pool: %q", got)
		}
		waitFor(t, func() bool {
			text := metrics(t, f.listen[2])
			return strings.Contains(text, `rserpool_proxy_sessions{pool="first"} 0`) && strings.Contains(text, `rserpool_proxy_sessions{pool="second"} 0`)
		})
		text := metrics(t, f.listen[2])
		for _, want := range []string{
			`rserpool_proxy_sessions{pool="first"} 0`,
			`rserpool_proxy_connections_total{pool="first",result="ended"} 1`,
			`rserpool_proxy_bytes_total{direction="to-element",pool="second"} 6`,
			`rserpool_proxy_bytes_total{direction="to-client",pool="second"} 10`,
			`rserpool_proxy_failovers_total{pool="first",result="replaced"} 0`,
			`rserpool_proxy_full_total{pool="first"} 0`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("metrics lack %s:\n%s", want, text)
			}
		}
		f.stop(t)
		if c, err := net.Dial("tcp", f.listen[0]); err == nil {
			c.Close()
			t.Error("still listens")
		}
	})
	t.Run("OneForAll", func(t *testing.T) {
		f := startListening(t, 2, "first", "--registrar", registrar, "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
		for _, at := range f.listen {
			if got := say(t, "tcp", at, "hello"); got != "one hello" {
				t.Errorf("%q", got)
			}
		}
		f.stop(t)
	})
	t.Run("AddressInUse", func(t *testing.T) {
		res := rsppu(t, r, "", "first", "--listen", one.listener.Addr().String())
		if res.code != cli.Failed || !strings.Contains(res.errOut, "address already in use") {
			t.Errorf("exit code %d: %s", res.code, res.errOut)
		}
	})
}

func metrics(t *testing.T, url string) string {
	t.Helper()
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A connection may finish after SIGTERM, within --drain.
func TestListenEndsGracefully(t *testing.T) {
	e := newElement(t, "one")
	r := registrar(t, poolElement(1, e.listener.Addr()))
	f := startListening(t, 1, "--pool", "pool", "--registrar", "tcp://"+r.Addr().String(), "--listen", "127.0.0.1:0", "--drain", "1m")
	c, err := net.Dial("tcp", f.listen[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, text := range []string{"before", "after"} {
		fmt.Fprintln(c, text)
		if line, err := in.ReadString('\n'); err != nil || line != "one "+text+"\n" {
			t.Errorf("%q, %v", line, err)
		}
		f.end(cli.ErrSignal)
		waitFor(t, func() bool { return strings.Contains(f.log.String(), "waiting for connections to end") })
	}
	c.Close()
	f.stop(t)
}
