package transport

import (
	"context"
	"os"
	"sync"
	"time"
)

// Deadline is a deadline as net.Conn has them, for byte streams over what takes
// contexts: it may be moved while calls run, which they do not notice. The zero value is
// one that never comes. Methods may be called concurrently.
type Deadline struct {
	mu     sync.Mutex
	ctx    context.Context // ends when the deadline has come
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// Set moves the deadline; a zero time means never, and frees its timer.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if t.IsZero() && d.ctx == nil {
		return
	}
	if d.ctx == nil || d.ctx.Err() != nil {
		d.begin()
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.cancel(context.DeadlineExceeded)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer { // it was not moved at this moment
			d.cancel(context.DeadlineExceeded)
		}
	})
	d.timer = timer
}

func (d *Deadline) begin() { d.ctx, d.cancel = context.WithCancelCause(context.Background()) }

func (d *Deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		d.begin()
	}
	return d.ctx
}

// Until calls f with a context that ends with the deadline. When it has come before f
// failed the error is os.ErrDeadlineExceeded.
func (d *Deadline) Until(f func(ctx context.Context) error) error {
	ctx := d.context()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return os.ErrDeadlineExceeded
	}
	return err
}
