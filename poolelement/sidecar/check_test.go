package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	status = StatusRange{200, 399}
	exit   = StatusRange{0, 0}
)

// check runs a check as it is written on the command line.
func check(t *testing.T, spec, service string) error {
	t.Helper()
	c, err := ParseCheck(spec, service, status, exit)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.Check(ctx)
}

func TestTCPCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	for _, spec := range []string{"tcp", "tcp://" + addr} {
		if err := check(t, spec, addr); err != nil {
			t.Errorf("%s with a listener: %v", spec, err)
		}
	}
	l.Close()
	if err := check(t, "tcp", addr); err == nil {
		t.Error("passed without a listener")
	}
}

func TestHTTPCheck(t *testing.T) {
	answers := map[string]int{"/ok": 204, "/moved": 302, "/bad": 503}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/bad")
		w.WriteHeader(answers[r.URL.Path])
	}))
	defer server.Close()
	for path, code := range answers {
		err := check(t, server.URL+path, "")
		if pass := code < 400; (err == nil) != pass {
			t.Errorf("GET %s: %v", path, err)
		}
		if err != nil && !strings.Contains(err.Error(), "503") {
			t.Errorf("error %q does not name the status", err)
		}
	}
}

func TestExecCheck(t *testing.T) {
	if err := check(t, "exec:true", ""); err != nil {
		t.Errorf("true: %v", err)
	}
	err := check(t, "exec:echo disk full; exit 3", "")
	if err == nil || !strings.Contains(err.Error(), "exit code 3, expected 0: disk full") {
		t.Errorf("exit 3: %v", err)
	}
	if err := (ExecCheck{"exit 3", StatusRange{2, 3}}).Check(context.Background()); err != nil {
		t.Errorf("exit 3, which is expected: %v", err)
	}
	if err := check(t, "exec:/no/such/program", ""); err == nil {
		t.Error("passed without a program")
	}
	if err := check(t, "exec:kill -9 $$", ""); err == nil {
		t.Error("passed though it was killed")
	}
}

func TestExecCheckIsKilledWithItsChildren(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, timeout := context.WithCancel(context.Background())
	defer timeout()
	checked := make(chan error, 1)
	go func() {
		checked <- ExecCheck{"exec 3>" + path + "; sleep 1000 & echo at work >&3; sleep 1000", exit}.Check(ctx)
	}()
	held, err := os.Open(path) // waits for the command
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	work := bufio.NewReader(held)
	if line, err := work.ReadString('\n'); err != nil {
		t.Fatalf("the command says %q, %v", line, err)
	}
	timeout()
	if err := <-checked; err == nil {
		t.Error("passed though it had no time to end")
	}
	_ = held.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := work.ReadByte(); err != io.EOF { // of the last who holds it
		t.Errorf("the child was not killed: %v", err)
	}
}

func TestOutputOfCommandsIsBounded(t *testing.T) {
	out, err := run(context.Background(), "head -c 1000000 /dev/zero")
	if err != nil || len(out) != maxOutput {
		t.Errorf("%d octets kept, %v", len(out), err)
	}
}

func TestParseCheckRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		"":            "unknown kind",
		"ping":        "unknown kind",
		"exec:":       "no command",
		"http://":     "no host",
		"tcp://nope":  "missing port",
		"http:// bad": "invalid character",
	} {
		if _, err := ParseCheck(spec, "127.0.0.1:80", status, exit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", spec, err, want)
		}
	}
	if c, err := ParseCheck("none", "", status, exit); c != nil || err != nil {
		t.Errorf("none: %v, %v", c, err)
	}
}

func TestParseStatusRange(t *testing.T) {
	for text, want := range map[string]StatusRange{"200": {200, 200}, "200-399": {200, 399}} {
		got, err := ParseStatusRange(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "399-200", "-1", "1-", "1-2-3"} {
		if got, err := ParseStatusRange(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestParseLoad(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "0.35": 0.35, "1\n": 1, " 0.5 of it\nmore": 0.5, "35%": 0.35, "12.5%\n": 0.125, "250%": 1, "1e-1": 0.1,
	} {
		if got, err := ParseLoad(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "  \n", "x", "35", "-0.1", "-1%", "NaN", "NaN%", "%", "0x1p-1000000"} {
		if got, err := ParseLoad(text); err == nil && got != 0 {
			t.Errorf("%q was read as %v", text, got)
		} else if err == nil && !strings.HasPrefix(text, "0x") {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestGauges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "load")
	if err := os.WriteFile(file, []byte("25%\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprintln(w, "0.25")
	}))
	defer server.Close()
	for _, spec := range []string{"file:" + file, "exec:echo 0.25", server.URL} {
		g, err := ParseGauge(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.Load(context.Background()); err != nil || got != 0.25 {
			t.Errorf("%v: %v, %v", g, got, err)
		}
	}
	code = http.StatusInternalServerError
	for _, spec := range []string{"file:" + file + "x", "exec:exit 1", "exec:echo much", server.URL} {
		g, err := ParseGauge(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.Load(context.Background()); err == nil {
			t.Errorf("%v: read %v", g, got)
		}
	}
	for _, spec := range []string{"file:", "exec: ", "cpu", "ftp://x", "http://"} {
		if g, err := ParseGauge(spec); err == nil {
			t.Errorf("%q was read as %v", spec, g)
		}
	}
	if g, err := ParseGauge(""); g != nil || err != nil {
		t.Errorf("nothing: %v, %v", g, err)
	}
}
