package registrar

import (
	"context"
	"testing"
	"time"

	"rserpool/asap"
)

func TestHearing(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(100_000 + ms)) }
	type look struct {
		due, now int
		want     bool
	}
	for name, looks := range map[string][]look{
		"in time":           {{100, 0, true}, {100, 100, true}, {100, 109, true}},
		"late":              {{100, 150, false}, {100, 160, false}, {100, 249, false}, {100, 250, true}, {300, 300, true}},
		"late once more":    {{100, 150, false}, {100, 250, true}, {200, 260, false}, {200, 360, true}},
		"busy all the time": {{100, 150, false}, {100, 340, true}, {200, 430, false}, {200, 620, true}},
		"stopped meanwhile": {{100, 150, false}, {100, 900, false}, {100, 1000, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var h hearing
			for _, l := range looks {
				if got := h.over(at(l.due), at(l.now)); got != l.want {
					t.Errorf("due at %d, %d: %v", l.due, l.now, got)
				}
			}
		})
	}
}

// stop holds the registrar up as SIGSTOP does.
func (w *world) stop(d time.Duration) {
	w.Helper()
	if !w.r.post(func(time.Time) { time.Sleep(d) }) {
		w.Error("not stopped")
	}
	w.after(d)
}

func TestWhoWasStoppedHearsOthersFirst(t *testing.T) {
	t.Run("elements that have answered", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe, dead, pu := w.peer(), w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			dead.join(pool, dead.element(2))
			pe.answerFor(pool)
			dead.answerFor(pool)
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 2})
			w.after(time.Second)
			w.stop(time.Minute)
			w.after(10 * time.Millisecond) // its connections were stopped, too
			pe.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
			w.wantStored(pool, 2, true)
			w.after(hearingTime)
			w.wantStored(pool, 1, true)
			w.wantStored(pool, 2, false)
		})
	})
	t.Run("elements that have registered again", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.calm = true
			e := pe.element(1)
			e.Life = 20
			pe.join(pool, e)
			first := w.stored(pool, 1).Registered()
			w.after(19 * time.Second)
			w.stop(5 * time.Second)
			w.after(10 * time.Millisecond)
			w.wantStored(pool, 1, true)
			pe.join(pool, e)
			w.after(time.Second)
			if r := w.stored(pool, 1); r == nil || !r.Registered().Equal(first) {
				t.Errorf("%+v", r)
			}
			w.after(20 * time.Second)
			w.wantStored(pool, 1, false)
		})
	})
	t.Run("elements that were being connected to", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort() // the dial hangs
			w.after(time.Second)
			w.stop(time.Minute)
			w.after(time.Second)
			w.wantStored(pool, 1, true)
			w.after(time.Minute)
			w.wantStored(pool, 1, false)
		}, hook(hooked{dial: func() error { time.Sleep(5 * time.Second); return context.DeadlineExceeded }}))
	})
}
