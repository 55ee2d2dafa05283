package transport

import (
	"context"
	"sync"
)

// Turn is held by one goroutine at a time, for example by the one that writes to a
// connection. Unlike a lock it is waited for no longer than a context goes.
type Turn chan struct{}

// NewTurn returns one that nobody holds.
func NewTurn() Turn { return make(Turn, 1) }

// Take waits for the turn, and returns ctx's cause when that ends before. A turn that is
// free is taken whatever ctx says.
func (t Turn) Take(ctx context.Context) error {
	if t.Try() { // nearly always, and cheaper alone
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Try takes the turn if it is free, and tells whether it was.
func (t Turn) Try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// End gives the turn back.
func (t Turn) End() { <-t }

// Once does something once, as sync.Once does, for what may take time: who comes meanwhile
// waits no longer than its context goes, and virtual time goes on (testing/synctest). The
// zero value has done nothing yet.
type Once struct {
	mu   sync.Mutex
	done chan struct{} // made when it begins, closed when it is done
}

// Do calls f unless another call does so or has done so, and returns when that is done, or
// ctx has ended meanwhile. Whoever calls f does so whatever ctx says.
func (o *Once) Do(ctx context.Context, f func()) {
	o.mu.Lock()
	done, first := o.done, o.done == nil
	if first {
		done = make(chan struct{})
		o.done = done
	}
	o.mu.Unlock()
	if first {
		defer close(done)
		f()
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
