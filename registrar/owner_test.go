package registrar

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
