package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// These tests run the test's own program as the server.

const (
	envRole   = "SIDECAR_TEST_ROLE"
	envParent = "SIDECAR_TEST_PARENT" // tell the parent when ready
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		serve(role)
	}
	goleak.VerifyTestMain(m)
}

// serve is the server.
func serve(role string) {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	kind, rest, _ := strings.Cut(role, ":")
	switch kind {
	case "exit":
		code, err := strconv.Atoi(rest)
		if err != nil {
			panic(err)
		}
		fmt.Println("ending")
		os.Exit(code)
	case "abandon": // a process in the group outlives this one
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envRole+"="+rest, envParent+"=yes")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		<-signals // it is there
		os.Exit(1)
	}
	if os.Getenv(envParent) != "" {
		if err := syscall.Kill(os.Getppid(), syscall.SIGHUP); err != nil {
			panic(err)
		}
	}
	fmt.Println(kind, "pid", os.Getpid())
	for s := range signals {
		fmt.Println(kind, "got", s)
		if s == syscall.SIGTERM && kind == "obedient" {
			os.Exit(0)
		}
	}
}

// start runs a Process in a role and returns its output, line by line.
func start(t *testing.T, role string, p Process, signals <-chan os.Signal) (stop context.CancelFunc, lines *bufio.Scanner, ended <-chan error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Command = []string{os.Args[0]}
	p.Env = append(os.Environ(), envRole+"="+role, "GORACE=atexit_sleep_ms=0") // no pause where races are looked for
	p.Stdout, p.Stderr = w, w
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		err := p.Run(ctx, signals)
		w.Close()
		result <- err
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, r)
		r.Close()
	})
	return cancel, bufio.NewScanner(r), result
}

func expect(t *testing.T, lines *bufio.Scanner, want string) string {
	t.Helper()
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
		t.Fatalf("the server says %q, want %q", lines.Text(), want)
	}
	return lines.Text()
}

func result(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return nil
	}
}

func TestSignalsAndOutputPass(t *testing.T) {
	signals := make(chan os.Signal)
	stop, lines, ended := start(t, "obedient", Process{}, signals)
	expect(t, lines, "obedient pid")
	signals <- syscall.SIGHUP
	expect(t, lines, "obedient got hangup")
	stop()
	expect(t, lines, "obedient got terminated")
	if err := result(t, ended); err != nil {
		t.Error(err)
	}
}

func TestStubbornServerIsKilled(t *testing.T) {
	stop, lines, ended := start(t, "stubborn", Process{KillAfter: 50 * time.Millisecond}, nil)
	expect(t, lines, "stubborn pid")
	stop()
	if err := result(t, ended); !errors.Is(err, ErrKilled) {
		t.Errorf("Run: %v", err)
	}
}

func TestWhatAServerLeavesBehindEnds(t *testing.T) {
	for _, role := range []string{"obedient", "stubborn"} {
		t.Run(role, func(t *testing.T) {
			_, lines, ended := start(t, "abandon:"+role, Process{Restart: Never, KillAfter: map[string]time.Duration{"obedient": time.Minute, "stubborn": 50 * time.Millisecond}[role]}, nil)
			var pid int
			if _, err := fmt.Sscanf(expect(t, lines, role+" pid"), role+" pid %d", &pid); err != nil {
				t.Fatal(err)
			}
			if role == "obedient" { // the other one may be killed before it can tell
				expect(t, lines, role+" got terminated")
			}
			if err := result(t, ended); err == nil {
				t.Error("Run reports no end")
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) && !isZombie(pid) {
				t.Errorf("process %d is still there: %v", pid, err)
			}
		})
	}
}

// isZombie: what waits for an init that does not reap has ended all the same.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestHowAServerEnds(t *testing.T) {
	for _, tt := range []struct {
		name, role string
		want       EndedError
	}{
		{"ExitCode", "exit:7", EndedError{Code: 7}},
		{"Signal", "obedient", EndedError{Code: -1, Signal: syscall.SIGKILL}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signals := make(chan os.Signal)
			_, lines, ended := start(t, tt.role, Process{Restart: Never}, signals)
			lines.Scan()
			if tt.want.Signal != 0 {
				signals <- tt.want.Signal
			}
			err := result(t, ended)
			if got, ok := errors.AsType[*EndedError](err); !ok || *got != tt.want {
				t.Errorf("Run: %v, want %+v", err, tt.want)
			}
		})
	}
	t.Run("InOrder", func(t *testing.T) {
		_, lines, ended := start(t, "exit:0", Process{}, nil)
		expect(t, lines, "ending")
		if err := result(t, ended); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestCommandThatCantBeStarted(t *testing.T) {
	for name, want := range map[string]error{"/no/such/server": fs.ErrNotExist, "no-such-server": exec.ErrNotFound, t.TempDir(): fs.ErrPermission} {
		err := Process{Command: []string{name}}.Run(t.Context(), nil)
		if _, ok := errors.AsType[*StartError](err); !ok || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
