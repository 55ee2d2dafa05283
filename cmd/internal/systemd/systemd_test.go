package systemd

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager is a service manager that the test's process is told to notify.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func told(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 1000)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	log, lines := test.NewNullLogger()
	t.Run("NoManager", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "")
		Notify(log, Ready)
	})
	c := manager(t)
	for _, message := range []string{Ready, Status("%d services", 3), Stopping + "\n" + Extend(1500*time.Millisecond)} {
		Notify(log, message)
		if got := told(t, c); got != message {
			t.Errorf("told %q, want %q", got, message)
		}
	}
	if n := len(lines.AllEntries()); n > 0 {
		t.Errorf("%d log lines", n)
	}
	c.Close()
	Notify(log, Ready)
	if n := len(lines.AllEntries()); n != 1 {
		t.Errorf("%d log lines about a manager that is gone", n)
	}
}

func TestWatchdogStopsWhenTheProgramHangs(t *testing.T) {
	log, _ := test.NewNullLogger()
	c := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, cancel := context.WithCancel(t.Context())
	hang, alive := make(chan struct{}), make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		calls := 0
		Watchdog(ctx, log, func() {
			if calls++; calls > 3 {
				close(alive)
				<-hang
				cancel()
			}
		})
	})
	<-alive
	for range 3 {
		if got := told(t, c); got != "WATCHDOG=1" {
			t.Errorf("told %q", got)
		}
	}
	_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); err == nil {
		t.Errorf("told %d octets while it hangs", n)
	}
	close(hang)
	work.Wait()
}

func TestWithoutWatchdogNothingIsTold(t *testing.T) {
	log, _ := test.NewNullLogger()
	t.Setenv("WATCHDOG_USEC", "")
	Watchdog(t.Context(), log, func() { t.Error("asked") }) // returns
}

// The units that come with the programs are as systemd wants them.
func TestUnits(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	units, err := filepath.Glob("../../../scripts/systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	program, err := os.Executable() // stands for those that are not installed
	if err != nil {
		t.Fatal(err)
	}
	installed := regexp.MustCompile(`/usr/bin/(rspp[eu]|python3)\b`)
	for _, path := range units {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(unit, installed.ReplaceAll(text, []byte(program)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(verify, "verify", "--man=no", unit).CombinedOutput()
		if err != nil || strings.Contains(string(out), filepath.Base(path)) {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}
