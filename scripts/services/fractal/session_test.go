package fractal

import (
	"context"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/poolelement"
	"rserpool/pooluser"
	"rserpool/pooluser/pooltest"
)

// TestPictureSurvivesElements: the element that computes is killed, hangs, or is
// stopped in an orderly way, and what is lost is within what its cookies allow.
func TestPictureSurvivesElements(t *testing.T) {
	p := Parameters{Width: 200, Height: 150, Iterations: 50, C1: view.C1, C2: view.C2}
	const every = 4
	faults := map[string]struct {
		do   func(*pooltest.World, string)
		lost uint64 // at most
	}{
		"kill": {(*pooltest.World).Kill, every * MaxPoints},
		"hang": {(*pooltest.World).Hang, every * MaxPoints},
		"stop": {(*pooltest.World).Stop, 0},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
				w.Registrar("r1")
				for _, e := range []string{"e1", "e2", "e3"} {
					w.Element(e, Pool, Element{CookieEvery: every, Rate: 10000}, func(cfg *poolelement.ServeConfig) { cfg.OnResume = CheckState })
				}
				r := w.User("u1")
				w.Settle()
				next := p.Points() / 4
				var changes []Change
				var befallen []string
				c, err := User{
					OnData: func(_ context.Context, c *Canvas, at param.PEID) error {
						if c.Done() >= next && len(befallen) < 2 {
							next += p.Points() / 4
							befallen = append(befallen, w.Who(at))
							fault.do(w, w.Who(at))
						}
						return nil
					},
					OnFailover: func(c Change) { changes = append(changes, c) },
				}.Compute(t.Context(), r, Pool, p, pooluser.SessionConfig{Timers: pooluser.Fast})
				if err != nil {
					t.Fatal(err)
				}
				if len(changes) != 2 || befallen[0] == befallen[1] {
					t.Errorf("%d failovers, of %v", len(changes), befallen)
				}
				for i, change := range changes {
					if change.Resumed > change.Had || change.Had-change.Resumed > fault.lost {
						t.Errorf("change %d: %d had come, it went on at %d; at most %d may be lost", i+1, change.Had, change.Resumed, fault.lost)
					}
				}
				if !slices.Equal(c.Points(), p.Picture()) {
					t.Error("the picture is wrong")
				}
			})
		})
	}
}

func TestRateIsKept(t *testing.T) {
	p := Parameters{Width: 100, Height: 100, Iterations: 10, C1: view.C1, C2: view.C2}
	pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
		w.Registrar("r1")
		w.Element("e1", Pool, Element{Rate: 1000})
		r := w.User("u1")
		w.Settle()
		begin := time.Now()
		if _, err := (User{}).Compute(t.Context(), r, Pool, p, pooluser.SessionConfig{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 10*time.Second || took > 10*time.Second+100*time.Millisecond {
			t.Errorf("10000 points at 1000 a second took %v", took)
		}
	})
}

// Elements end the session of whoever asks for nonsense, so nobody is asked.
func TestPicturesBeyondTheLimits(t *testing.T) {
	for _, p := range []Parameters{{}, {Width: 1, Height: MaxSide + 1, Iterations: 1}, {Width: 1, Height: 1}} {
		if _, err := (User{}).Compute(t.Context(), nil, Pool, p, pooluser.SessionConfig{}); err == nil {
			t.Errorf("%+v was asked for", p)
		}
	}
}
