package sidecar

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff(t *testing.T) {
	s := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, tt := range []struct {
		name     string
		min, max time.Duration
		limit    int
		runs     []time.Duration
		pauses   []time.Duration // as many as there are restarts
	}{
		{"Doubles", s(1), s(10), 0, []time.Duration{0, 0, 0, 0, 0, 0}, []time.Duration{s(1), s(2), s(4), s(8), s(10), s(10)}},
		{"BeginsAnewAfterALongRun", s(1), s(10), 0, []time.Duration{0, s(9), s(10), 0}, []time.Duration{s(1), s(2), s(1), s(2)}},
		{"Limited", s(1), s(10), 2, []time.Duration{0, 0, 0}, []time.Duration{s(1), s(2)}},
		{"LimitedInARow", s(1), s(10), 2, []time.Duration{0, 0, s(10), 0, 0}, []time.Duration{s(1), s(2), s(1), s(2)}},
		{"AtOnce", 0, s(10), 0, []time.Duration{0, 0}, []time.Duration{0, 0}},
		{"Constant", s(5), s(5), 0, []time.Duration{0, 0, s(9)}, []time.Duration{s(5), s(5), s(5)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := backoff{min: tt.min, max: tt.max, limit: tt.limit}
			var got []time.Duration
			for _, ran := range tt.runs {
				pause, ok := b.next(ran)
				if !ok {
					break
				}
				got = append(got, pause)
			}
			if !slices.Equal(got, tt.pauses) {
				t.Errorf("pauses %v, want %v", got, tt.pauses)
			}
		})
	}
}

// actor is a command that behaves as written, in virtual time.
type actor struct {
	runs      time.Duration // until it ends by itself; 0 never
	ends      error         // with that
	stopsIn   time.Duration // after StopSignal; negative never
	lingersIn time.Duration // the rest of its group, after that

	undead bool // or for ever

	once   sync.Once
	ended  chan error
	lonely chan struct{} // closed when the group is empty
	got    *[]string
	began  time.Time
}

func (a *actor) pid() int { return 42 }

func (a *actor) end(err error, linger time.Duration) {
	a.once.Do(func() {
		switch {
		case a.undead:
		case linger == 0:
			close(a.lonely)
		default:
			time.AfterFunc(linger, func() { close(a.lonely) })
		}
		a.ended <- err
	})
}

func (a *actor) wait() error {
	if a.runs > 0 {
		time.AfterFunc(a.runs, func() { a.end(a.ends, a.lingersIn) })
	}
	return <-a.ended
}

func (a *actor) note(s string) { *a.got = append(*a.got, time.Since(a.began).String()+" "+s) }

func (a *actor) signal(s os.Signal) error {
	a.note(s.String())
	return nil
}

func (a *actor) signalGroup(s syscall.Signal) error {
	a.note("all " + s.String())
	switch {
	case s == syscall.SIGKILL:
		a.end(&EndedError{Signal: s}, 0)
	case a.stopsIn >= 0:
		time.AfterFunc(a.stopsIn, func() { a.end(&EndedError{Signal: s}, a.lingersIn) })
	}
	return nil
}

func (a *actor) groupEmpty() bool {
	select {
	case <-a.lonely:
		return true
	default:
		return false
	}
}

// story runs a Process with these actors, one after the other, for some time.
type story struct {
	got   []string // signals, and when the actor that got them had begun
	lives []string // from and to
	took  time.Duration
	err   error
}

func play(t *testing.T, stop time.Duration, p Process, actors ...*actor) (s story) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), stop)
	defer cancel()
	p.Command = []string{"actor"}
	p.start = func() (child, error) {
		if len(actors) == 0 {
			return nil, errors.New("no more actors")
		}
		a := actors[0]
		actors = actors[1:]
		if a == nil {
			return nil, os.ErrPermission
		}
		a.ended, a.lonely, a.got, a.began = make(chan error, 1), make(chan struct{}), &s.got, time.Now()
		return a, nil
	}
	p.Life = func(ctx context.Context) {
		from := time.Since(began).String()
		<-ctx.Done()
		s.lives = append(s.lives, from+"-"+time.Since(began).String())
	}
	signals := make(chan os.Signal, 1)
	time.AfterFunc(time.Second/2, func() { signals <- syscall.SIGHUP })
	s.err = p.Run(ctx, signals)
	s.took = time.Since(began)
	time.Sleep(time.Hour) // timers of actors
	return s
}

