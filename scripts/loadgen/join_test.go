package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap/transport"
)

func TestParseJoinSize(t *testing.T) {
	for v, want := range map[string]joinSize{"1000=3": {1000, 3}, "1=1": {1, 1}, "": {}, "1000": {}, "0=3": {}, "1000=0": {}, "1000=3=3": {}, "a=1": {}} {
		got, err := parseJoinSize(v)
		if bad := want == (joinSize{}); bad != (err != nil) || !bad && got != want {
			t.Errorf("%q: %+v, %v; want %+v", v, got, err, want)
		}
	}
}

// TestJoinLog: what a log says is found, however it is cut into writes, and once.
func TestJoinLog(t *testing.T) {
	const text = `{"level":"info","msg":"starting","version":"x"}
what is no entry
{"cause":"start","level":"info","members":["3"],"msg":"ring: new view"}
{"cause":"merge","level":"info","members":["1","2","3"],"msg":"ring: new view"}
{"level":"info","msg":"ring: sides have met","octets":1200,"differences":5}
{"level":"info","msg":"ring: sides have met","octets":34,"differences":1}
{"level":"info","members":3,"msg":"ring: all members know the same"}
{"after":"1.2s","level":"info","msg":"serving"}
{"level":"info","msg":"ring: sides have met","octets":100000}
{"after":"1.3s","level":"info","msg":"serving"}
`
	for _, size := range []int{1, 7, 100, len(text)} {
		var copied strings.Builder
		l := &joinLog{to: &copied, serves: make(chan time.Time, 1)}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := io.WriteString(l, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			// With the end of the line that says it.
			merged := strings.Contains(text[:len(text)-len(rest)], `"1","2","3"],"msg":"ring: new view"}`+"\n")
			if l.found.IsZero() == merged {
				t.Fatalf("in writes of %d: found at %s, with %q to come", size, l.found, rest)
			}
		}
		if len(l.serves) != 1 || l.octets != 1234 || copied.String() != text {
			t.Errorf("in writes of %d: serves %d times, %d octets, passed on %q", size, len(l.serves), l.octets, copied.String())
		}
	}
}

func TestParseMemory(t *testing.T) {
	got, err := parseMemory("Name:\trspd\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t8\n")
	if err != nil || got != 1<<20 {
		t.Errorf("%d octets, %v; want 1 MiB", got, err)
	}
	for _, status := range []string{"", "VmHWM:\t 1 kB\n", "VmRSS:\t x kB\n"} {
		if got, err := parseMemory(status); err == nil {
			t.Errorf("%q was accepted: %d", status, got)
		}
	}
}

// TestJoinRow: a row has as many columns as the header, and each its own median.
func TestJoinRow(t *testing.T) {
	var all []joined
	for _, n := range []int64{3, 1, 2} {
		all = append(all, joined{
			found: time.Duration(n) * 10 * time.Millisecond, serves: time.Duration(n) * 100 * time.Millisecond,
			octets: n * 1000, resident: n << 20,
			p50: time.Duration(n) * time.Millisecond, p99: time.Duration(n*n) * time.Millisecond, most: time.Duration(n) * time.Second,
		})
	}
	got := joinRow(joinSize{500, 3}, all)
	if want := "| 500 | 3 | 20 ms | 200 ms | 2000 | 2.0 MiB | 2.0 ms | 4.0 ms | 2000.0 ms |\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for line := range strings.Lines(joinHeader) {
		if strings.Count(line, "|") != strings.Count(got, "|") {
			t.Errorf("%q has other columns than %q", line, got)
		}
	}
}

// TestRegisterAgain: one element registers again every 10 ms until it is over, also
// while the registrar keeps it waiting, and how long each waited since it was due is
// found.
func TestRegisterAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, networks, net := startAway(t)
		e := registerOne(t, f, networks)
		const held = 200 * time.Millisecond
		over := make(chan struct{})
		times := hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
		done := make(chan error)
		go func() { done <- registerAgain(t.Context(), e, over, times) }()
		time.Sleep(held)
		net.Freeze("registrar") // it answers nobody
		time.Sleep(held)
		net.Thaw("registrar")
		time.Sleep(held + againPause/2)
		close(over)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := int(3*held/againPause) + 1; times.TotalCount() != int64(want) || f.again != want || len(f.elements) != 1 {
			t.Errorf("%d were timed, %d came, of %d elements; want %d", times.TotalCount(), f.again, len(f.elements), want)
		}
		if most := time.Duration(times.Max()); most < held-againPause || most > held+againPause {
			t.Errorf("the longest took %s, while none was answered for %s", most, held)
		}
	})
}

// TestRegisterAgainEnds: who waits for answers goes when it is told, and when the
// registrar has gone.
func TestRegisterAgainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, networks, _ := startAway(t)
		e := registerOne(t, f, networks)
		times := hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
		never := make(chan struct{})
		late := errors.New("too late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
		defer cancel()
		if err := registerAgain(ctx, e, never, times); !errors.Is(err, late) {
			t.Errorf("ended with %v, want %v", err, late)
		}
		e.conn.Close()
		if err := registerAgain(t.Context(), e, never, times); err == nil {
			t.Error("went on without a connection")
		}
	})
}

// registerOne registers an element until the test ends.
func registerOne(t *testing.T, f *fakeRegistrar, networks *transport.Networks) *elements {
	t.Helper()
	at, err := transport.ParseEndpoint("sctp://"+f.address, transport.SCTP, asapPort)
	if err != nil {
		t.Fatal(err)
	}
	e, err := register(t.Context(), networks, at, &settings{pool: "again", register: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.close() })
	return e
}

// TestJoinFlags: what is wrong is said before anything is started.
func TestJoinFlags(t *testing.T) {
	places := "--in a=10.0.0.1 --in b=10.0.0.2 --in c=10.0.0.3"
	for _, args := range []string{"", places, "--elements 1=1", "--elements 0=1 " + places, "--elements 1=1 --in a " + places} {
		var out strings.Builder
		err := runJoin(t.Context(), strings.Fields(args), &out)
		if err == nil || out.Len() > 0 {
			t.Errorf("%q was accepted: %s", args, out.String())
		}
	}
}
