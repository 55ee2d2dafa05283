package registrar

import (
	"time"

	"rserpool/asap/param"
)

// subscriptions remember who wants to hear of changes of which pool, and collect
// changes for a short while so that a burst of them becomes one update (AMB-54).
// It is a pure machine; S names a subscriber.
type subscriptions[S comparable] struct {
	delay   time.Duration
	limit   int // in all
	total   int
	byPool  map[param.PoolHandle]map[S]struct{}
	pending map[param.PoolHandle]bool
	queue   []change // by time: the delay is the same for all
}

type change struct {
	handle param.PoolHandle
	at     time.Time
}

func newSubscriptions[S comparable](delay time.Duration, limit int) *subscriptions[S] {
	return &subscriptions[S]{
		delay: delay, limit: limit,
		byPool:  make(map[param.PoolHandle]map[S]struct{}),
		pending: make(map[param.PoolHandle]bool),
	}
}

// add subscribes s to a pool; false when there is no room. Subscribing twice is
// subscribing once.
func (t *subscriptions[S]) add(handle param.PoolHandle, s S) bool {
	subs := t.byPool[handle]
	if _, ok := subs[s]; ok {
		return true
	}
	if t.total >= t.limit {
		return false
	}
	if subs == nil {
		subs = make(map[S]struct{})
		t.byPool[handle] = subs
	}
	subs[s] = struct{}{}
	t.total++
	return true
}

// remove ends one subscription.
func (t *subscriptions[S]) remove(handle param.PoolHandle, s S) {
	subs := t.byPool[handle]
	if _, ok := subs[s]; !ok {
		return
	}
	delete(subs, s)
	t.total--
	if len(subs) == 0 {
		delete(t.byPool, handle)
	}
}

// changed notes that a pool changed.
func (t *subscriptions[S]) changed(handle param.PoolHandle, now time.Time) {
	if len(t.byPool[handle]) > 0 && !t.pending[handle] {
		t.pending[handle] = true
		t.queue = append(t.queue, change{handle, now.Add(t.delay)})
	}
}

// tick returns the pools whose subscribers are to be told now.
func (t *subscriptions[S]) tick(now time.Time) []param.PoolHandle {
	var due []param.PoolHandle
	for len(t.queue) > 0 && !t.queue[0].at.After(now) {
		due = append(due, t.queue[0].handle)
		delete(t.pending, t.queue[0].handle)
		t.queue = t.queue[1:]
	}
	return due
}

// next returns when tick has something to do; false: never.
func (t *subscriptions[S]) next() (time.Time, bool) {
	if len(t.queue) == 0 {
		return time.Time{}, false
	}
	return t.queue[0].at, true
}

// of returns a pool's subscribers, in no order.
func (t *subscriptions[S]) of(handle param.PoolHandle) []S {
	out := make([]S, 0, len(t.byPool[handle]))
	for s := range t.byPool[handle] {
		out = append(out, s)
	}
	return out
}
