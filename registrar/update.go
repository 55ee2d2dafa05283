package registrar

import (
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

// updates bring what subscribers know of their pools up to date (AMB-54). Each
// has at most one message under way: who reads slowly, or has to wait because many
// are to be told at once, hears of several changes together. It belongs to the
// owner loop.
type updates struct {
	o    *owner
	due  map[subscription]struct{}
	next time.Time // to look at those that are due again
}

type subscription struct {
	c      *conn
	handle param.PoolHandle
}

// updateBatch is how many updates the owner loop sends before it looks at other
// work.
const updateBatch = 32

func newUpdates(o *owner) *updates {
	return &updates{o: o, due: make(map[subscription]struct{})}
}

// changed makes the update of a pool due for all its subscribers.
func (u *updates) changed(handle param.PoolHandle, now time.Time) {
	for _, c := range u.o.subscriptions.of(handle) {
		u.due[subscription{c, handle}] = struct{}{}
	}
	u.next = now
}

// tick sends what is due.
func (u *updates) tick(now time.Time) {
	if len(u.due) == 0 || now.Before(u.next) {
		return
	}
	u.next = now.Add(u.o.r.timers().UpdateDelay)
	if u.o.r.unsure.Load() {
		return // that a pool is gone may not be said now
	}
	sent := 0
	for s := range u.due {
		if _, ok := s.c.subscriptions[s.handle]; !ok {
			delete(u.due, s)
			continue
		}
		if s.c.queue.busy() {
			continue
		}
		if sent == updateBatch {
			u.next = now // go on with the rest at once
			return
		}
		delete(u.due, s)
		u.send(s.c, s.handle)
		sent++
	}
}

// send tells a subscriber what a pool looks like now. When it is gone a negative
// answer ends the subscription.
func (u *updates) send(c *conn, handle param.PoolHandle) {
	q := asap.HandleResolution{SendUpdates: true, Handle: handle, Items: c.subscriptions[handle]}
	answer, found := u.o.r.appendResolution(nil, &q, true, new(handlespace.Bookmark), &u.o.r.loopScratch)
	if !found {
		u.o.unsubscribe(c, handle)
	}
	c.sendEncoded(answer)
	u.o.r.metrics.updates.Inc()
}

// wake returns when tick has something to do; false: never.
func (u *updates) wake() (time.Time, bool) { return u.next, len(u.due) > 0 }
