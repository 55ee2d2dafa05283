package scripting

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a session in memory: what the element gets and what it sends.
type line struct{ in, out chan []byte }

func newLine() *line { return &line{make(chan []byte, 64), make(chan []byte, 64)} }

func (l *line) Send(ctx context.Context, b []byte) error {
	select {
	case l.out <- slices.Clone(b):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *line) Receive(ctx context.Context) ([]byte, error) {
	select {
	case b, ok := <-l.in:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *line) say(messages ...Message) {
	for _, m := range messages {
		l.in <- m.Append(nil)
	}
}

// upload says a file as a user does.
func (l *line) upload(data []byte) {
	for part := range slices.Chunk(data, 1000) {
		l.say(Upload{part})
	}
	l.say(Upload{})
}

// hear returns the next message of the element that is no keep-alive, and answers
// those.
func (l *line) hear(t *testing.T) Message {
	t.Helper()
	for {
		select {
		case b := <-l.out:
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if m == (KeepAlive{}) {
				l.say(KeepAliveAck{})
				continue
			}
			return m
		case <-time.After(time.Minute):
			t.Fatal("the element says nothing")
		}
	}
}

func hears[T Message](t *testing.T, l *line) T {
	t.Helper()
	m := l.hear(t)
	got, ok := m.(T)
	if !ok {
		t.Fatalf("the element says %#v, not a %T", m, got)
	}
	return got
}

// result takes the downloads.
func (l *line) result(t *testing.T) string {
	t.Helper()
	var all []byte
	for {
		part := hears[Download](t, l).Data
		if len(part) == 0 {
			return string(all)
		}
		all = append(all, part...)
	}
}

// archive makes a compressed archive of files.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		h.PAXRecords = nil
		h.Mode, h.Size = 0o644, int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"content": content}}
}

func program(script string) tar.Header { return file(programName, "#!/bin/sh\n"+script) }

func newService(t *testing.T, cfg Config) *Service {
	t.Helper()
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no shell here:", err)
	}
	cfg.Dir = t.TempDir()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return s
}

func serve(t *testing.T, s *Service, l *line) (end func() error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(cancel)
	return func() error { return <-ended }
}

