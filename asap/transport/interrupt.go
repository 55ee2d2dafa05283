package transport

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// Interrupter ends blocking calls on something with deadlines when a context
// ends. It keeps its watch as long as the same context (more precisely, one with
// the same Done channel) is passed, so that a loop with one context pays for it
// once.
//
// One goroutine at a time may use Arm; Release may be called by any.
type Interrupter struct {
	setDeadline func(time.Time) error

	mu       sync.Mutex
	done     <-chan struct{} // of the context watched
	stop     func() bool
	ran      chan struct{} // closed when the deadline was set because done closed
	released bool
}

// NewInterrupter returns an Interrupter that makes calls fail with
// os.ErrDeadlineExceeded through setDeadline, for example
// (*net.TCPConn).SetReadDeadline. Nobody else may set this deadline.
func NewInterrupter(setDeadline func(time.Time) error) *Interrupter {
	return &Interrupter{setDeadline: setDeadline}
}

// Arm makes ctx interrupt the calls that follow, instead of the context before.
// It returns ctx's cause when ctx has already ended.
func (i *Interrupter) Arm(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := ctx.Done()
	i.mu.Lock()
	defer i.mu.Unlock()
	if done == i.done || i.released {
		return nil
	}
	if err := i.disarm(); err != nil {
		return err
	}
	if done == nil {
		return nil
	}
	ran := make(chan struct{})
	i.done, i.ran = done, ran
	i.stop = context.AfterFunc(ctx, func() {
		defer close(ran)
		// An error means that the descriptor is closed, which ends calls too.
		_ = i.setDeadline(time.Unix(1, 0))
	})
	return nil
}

func (i *Interrupter) disarm() error {
	stop := i.stop
	i.done, i.stop = nil, nil
	if stop == nil || stop() {
		return nil
	}
	<-i.ran
	return i.setDeadline(time.Time{})
}

// Cause turns the error of an interrupted call into ctx's cause and leaves
// others as they are.
func (i *Interrupter) Cause(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Release ends the watch for good: what it watched for is closed.
func (i *Interrupter) Release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stop != nil {
		i.stop()
	}
	i.done, i.stop, i.released = nil, nil, true
}
