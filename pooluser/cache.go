package pooluser

import (
	"container/list"
	"context"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/selection"
)

// maxAsked bounds the elements of a pool that are remembered as selected.
const maxAsked = 4096

// entry is what is known of one pool; the resolver's lock guards it.
type entry struct {
	pool  param.PoolHandle
	place *list.Element

	known    bool // there is a positive answer:
	policy   param.PolicyType
	elements []param.PoolElement
	filled   time.Time
	home     hunt.Link       // where it came from
	updates  bool            // its sender will send changes
	doubted  bool            // a registrar asked later did not confirm it
	user     *selection.User // made for policy, nil when known is false

	refusal   error     // the negative answer, when known is false
	notBefore time.Time // no new request for a stale or negative entry before

	flight *flight
	// asked are the elements selected and not reported since.
	asked map[param.PEID]bool
	// failed says when elements failed, for those of late.
	failed map[param.PEID]time.Time
}

func newEntry(pool param.PoolHandle) *entry {
	return &entry{pool: pool, asked: map[param.PEID]bool{}, failed: map[param.PEID]time.Time{}}
}

func (e *entry) answer(now time.Time, stale time.Duration) Answer {
	age := now.Sub(e.filled)
	return Answer{
		Pool: e.pool, Policy: e.policy, Elements: e.elements,
		Age: age, Stale: stale > 0 && (age >= stale || e.doubted), Updates: e.updates,
	}
}

// fill takes in a positive answer. Elements that failed within the retry pause stay
// marked: the registrar may not know yet.
func (e *entry) fill(response *asap.HandleResolutionResponse, home hunt.Link, now time.Time, cfg *Config) {
	e.known, e.doubted, e.refusal, e.notBefore = true, false, nil, time.Time{}
	policy := response.Policy.Type
	if policy == 0 {
		policy = param.RoundRobin // ASAP-2.2.6-03
	}
	e.elements, e.filled, e.home, e.updates = response.Elements, now, home, response.AcceptUpdates
	if e.user == nil || policy != e.policy {
		e.user = selection.NewUserOf(cfg.picker(e.pool, policy), e.elements)
	} else {
		e.user.Renew(e.elements)
	}
	e.policy = policy
	for id, at := range e.failed {
		if now.Sub(at) >= cfg.RetryPause {
			delete(e.failed, id)
			continue
		}
		e.user.Failed(id)
	}
}

// restart begins selecting anew, with no element marked as failed.
func (e *entry) restart() {
	clear(e.failed)
	e.user.Renew(e.elements)
}

func (e *entry) forget() {
	e.known, e.elements, e.user = false, nil, nil
}

func (e *entry) next(request selection.Request) (param.PoolElement, bool) {
	element, ok := e.user.NextFor(request)
	if ok {
		e.note(element.ID)
	}
	return element, ok
}

// note remembers an element as asked for.
func (e *entry) note(id param.PEID) {
	if len(e.asked) >= maxAsked {
		clear(e.asked) // costs reports of sessions that fail later
	}
	e.asked[id] = true
}

// fail marks the element as failed and tells whether that is to be reported.
func (e *entry) fail(id param.PEID, now time.Time) bool {
	if !e.asked[id] {
		return false
	}
	delete(e.asked, id)
	if len(e.failed) >= maxAsked {
		clear(e.failed) // costs attempts at elements that just failed
	}
	e.failed[id] = now
	if e.user != nil {
		e.user.Failed(id)
	}
	return true
}

// flight is one request on its way; done is closed when the rest is set.
type flight struct {
	pool    param.PoolHandle
	started time.Time
	done    chan struct{}
	answer  Answer
	err     error
	forgot  bool // an answer from before does not stand either
}

func (f *flight) wait(ctx context.Context) (Answer, error) {
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}
