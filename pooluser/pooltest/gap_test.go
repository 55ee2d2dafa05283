package pooltest

import (
	"fmt"
	"testing"
	"time"

	"rserpool/poolelement"
	"rserpool/pooluser"
)

// An application that asks all the time gets answers again after what the timers say.
func TestGapsAreWhatTheTimersSay(t *testing.T) {
	const network = 10 * time.Millisecond // some ways there and back
	for name, timers := range map[string]pooluser.Timers{"fast": pooluser.Fast, "default": pooluser.Default, "patient": pooluser.Patient} {
		for _, fault := range []struct {
			name string
			do   func(w *World, element string)
			want time.Duration
		}{
			{"kill", (*World).Kill, 0}, {"hang", (*World).Hang, timers.Silence},
			{"isolate", (*World).Isolate, timers.Silence}, {"crash", (*World).Crash, timers.Silence},
		} {
			t.Run(name+" "+fault.name, func(t *testing.T) {
				Seeds(t, 5, func(t *testing.T, w *World) {
					tr := newTrial(t, w, pooluser.AtLeastOnce, none)
					tr.calm = true
					w.Registrar("r1")
					for _, e := range trialElements {
						w.Element(e, trialPool, poolelement.HandlerFunc(tr.serve(e)))
					}
					user := w.User("u1")
					w.Settle()
					s, err := user.Open(t.Context(), trialPool, pooluser.SessionConfig{Timers: timers, Delivery: pooluser.AtLeastOnce})
					if err != nil {
						t.Fatal(err)
					}
					var longest time.Duration
					end := time.Now().Add(2*timers.Silence + time.Second)
					time.AfterFunc(time.Until(end)/2+time.Duration(w.Rand().Int64N(int64(timers.Heartbeat))), func() {
						element, _ := s.Element()
						fault.do(w, w.Who(element.ID))
					})
					for id := uint64(1); time.Now().Before(end); id++ {
						start := time.Now()
						if err := s.Send(t.Context(), pooluser.Message{Data: fmt.Append(nil, id)}); err != nil {
							t.Fatal(err)
						}
						if m, err := s.Receive(t.Context()); err != nil || requestOf(m.Data) != id {
							t.Fatalf("request %d: %q, %v", id, m.Data, err)
						}
						longest = max(longest, time.Since(start))
						time.Sleep(timers.Heartbeat / 10)
					}
					if longest < fault.want-timers.Heartbeat || longest > fault.want+network {
						t.Errorf("the longest gap is %v, want %v", longest, fault.want)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}, func(cfg *Config) { cfg.FailureTime = time.Minute }) // nobody but the session finds out
			})
		}
	}
}
