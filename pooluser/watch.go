package pooluser

import (
	"context"
	"iter"
	"time"

	"rserpool/asap/param"
)

// Watch tells what is known of the pool, and what is new whenever something is: first
// as soon as there is an answer, then when its elements, their values or their order
// change, when a registrar does not confirm it (Answer.Unconfirmed) and when one does
// so again. The error is one of Resolve; the pool may be there later. Changes that
// come while the loop's body is at work are told together.
//
// As long as it runs, Watch keeps the answer fresh as Config.Ahead says, and asks for
// a pool that is unknown each Config.Negative. With Config.Subscribe changes come when
// the registrar sends them, otherwise when the answer is renewed. It ends with ctx and,
// after a last error, when the Resolver is stopped or the pool handle is no good.
func (r *Resolver) Watch(ctx context.Context, pool param.PoolHandle) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		var told <-chan struct{}
		for ctx.Err() == nil {
			v, err := r.view(pool)
			if err != nil {
				yield(Answer{Pool: pool}, err)
				return
			}
			if v.settled && v.changed != told {
				told = v.changed
				v.end()
				if !yield(v.answer, v.err) {
					return
				}
				continue
			}
			r.await(ctx, v)
			v.end()
		}
	}
}

// view is what one who watches sees of an entry.
type view struct {
	settled bool // there is an answer or an error
	answer  Answer
	err     error
	changed <-chan struct{}
	flight  <-chan struct{} // nil when nothing is on its way
	due     time.Duration   // until the next request, when nothing is on its way
	end     func()          // the entry may be evicted again
}

// view looks at the pool's entry, and asks the registrar where that is due.
func (r *Resolver) view(pool param.PoolHandle) (view, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.entry(pool)
	if err != nil {
		return view{}, err
	}
	now := time.Now()
	due := r.due(e)
	if e.flight == nil && !now.Before(due) {
		r.ask(e, now)
	}
	v := view{answer: e.answer(now, r.cfg.Stale), changed: e.changed, due: due.Sub(now)}
	switch {
	case e.known:
		v.settled = true
	case e.refusal != nil:
		v.settled, v.err = true, e.refusal
	case e.unconfirmed != nil:
		v.settled, v.err = true, e.unconfirmed
	}
	if e.flight != nil {
		v.flight = e.flight.done
	}
	e.watchers++
	v.end = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		e.watchers--
	}
	return v, nil
}

// due tells when an entry that is watched is to be renewed.
func (r *Resolver) due(e *entry) time.Time {
	if !e.known || e.unconfirmed != nil {
		return e.notBefore
	}
	stale := r.cfg.Stale
	if stale < 0 {
		stale = defaultStale
	}
	return e.filled.Add(stale - max(r.cfg.Ahead, 0))
}

// await waits until the view may be another.
func (r *Resolver) await(ctx context.Context, v view) {
	timer := time.NewTimer(v.due)
	defer timer.Stop()
	due := timer.C
	if v.flight != nil {
		due = nil
	}
	select {
	case <-v.changed:
	case <-v.flight:
	case <-due:
	case <-ctx.Done():
	case <-r.ctx.Done():
	}
}
