package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/transport/transporttest"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin/client"
)

// process is rspd at work.
type process struct {
	t    *testing.T
	log  *buffer
	done chan cli.ExitCode
	stop context.CancelFunc
	api  *client.Client
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &process{t: t, log: &buffer{more: make(chan struct{}, 1)}, done: make(chan cli.ExitCode, 1), stop: cancel}
	if !slices.Contains(args, "--enrp-listen") {
		args = append(args, "--enrp-listen", "tcp://127.0.0.1:0")
	}
	args = append(args, "--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json")
	go func() { d.done <- cli.Run(ctx, command(), args, io.Discard, d.log) }()
	t.Cleanup(func() {
		cancel()
		<-d.done
	})
	text := d.log.wait(t, "serving", 1)
	var err error
	if d.api, err = client.New(listens(t, text, "http"), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.api.Close)
	return d
}

// until polls the ring until it is as wanted.
func (d *process) until(what string, ok func(members []string, whole bool) bool) {
	d.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
		ring, err := d.api.Ring(ctx)
		cancel()
		var members []string
		for _, m := range ring.Members {
			members = append(members, m.ID)
		}
		slices.Sort(members)
		if err == nil && ok(members, ring.Whole) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("never %s: %v, %+v", what, err, ring)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestThreeMembersByCertificates(t *testing.T) {
	dir, _ := made(t, "blue")
	var at []string
	for range 4 {
		at = append(at, "tcp://"+transporttest.FreeAddress(t))
	}
	member := func(n int, more ...string) []string {
		args := []string{"--cluster", "blue", "--id", fmt.Sprint(n), "--ring-listen", at[n-1], "--ring-probe-interval", "50ms"}
		for _, peer := range at[:3] {
			args = append(args, "--peer", peer)
		}
		return append(args, more...)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	tls := func(name string) []string {
		return []string{"--tls-ca", file("ca.crt"), "--tls-cert", file(name + ".crt"), "--tls-key", file(name + ".key")}
	}
	for name, days := range map[string]string{"two": "398", "three": "398", "fresh": "5"} {
		if code, _, stderr := run1(t, "ca", "issue", name, "--dir", dir, "--days", days); code != cli.OK {
			t.Fatal(stderr)
		}
	}
	one, two := start(t, member(1, tls("one")...)...), start(t, member(2, tls("two")...)...)
	both := func(members []string, whole bool) bool {
		return slices.Equal(members, []string{"0x00000001", "0x00000002"}) && !whole // the third is missing
	}
	one.until("two members", both)
	if text := one.log.wait(t, "registrars speak TLS to each other", 1); strings.Contains(text, "insecure") {
		t.Errorf("the log says\n%s", text)
	}

	stranger := start(t, append(member(4), "--insecure")...)
	stranger.log.wait(t, "insecure: the ports of registrars are open", 1)
	one.log.wait(t, `"reason":"not-tls"`, 1)
	stranger.log.wait(t, "ring: all members know the same", 1) // it has given up, and tries on
	one.until("two members, as before", both)

	three := start(t, member(3, tls("three")...)...)
	for _, d := range []*process{one, two, three} {
		d.until("whole", func(members []string, whole bool) bool { return len(members) == 3 && whole })
	}

	// New certificates are taken without a restart.
	for from, to := range map[string]string{"fresh.crt": "one.crt", "fresh.key": "one.key"} {
		if err := os.Rename(file(from), file(to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	one.log.wait(t, "configuration read again", 1)
	one.log.wait(t, "the certificate ends soon", 1)
	if err := os.WriteFile(file("one.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	one.log.wait(t, "the old one stays", 1)

	three.stop()
	one.until("two members after one left", both)
}

// An operator reads in the log at the start what this one is, where it listens and what
// it waits for: each once, with what can vary in fields.
func TestWhatTheLogSaysAtTheStart(t *testing.T) {
	dir, tls := made(t, "blue")
	if code, _, stderr := run1(t, "ca", "issue", "seven", "--id", "7", "--dir", dir); code != cli.OK {
		t.Fatal(stderr)
	}
	named := slices.Clone(tls)
	for i, arg := range named {
		named[i] = strings.Replace(arg, "one.", "seven.", 1)
	}
	alone := []string{"starting", "without certificates (--tls-cert) the ports of registrars are on loopback only; --insecure lifts this",
		"listening http", "listening asap", "listening enrp", "serving", "leaving", "stopped"}
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"alone":              {nil, alone},
		"without registrars": {[]string{"--enrp-listen", "off"}, slices.Concat(alone[:1], alone[2:4], alone[5:])},
		"in a ring": {append(named, "--ring-listen", "tcp://127.0.0.1:0", "--ring-timers", "test"), []string{
			"starting", "registrars speak TLS to each other", "listening http", "listening enrp", "listening ring",
			"ring: joining; elements and users are served when the members have told what they know",
			"ring: new view", "ring: all members know the same", "listening asap", "serving", "leaving", "stopped"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, tt.args...)
			d.stop()
			code := <-d.done
			d.done <- code
			text := d.log.wait(t, "stopped", 1)
			var got []string
			for _, line := range logged(t, text) {
				said := line["msg"].(string)
				if said == "listening" {
					said += " " + line["protocol"].(string)
				}
				switch {
				case line["registrar"] == nil:
					t.Errorf("%v does not say which registrar", line)
				case strings.HasPrefix(said, "fewer connections") || said == "transport not available": // as the machine is
					continue
				}
				got = append(got, said)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if addr := listens(t, text, "asap"); strings.HasSuffix(addr, ":0") {
				t.Errorf("listens on %q", addr)
			}
		})
	}
}
