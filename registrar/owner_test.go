package registrar

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/param"
)

// TestTasksAreDoneInTurns: whoever does them, and however many there are, tasks are
// done one at a time, all of them, and those of one goroutine in its order.
func TestTasksAreDoneInTurns(t *testing.T) {
	const goroutines, each = 8, 1000
	inWorld(t, func(w *world) {
		var done [goroutines]int // guarded by the turn alone
		var group sync.WaitGroup
		for g := range goroutines {
			group.Go(func() {
				for i := range each {
					task := func(time.Time) {
						if done[g] != i {
							t.Errorf("goroutine %d: task %d after %d others", g, i, done[g])
						}
						done[g]++
					}
					switch {
					case g == 0:
						w.r.post(task)
					case w.r.file(task) && i%3 != 0:
						w.r.help()
					}
				}
				w.r.help()
			})
		}
		group.Wait()
		synctest.Wait()
		w.r.post(func(time.Time) {
			for g, n := range done {
				if n != each {
					t.Errorf("goroutine %d: %d of %d tasks done", g, n, each)
				}
			}
		})
		synctest.Wait()
	})
}

// TestNoTaskIsDoneAfterTheLoop: the turn is not given again when the loop has ended.
func TestNoTaskIsDoneAfterTheLoop(t *testing.T) {
	inWorld(t, func(w *world) {
		if err := w.r.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		done := false
		w.r.file(func(time.Time) { done = true })
		if w.r.help(); done || w.r.tryTurn() {
			t.Error("somebody has the turn after the end of the loop")
		}
	})
}

// TestEachExpiresWhenItIsDue: whichever registration comes, and however lifetimes change,
// each element goes when its own registration runs out.
func TestEachExpiresWhenItIsDue(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.peer("192.0.2.1")
		register := func(id param.PEID, life param.Life) {
			e := p.element(id)
			e.Life = life
			p.join("echo", e)
		}
		register(1, param.InfiniteLife)
		register(2, 100)
		register(3, 10) // sooner than what is there
		register(2, 5)  // sooner than before
		register(4, 8)
		register(4, 100) // later than before
		left := func(want ...param.PEID) {
			t.Helper()
			for id := range param.PEID(5) {
				w.wantStored("echo", id+1, slices.Contains(want, id+1))
			}
		}
		w.after(5*time.Second - 100*time.Millisecond)
		left(1, 2, 3, 4)
		w.after(200 * time.Millisecond)
		left(1, 3, 4)
		w.after(5 * time.Second)
		left(1, 4)
		w.after(90 * time.Second)
		left(1)
		p.heard()      // of those that have run out
		register(5, 7) // the first that is due at all
		w.after(7*time.Second - 100*time.Millisecond)
		left(1, 5)
		w.after(200 * time.Millisecond)
		left(1)
	}, timers(func(t *Timers) { t.KeepAlive.Interval = time.Hour }))
}
