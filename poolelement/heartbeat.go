package poolelement

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// heartbeat follows whether a session's handler gets on. Times are counted from
// the server's start; the server looks at all sessions now and then.
//
// A handler is idle while it waits for the user, to send something or to take
// something. While it is busy, calls of the session's methods show that it is alive.
type heartbeat struct {
	since  atomic.Int64 // busy without a sign since then; 0 = idle
	worked atomic.Int64 // when the handler last finished with a message, or gave a sign
	given  atomic.Bool  // it was given something to work at
	taking atomic.Int32 // calls that wait for something from the user: a stream may have several readers
	giving atomic.Int32 // calls that wait for the user to take something

	paused  atomic.Bool
	mu      sync.Mutex
	ctx     context.Context // of the goroutine that receives; ends to pause it
	cancel  context.CancelCauseFunc
	proceed chan struct{} // closed to let it go on
}

// errHandlerBusy interrupts receiving while a handler hangs.
var errHandlerBusy = errors.New("handler is busy for too long")

func (c *Control) now() int64 { return int64(time.Since(c.server.born)) + 1 }

// busy is called when the handler gets something to do.
func (c *Control) busy() {
	c.beat.given.Store(true)
	c.beat.since.Store(c.now())
	c.beat.taking.Add(-1)
}

// idle is called when the handler wants more to do. That it wants something at all
// shows nothing: a handler may well hang at the first message of each session.
func (c *Control) idle() {
	c.beat.taking.Add(1)
	if c.beat.given.Load() {
		c.touch()
	}
	c.beat.since.Store(0)
}

// give is called before the handler waits for the user to take something; the
// result is to be called after it.
func (c *Control) give() func() {
	c.beat.giving.Add(1)
	return func() {
		c.touch()
		c.beat.giving.Add(-1)
	}
}

// touch is called when the handler shows that it is alive.
func (c *Control) touch() {
	since := c.beat.since.Load()
	if since == 0 {
		return
	}
	now := c.now()
	c.beat.worked.Store(now)
	c.beat.since.CompareAndSwap(since, now) // unless the handler has become idle
	if c.beat.paused.Load() {
		c.beat.resume()
	}
}

// overdue tells whether the handler has given no sign for too long.
func (h *heartbeat) overdue(now, limit int64) bool {
	since := h.since.Load()
	return limit > 0 && since != 0 && now-since > limit && h.taking.Load() == 0 && h.giving.Load() == 0
}

// wait returns the context to receive with, once that is allowed.
func (h *heartbeat) wait(session context.Context) (context.Context, error) {
	for {
		h.mu.Lock()
		if h.ctx == nil {
			h.ctx, h.cancel = context.WithCancelCause(session)
		}
		ctx, allowed := h.ctx, h.proceed
		h.mu.Unlock()
		if allowed == nil {
			return ctx, nil
		}
		select {
		case <-allowed:
		case <-session.Done():
			return nil, context.Cause(session)
		}
	}
}

// pause stops receiving, and with it the answers to the user's heartbeats. It
// reports whether that is new.
func (h *heartbeat) pause() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.proceed != nil {
		return false
	}
	h.proceed = make(chan struct{})
	if h.cancel != nil {
		h.cancel(errHandlerBusy)
	}
	h.ctx, h.cancel = nil, nil
	h.paused.Store(true)
	return true
}

func (h *heartbeat) resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.proceed != nil {
		close(h.proceed)
		h.proceed = nil
		h.paused.Store(false)
	}
}
