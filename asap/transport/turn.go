package transport

import "context"

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
