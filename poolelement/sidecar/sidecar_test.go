package sidecar

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

// recorder is an element that notes what it is told, and when.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	serving []change
	loads   []float64
}

type change struct {
	after   time.Duration
	serving bool
}

func (r *recorder) SetServing(serving bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving = append(r.serving, change{time.Since(r.start), serving})
}

func (r *recorder) SetLoad(load float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loads = append(r.loads, load)
}

var errEnded = errors.New("element has ended")

func (r *recorder) Run(ctx context.Context) error {
	<-ctx.Done()
	return errEnded
}

// script is a check and a gauge that behave as written.
type script struct {
	check func(ctx context.Context) error
	load  func(ctx context.Context) (float64, error)
}

func (s script) Check(ctx context.Context) error           { return s.check(ctx) }
func (s script) Load(ctx context.Context) (float64, error) { return s.load(ctx) }
func (script) String() string                              { return "script" }

// runFor runs the side-car for some time, which is virtual.
func runFor(t *testing.T, d time.Duration, cfg Config) *recorder {
	r := &recorder{start: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := Run(ctx, cfg, r); !errors.Is(err, errEnded) {
		t.Errorf("Run: %v", err)
	}
	return r
}

func TestServiceJoinsAndLeavesWithItsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		down := func() bool { // from 10 to 20 s
			d := time.Since(began)
			return d >= 10*time.Second && d < 20*time.Second
		}
		log, lines := test.NewNullLogger()
		r := runFor(t, time.Minute, Config{
			Service: "tcp://127.0.0.1:80", Log: log,
			Check: script{check: func(context.Context) error {
				if down() {
					return errors.New("connection refused")
				}
				return nil
			}},
		})
		want := []change{{0, true}, {14 * time.Second, false}, {22 * time.Second, true}}
		if !slices.Equal(r.serving, want) {
			t.Errorf("element was told %v, want %v", r.serving, want)
		}
		var warning string
		for _, l := range lines.AllEntries() {
			if l.Level == logrus.WarnLevel {
				warning, _ = l.String()
			}
		}
		for _, part := range []string{"service is down", "connection refused", "tcp://127.0.0.1:80", "script"} {
			if !strings.Contains(warning, part) {
				t.Errorf("log line %q lacks %q", warning, part)
			}
		}
	})
}

func TestSlowCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFor(t, time.Minute, Config{
			Interval: 10 * time.Second, Timeout: 3 * time.Second, Fall: 1,
			Check: script{check: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}},
		})
		if want := []change{{3 * time.Second, false}}; !slices.Equal(r.serving, want) {
			t.Errorf("element was told %v, want %v", r.serving, want)
		}
	})
}

func TestWithoutCheckTheServiceIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFor(t, time.Minute, Config{})
		if want := []change{{0, true}}; !slices.Equal(r.serving, want) {
			t.Errorf("element was told %v, want %v", r.serving, want)
		}
	})
}

func TestLoadIsReadAndStaysWhenItCantBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reading := 0
		log, lines := test.NewNullLogger()
		r := runFor(t, 5500*time.Millisecond, Config{
			Log: log,
			Gauge: script{load: func(context.Context) (float64, error) {
				if reading++; reading == 3 || reading == 4 {
					return 0, errors.New("no such file")
				}
				return float64(reading) / 10, nil
			}},
		})
		if want := []float64{0.1, 0.2, 0.5, 0.6}; !slices.Equal(r.loads, want) {
			t.Errorf("loads %v, want %v", r.loads, want)
		}
		if n := len(lines.AllEntries()); n != 2 {
			t.Errorf("%d log lines, want one when it failed and one when it worked again", n)
		}
	})
}

func TestRunRefusesBadConfiguration(t *testing.T) {
	err := Run(context.Background(), Config{Interval: time.Second, Timeout: time.Minute, Rise: -1}, &recorder{})
	for _, want := range []string{"Timeout is 1m0s", "Rise is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

// A server that comes and goes is in its pool from its first pass to its end, each
// time.
func TestWatchIsForOneLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := &recorder{start: began}
		var healths []Health
		cfg := Config{
			Rise: 3, Interval: time.Second,
			Check: script{check: func(context.Context) error {
				if time.Since(began) < 5*time.Second {
					return errors.New("still starting")
				}
				return nil
			}},
			Fall: 10, OnHealth: func(h Health) { healths = append(healths, h) },
		}
		for range 2 {
			life, end := context.WithTimeout(t.Context(), 10*time.Second)
			if err := Watch(life, cfg, r); err != nil {
				t.Error(err)
			}
			end()
		}
		want := []change{{5 * time.Second, true}, {10 * time.Second, false}, {10 * time.Second, true}, {20 * time.Second, false}}
		if !slices.Equal(r.serving, want) || !slices.Equal(healths, []Health{Up, Up}) {
			t.Errorf("element was told %v, want %v; healths %v", r.serving, want, healths)
		}
	})
	t.Run("StartsSoon", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now()}
			life, end := context.WithTimeout(t.Context(), time.Minute)
			defer end()
			if err := Watch(life, Config{
				Rise: 3, Fall: 1, Interval: 10 * time.Second, StartInterval: 100 * time.Millisecond,
				Check: script{check: func(context.Context) error {
					switch d := time.Since(r.start); {
					case d < 750*time.Millisecond:
						return errors.New("still starting")
					case d > 15*time.Second && d < 25*time.Second:
						return errors.New("broken")
					}
					return nil
				}},
			}, r); err != nil {
				t.Error(err)
			}
			// Then checks come at 0.8, 10.8, 20.8 (broken), 30.8, 40.8 and 50.8 s.
			at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
			want := []change{{at(.8), true}, {at(20.8), false}, {at(50.8), true}, {at(60), false}}
			if !slices.Equal(r.serving, want) {
				t.Errorf("element was told %v, want %v", r.serving, want)
			}
		})
	})
	t.Run("BadConfiguration", func(t *testing.T) {
		if err := Watch(t.Context(), Config{Rise: -1}, &recorder{}); err == nil {
			t.Error("no error")
		}
	})
}
