package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := NewTurn()
		why := errors.New("enough")
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if err := turn.Take(ended); err != nil {
			t.Errorf("a free one: %v", err)
		}
		if err := turn.Take(ended); err != why || turn.Try() {
			t.Errorf("one that is taken: %v", err)
		}
		time.AfterFunc(time.Second, turn.End)
		began := time.Now()
		if err := turn.Take(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v, after %v", err, time.Since(began))
		}
		turn.End()
		inside := 0
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if err := turn.Take(t.Context()); err != nil {
					t.Error(err)
				}
				if inside++; inside != 1 {
					t.Errorf("%d at a time", inside)
				}
				time.Sleep(time.Millisecond)
				inside--
				turn.End()
			})
		}
		all.Wait()
	})
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once Once
		began := time.Now()
		calls := 0
		first := make(chan struct{})
		go func() {
			defer close(first)
			once.Do(t.Context(), func() {
				calls++
				time.Sleep(time.Second)
			})
		}()
		synctest.Wait()
		hurried, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for _, c := range []struct {
			ctx  context.Context
			want time.Duration
		}{
			{hurried, time.Millisecond},
			{t.Context(), time.Second},
			{t.Context(), time.Second},
		} {
			once.Do(c.ctx, func() { calls++ })
			if took := time.Since(began); took != c.want {
				t.Errorf("goes on after %v, want %v", took, c.want)
			}
		}
		<-first
		if calls != 1 {
			t.Errorf("done %d times", calls)
		}
		var ended Once
		ended.Do(hurried, func() { calls++ })
		if calls != 2 {
			t.Error("not done, as the context of the first call has ended")
		}
	})
}
