package pooluser

import "time"

// arm sees to it that the answer, which is in use, is renewed after a time.
func (r *Resolver) arm(e *entry, after time.Duration) {
	if e.ahead != nil || r.cfg.Ahead <= 0 {
		return
	}
	r.work.Add(1)
	e.ahead = time.AfterFunc(after, func() {
		defer r.work.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.stopped && r.pools[e.pool] == e && e.known && e.flight == nil {
			r.ask(e, time.Now())
		}
	})
}

// disarm takes arm back. An answer that was renewed is in use when it was used again.
func (r *Resolver) disarm(e *entry) {
	if e.ahead != nil && e.ahead.Stop() {
		r.work.Done()
	}
	e.ahead = nil
}

// lastKnown returns the answer that stands until there is a new one.
func (r *Resolver) lastKnown(e *entry, now time.Time) Answer {
	if e.unconfirmed != nil {
		r.stats.LastKnown++
	}
	return e.answer(now, r.cfg.Stale)
}

// doubt takes in that no registrar answered a request for the pool.
func (r *Resolver) doubt(e *entry, why error) {
	e.doubt(why)
	if !e.known || r.outage {
		return
	}
	r.outage = true
	r.cfg.Log.WithError(why).Warn("no answer from registrars: going on with what they said last")
	if r.cfg.OnOutage != nil {
		r.cfg.OnOutage(why)
	}
}

// answered takes in that a registrar answered.
func (r *Resolver) answered() {
	if !r.outage {
		return
	}
	r.outage = false
	r.cfg.Log.Info("registrars answer again")
	if r.cfg.OnOutage != nil {
		r.cfg.OnOutage(nil)
	}
}
