package transport

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// errMoved ends calls so that they go on with another deadline.
var errMoved = errors.New("deadline moved")

// Deadline is a deadline as net.Conn has them, for byte streams over what takes
// contexts: it may be moved while calls run. The zero value is one that never
// comes. Methods may be called concurrently.
type Deadline struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
}

// Set moves the deadline; a zero time means never, and frees its timer.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel == nil && t.IsZero() {
		return
	}
	if d.cancel != nil {
		d.cancel(errMoved)
		d.stop()
	}
	d.begin()
	if !t.IsZero() {
		d.ctx, d.stop = context.WithDeadline(d.ctx, t)
	}
}

func (d *Deadline) begin() {
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.stop = func() {}
}

func (d *Deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		d.begin()
	}
	return d.ctx
}

// Until calls f with a context that ends with the deadline, and again when the
// deadline was moved meanwhile, so a call that ctx ends must have lost nothing.
// When the deadline has come the error is os.ErrDeadlineExceeded.
func (d *Deadline) Until(f func(ctx context.Context) error) error {
	for {
		ctx := d.context()
		err := f(ctx)
		switch {
		case err == nil || ctx.Err() == nil:
			return err
		case errors.Is(context.Cause(ctx), errMoved):
			continue
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			return os.ErrDeadlineExceeded
		default:
			return err
		}
	}
}