func TestServerIsStartedAgain(t *testing.T) {
	failure := &EndedError{Code: 3}
	crash := func() *actor { return &actor{runs: 2 * time.Second, ends: failure} }
	done := func() *actor { return &actor{runs: 2 * time.Second} }
	for _, tt := range []struct {
		name   string
		p      Process
		actors []*actor
		lives  string
		err    error
		took   time.Duration
	}{
		{"OnFailure", Process{}, []*actor{crash(), crash(), done()}, "0s-2s 3s-5s 7s-9s", nil, 9 * time.Second},
		{"Always", Process{Restart: Always}, []*actor{done(), crash(), {}}, "0s-2s 3s-5s 7s-30s", nil, 30 * time.Second},
		{"Never", Process{Restart: Never}, []*actor{crash()}, "0s-2s", failure, 2 * time.Second},
		{"Limit", Process{RestartLimit: 1}, []*actor{crash(), crash()}, "0s-2s 3s-5s", failure, 5 * time.Second},
		{"CantBeStartedAgain", Process{RestartMin: 10 * time.Second}, []*actor{crash(), nil, {}}, "0s-2s", nil, 30 * time.Second},
		{"StoppedInAPause", Process{RestartMin: time.Minute}, []*actor{crash()}, "0s-2s", nil, 30 * time.Second},
		{"CantBeStarted", Process{}, []*actor{nil}, "", os.ErrPermission, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, 30*time.Second, tt.p, tt.actors...)
				if got := strings.Join(s.lives, " "); got != tt.lives || !errors.Is(s.err, tt.err) || s.took != tt.took {
					t.Errorf("lives %q, %v, after %v; want %q, %v, %v", got, s.err, s.took, tt.lives, tt.err, tt.took)
				}
			})
		})
	}
}

func TestServerIsStopped(t *testing.T) {
	drain := func(d time.Duration) func(context.Context) {
		return func(ctx context.Context) {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
	}
	for _, tt := range []struct {
		name  string
		p     Process
		actor *actor
		got   string
		err   error
		took  time.Duration
	}{
		{"AtOnce", Process{}, &actor{}, "500ms hangup,10s all terminated", nil, 10 * time.Second},
		{"AfterDrain", Process{Drain: drain(7 * time.Second)}, &actor{stopsIn: time.Second}, "500ms hangup,17s all terminated", nil, 18 * time.Second},
		{"OtherSignal", Process{StopSignal: syscall.SIGINT}, &actor{}, "500ms hangup,10s all interrupt", nil, 10 * time.Second},
		{"EndsInDrain", Process{Drain: drain(time.Minute)}, &actor{runs: 12 * time.Second}, "500ms hangup", nil, 12 * time.Second},
		{"Killed", Process{KillAfter: 3 * time.Second}, &actor{stopsIn: -1}, "500ms hangup,10s all terminated,13s all killed", ErrKilled, 13 * time.Second},
		{"Undead", Process{KillAfter: 3 * time.Second}, &actor{stopsIn: -1, undead: true}, "500ms hangup,10s all terminated,13s all killed", ErrKilled, 14 * time.Second},
		{"LeavesProcesses", Process{}, &actor{lingersIn: 2 * time.Second}, "500ms hangup,10s all terminated,10s all terminated", nil, 12 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, 10*time.Second, tt.p, tt.actor)
				took := s.took.Round(50 * time.Millisecond)
				if got := strings.Join(s.got, ","); got != tt.got || !errors.Is(s.err, tt.err) || took != tt.took {
					t.Errorf("it got %q, %v, after %v; want %q, %v, %v", got, s.err, took, tt.got, tt.err, tt.took)
				}
				if lives := strings.Join(s.lives, " "); lives != "0s-10s" {
					t.Errorf("lives %s", lives)
				}
			})
		})
	}
}

// What a server leaves behind may hold its port.
func TestRestartWaitsForTheProcessGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, time.Minute, Process{KillAfter: 5 * time.Second},
			&actor{runs: 2 * time.Second, ends: &EndedError{Code: 1}, lingersIn: 2990 * time.Millisecond}, &actor{})
		if got := strings.Join(s.got, ","); got != "500ms hangup,2s all terminated,54s all terminated" {
			t.Errorf("signals %q", got)
		}
		if lives := strings.Join(s.lives, " "); lives != "0s-2s 6s-1m0s" {
			t.Errorf("lives %s", lives)
		}
	})
}

// A signal in a pause is for nobody; at its first instant the next server may not be ready
// for it.
func TestSignalsInAPauseAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, time.Minute, Process{}, &actor{runs: 100 * time.Millisecond, ends: &EndedError{Code: 1}}, &actor{})
		if got := strings.Join(s.got, ","); got != "58.9s all terminated" {
			t.Errorf("signals %q", got)
		}
		if lives := strings.Join(s.lives, " "); lives != "0s-100ms 1.1s-1m0s" {
			t.Errorf("lives %s", lives)
		}
	})
}

func TestProcessValidate(t *testing.T) {
	err := Process{Restart: "sometimes", RestartMin: time.Hour, RestartLimit: -1, KillAfter: -1}.Validate()
	for _, want := range []string{"Command is missing", `Restart is "sometimes"`, "RestartMin is 1h", "RestartLimit is -1", "KillAfter is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
