package transport

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func wait(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestDeadlineMoves(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, later time.Duration // from the beginning; 0 = none
		want         time.Duration
	}{
		{"Comes", time.Second, time.Second, time.Second},
		{"Later", time.Second, time.Minute, time.Minute},
		{"Sooner", time.Minute, time.Second, time.Second},
		{"SetWhileWaiting", 0, time.Second, time.Second},
		{"SetToThePast", time.Minute, -time.Second, 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d Deadline
				began := time.Now()
				if c.first != 0 {
					d.Set(began.Add(c.first))
				}
				time.AfterFunc(500*time.Millisecond, func() { d.Set(began.Add(c.later)) })
				if err := d.Until(wait); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				if got := time.Since(began); got != c.want {
					t.Errorf("after %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestDeadlineLeavesOtherErrorsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadline
		d.Set(time.Now().Add(time.Second))
		broken := errors.New("broken")
		if err := d.Until(func(context.Context) error { return broken }); err != broken {
			t.Errorf("error %v", err)
		}
		d.Set(time.Time{})
		time.Sleep(time.Minute)
		if err := d.Until(func(ctx context.Context) error { return ctx.Err() }); err != nil {
			t.Errorf("after the deadline was taken away: %v", err)
		}
	})
}