func TestJobWithAnEnvironment(t *testing.T) {
	s := newService(t, Config{Name: "luna"})
	// Longer than one message, so that there are several downloads.
	environment := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	input := archive(t, file("data/in.txt", "carried by a pool"),
		program("tr a-z A-Z < data/in.txt > $1 && cat $2 >> $1\n"))
	for _, uploaded := range []bool{true, false} {
		l := newLine()
		end := serve(t, s, l)
		if ready := hears[Ready](t, l); ready.Info != "luna" {
			t.Errorf("ready %+v", ready)
		}
		l.say(Environment{Hash: sha1.Sum(environment)})
		l.upload(input)
		if got := hears[Environment](t, l); got.UploadNeeded != uploaded || got.Hash != sha1.Sum(environment) {
			t.Fatalf("environment %+v, want upload %v", got, uploaded)
		}
		if uploaded {
			l.upload(environment)
		}
		if begun, ended := hears[Status](t, l), hears[Status](t, l); begun.Code != 0 || ended.Code != 0 {
			t.Errorf("status %v, then %v", begun, ended)
		}
		if got := l.result(t); got != "CARRIED BY A POOL"+string(environment) {
			t.Errorf("a result of %d octets", len(got))
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
}

func TestProgramThatFails(t *testing.T) {
	s := newService(t, Config{})
	for _, tt := range []struct {
		name  string
		input []byte
		code  uint32
		out   string
	}{
		{"with a result", archive(t, program("echo wrong > $1; exit 3")), 3, "wrong\n"},
		{"without a result", archive(t, program("exit 4")), 4, ""},
		{"killed", archive(t, program("kill -9 $$")), 0xffffffff, ""},
		{"no program in the input", archive(t, file("other", "")), 126, ""},
		{"no archive", []byte("no archive at all"), 126, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLine()
			end := serve(t, s, l)
			hears[Ready](t, l)
			l.upload(tt.input)
			if begun, ended := hears[Status](t, l), hears[Status](t, l); begun.Code != 0 || ended.Code != tt.code {
				t.Errorf("status %v, then %v; want 0, then %d", begun, ended, tt.code)
			}
			if got := l.result(t); got != tt.out {
				t.Errorf("result %q, want %q", got, tt.out)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBusyElementSendsUsersElsewhere(t *testing.T) {
	s := newService(t, Config{Name: "luna"})
	first := newLine()
	endFirst := serve(t, s, first)
	hears[Ready](t, first)
	if s.Load() != 1 {
		t.Errorf("load %v with its only job under way", s.Load())
	}
	second := newLine()
	endSecond := serve(t, s, second)
	if got := hears[NotReady](t, second); got.Reason != FullyLoaded || got.Info != "luna" {
		t.Errorf("not ready %+v", got)
	}
	if err := endSecond(); err != nil {
		t.Error(err)
	}
	close(first.in)
	if err := endFirst(); !errors.Is(err, io.EOF) {
		t.Errorf("the user that left: %v", err)
	}
	if s.Load() != 0 {
		t.Errorf("load %v without a job", s.Load())
	}
}

func TestJobIsKilledWhenItsUserGoes(t *testing.T) {
	s := newService(t, Config{})
	pids := filepath.Join(t.TempDir(), "pids")
	l := newLine()
	end := serve(t, s, l)
	hears[Ready](t, l)
	l.upload(archive(t, program(fmt.Sprintf("sleep 60 & echo $$ $! > %s.new; mv %s.new %s; wait", pids, pids, pids))))
	hears[Status](t, l)
	var running []string
	eventually(t, "the job runs", func() bool {
		b, err := os.ReadFile(pids)
		running = strings.Fields(string(b))
		return err == nil
	})
	close(l.in)
	if err := end(); !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
	for _, text := range running {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "process "+text+" is killed", func() bool { return gone(pid) })
	}
}

// gone tells whether a process has ended, waited for or not.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for begin := time.Now(); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("waited in vain:", what)
		}
	}
}

func TestKeepAlives(t *testing.T) {
	cfg := Config{Name: "luna", TransmitTimeout: time.Minute, KeepAliveInterval: 15 * time.Second, KeepAliveTimeout: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c := &client{Service: &Service{cfg: cfg}, conn: l}
		begin := time.Now()
		gone := make(chan error, 1)
		go func() { gone <- c.keepInTouch(t.Context()) }()
		is := func(want Message, at time.Duration) {
			t.Helper()
			got, err := Parse(<-l.out)
			if err != nil || got != want || time.Since(begin) != at {
				t.Errorf("%#v, %v after %v; want %#v after %v", got, err, time.Since(begin), want, at)
			}
		}
		is(KeepAlive{}, 0)
		time.Sleep(9 * time.Second)
		l.say(KeepAliveAck{}, KeepAlive{})
		is(KeepAliveAck{}, 9*time.Second)
		is(KeepAlive{}, 24*time.Second)
		if err := <-gone; err == nil || time.Since(begin) != 34*time.Second {
			t.Errorf("user who doesn't answer: %v after %v", err, time.Since(begin))
		}
	})
}

func TestUploadsAreBounded(t *testing.T) {
	s := newService(t, Config{MaxSize: 5000, TransmitTimeout: time.Minute})
	l := newLine()
	end := serve(t, s, l)
	hears[Ready](t, l)
	l.upload(make([]byte, 5001))
	if err := end(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("input too long: %v", err)
	}
	s = newService(t, Config{MaxSize: 5000, TransmitTimeout: 50 * time.Millisecond})
	l = newLine()
	end = serve(t, s, l)
	hears[Ready](t, l)
	l.say(Upload{[]byte("part")})
	if err := end(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("upload that stops: %v", err)
	}
}

func TestUnpackStaysInItsDirectory(t *testing.T) {
	for name, input := range map[string][]byte{
		"above":             archive(t, file("../evil", "x")),
		"absolute":          archive(t, file("/tmp/evil", "x")),
		"link":              archive(t, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"more than allowed": archive(t, file("a", strings.Repeat("x", 600)), file("b", strings.Repeat("x", 600))),
	} {
		dir := filepath.Join(t.TempDir(), "job")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err := unpack(dir, bytes.NewReader(input), 1000)
		if err == nil || (name == "more than allowed") != errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if outside, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "evil")); outside != nil {
			t.Errorf("%s: wrote %v", name, outside)
		}
	}
}

func TestOldEnvironmentsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	e := newEnvironments(dir, 2, 250)
	write := func(content string) (hash [HashSize]byte) {
		t.Helper()
		name := filepath.Join(t.TempDir(), "environment")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.put(name); err != nil {
			t.Fatal(err)
		}
		return sha1.Sum([]byte(content))
	}
	has := func(hash [HashSize]byte) bool {
		t.Helper()
		ok, err := e.get(hash, filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	a, b := write(strings.Repeat("a", 100)), write(strings.Repeat("b", 100))
	has(a) // the last used
	c := write(strings.Repeat("c", 100))
	if !has(a) || has(b) || !has(c) {
		t.Error("of three, not the one unused for longest was forgotten")
	}
	d := write(strings.Repeat("d", 200))
	if has(a) || has(c) || !has(d) {
		t.Error("one that needs nearly all the room does not replace the others")
	}
	if huge := write(strings.Repeat("e", 251)); has(huge) || !has(d) {
		t.Error("one that is too large was kept, or cost another")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}
