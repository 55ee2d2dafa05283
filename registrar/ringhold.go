package registrar

import (
	"time"

	"rserpool/asap"
	"rserpool/registrar/replica"
)

// While members exchange what they know, a pool or an element that this registrar
// does not know may be known to another one: that it does not exist is not said
// before the end of the exchange.

// Bounds of what is held back; what is beyond gets no answer, and its sender asks
// another registrar.
const (
	heldAnswers = 4096
	heldFor     = 5 * time.Second
)

// withheld are resolutions that found nothing, the oldest first.
type withheld struct{ queries []heldQuery }

type heldQuery struct {
	c     *conn
	q     asap.HandleResolution
	until time.Time
}

// next returns when tick has something to do; false: never.
func (w *withheld) next() (time.Time, bool) {
	if len(w.queries) == 0 {
		return time.Time{}, false
	}
	return w.queries[0].until, true
}

// withhold keeps a resolution until its answer is known for sure.
func (o *owner) withhold(c *conn, q asap.HandleResolution, now time.Time) {
	w := &o.withheld
	if len(w.queries) >= heldAnswers {
		o.r.exceeded("held_answers")
		c.done()
		return
	}
	w.queries = append(w.queries, heldQuery{c, q, now.Add(heldFor)})
}

// letGo drops resolutions that have waited too long.
func (o *owner) letGo(now time.Time) {
	w := &o.withheld
	for len(w.queries) > 0 && !now.Before(w.queries[0].until) {
		o.r.exceeded("held_answers")
		w.queries[0].c.done()
		w.queries = w.queries[1:]
	}
}

// readiness follows what users may be told.
func (o *owner) readiness(e replica.Readiness, now time.Time) {
	o.r.unsure.Store(!e.Negative)
	if e.Negative {
		queries := o.withheld.queries
		o.withheld.queries = nil
		for _, h := range queries {
			o.resolve(h.c, h.q, now)
		}
	}
	if e.Serve && !o.synced {
		o.synced = true
		o.peers.synced(now)
		o.mayOpen()
	}
}
