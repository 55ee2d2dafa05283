package pooltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a test that only writes down what is wrong.
type recorder struct {
	testing.TB
	wrong []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Failed() bool              { return len(r.wrong) > 0 }
func (r *recorder) Log(args ...any)           { r.wrong = append(r.wrong, fmt.Sprint(args...)) }
func (r *recorder) Error(args ...any)         { r.wrong = append(r.wrong, fmt.Sprint(args...)) }
func (r *recorder) Logf(f string, a ...any)   { r.Log(fmt.Sprintf(f, a...)) }
func (r *recorder) Errorf(f string, a ...any) { r.Error(fmt.Sprintf(f, a...)) }
func (r *recorder) Fatalf(f string, a ...any) { r.Error(fmt.Sprintf(f, a...)); panic(errFatal) }
func (r *recorder) Fatal(args ...any)         { r.Error(args...); panic(errFatal) }
func (r *recorder) FailNow()                  { panic(errFatal) }

var errFatal = errors.New("the test has failed")

// record returns what f has to complain of.
func record(t *testing.T, f func(tb testing.TB)) []string {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(errFatal) {
				panic(p)
			}
		}()
		f(r)
	}()
	return r.wrong
}

func wantWrong(t *testing.T, got []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("complains of %q, want %q", got, want)
	}
}

func TestNewNeedsABubble(t *testing.T) {
	wantWrong(t, record(t, func(tb testing.TB) { New(tb, Config{}) }), "bubble of testing/synctest")
}

func TestMisuse(t *testing.T) {
	for _, misuse := range []struct {
		name string
		do   func(w *World)
		want string
	}{
		{"unknown", func(w *World) { w.Kill("e9") }, `no process "e9"`},
		{"never started", func(w *World) { w.Machine("e9"); w.Kill("e9") }, `no process "e9"`},
		{"cut", func(w *World) { w.Cut("e1", "e9") }, `no process "e9"`},
		{"twice", func(w *World) { w.Server("e1", "echo", echo) }, "e1 runs already"},
		{"user twice", func(w *World) { w.User("u1") }, "u1 runs already"},
		{"registrars twice", func(w *World) { w.Registrar("r2") }, "there are registrars already"},
		{"user restarted", func(w *World) { w.Restart("u1") }, "call User again"},
		{"not settled", func(w *World) { w.Kill("r1"); w.Settle() }, "not settled within 2m0s: e1, e2, u1"},
		{"awaited in vain", func(w *World) {
			w.Await(time.Minute, "the moon", func() bool { return false })
		}, "not within 1m0s: the moon"},
		{"process fails", func(w *World) {
			w.Start("a", func(context.Context, *Machine) error { return errors.New("no disk") })
			w.Pass(time.Second)
		}, "a ended by itself: no disk"},
	} {
		t.Run(misuse.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wantWrong(t, record(t, func(tb testing.TB) {
					w := New(tb, Config{})
					pair(w)
					misuse.do(w)
				}), misuse.want)
			})
		})
	}
}

func TestSettleGivesTimeToRegistrarsOfARing(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		w.Registrars("r1", "r2")
		w.Server("e1", "echo", echo)
		user := w.User("u1")
		if took := w.Await(time.Minute, "e1 in the pool", func() bool {
			answer, err := user.Renew(t.Context(), "echo")
			return err == nil && len(answer.Elements) == 1
		}); took == 0 {
			t.Error("took no time")
		}
	})
}

// What a test that fails gets to read.
func TestStory(t *testing.T) {
	var wrong []string
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		w := New(r, Config{Seed: 17})
		pair(w)
		w.Kill("e1")
		r.Error("something")
		w.close()
		wrong = r.wrong
	})
	for _, want := range []string{"seed 17", "SEED=17 go test -run '^TestStory$'", "e1       KILL", "home registrar found pool=echo"} {
		wantWrong(t, wrong, want)
	}
}

// A test that ends before its incidents are over takes nothing else with it.
func TestPlayEndsWithTheWorld(t *testing.T) {
	for _, incidents := range [][]Incident{
		{{At: time.Hour, For: time.Second, Fault: Killed, Name: "e1"}},
		{{For: time.Hour, Fault: Killed, Name: "e1"}},
		{{For: time.Hour, Fault: Hung, Name: "e1"}, {At: time.Minute, For: time.Hour, Fault: Isolated, Name: "r1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{TB: t}
			w := New(r, Config{})
			pair(w)
			var happened []Incident
			done := make(chan struct{})
			go func() {
				defer close(done)
				happened = w.Play(incidents)
			}()
			time.Sleep(2 * time.Minute)
			began := time.Now()
			w.close()
			<-done
			if took := time.Since(began); took > 0 || len(r.wrong) > 0 {
				t.Errorf("Play ended after %v with %q, and says %v", took, r.wrong, happened)
			}
		})
	}
}
