package pooluser

import (
	"container/list"
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/selection"
)

// maxAsked bounds the elements of a pool that are remembered as selected, and
// those that are remembered as failed.
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
	user     *selection.User // made for policy, nil when known is false

	// unconfirmed is why a registrar asked later gave no answer.
	unconfirmed error

	refusal   error     // the negative answer, when known is false
	notBefore time.Time // no new request for a stale or negative entry before

	flight *flight
	ahead  *time.Timer // renews a positive answer that was used, before it is stale

	// changed is closed, and another one put in its place, when there is
	// something new to tell those who watch.
	changed  chan struct{}
	watchers int

	// asked are the elements selected and not reported since.
	asked map[param.PEID]bool
	// failed are the elements that failed of late.
	failed map[param.PEID]failure
}

// failure tells until when an element is avoided although it is listed anew, at the same
// place: at another it has been started again. The place is zero if it was not known.
type failure struct {
	until time.Time
	at    param.Transport
}

func (f failure) of(e param.PoolElement) bool {
	return f.at.Type == 0 || samePlace(f.at, e.User)
}

// samePlace compares places; the order of an element's addresses means nothing.
func samePlace(a, b param.Transport) bool {
	sorted := func(addrs []netip.Addr) []netip.Addr {
		return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	}
	return a.Type == b.Type && a.Port == b.Port &&
		(slices.Equal(a.Addrs, b.Addrs) || slices.Equal(sorted(a.Addrs), sorted(b.Addrs)))
}

// element returns what is known of the element with this identifier.
func (e *entry) element(id param.PEID) (param.PoolElement, bool) {
	i := slices.IndexFunc(e.elements, func(x param.PoolElement) bool { return x.ID == id })
	if i < 0 {
		return param.PoolElement{}, false
	}
	return e.elements[i], true
}

func newEntry(pool param.PoolHandle) *entry {
	return &entry{
		pool: pool, changed: make(chan struct{}),
		asked: map[param.PEID]bool{}, failed: map[param.PEID]failure{},
	}
}

// change wakes those who watch the pool.
func (e *entry) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *entry) answer(now time.Time, stale time.Duration) Answer {
	age := now.Sub(e.filled)
	return Answer{
		Pool: e.pool, Policy: e.policy, Elements: e.elements,
		Age: age, Stale: stale > 0 && (age >= stale || e.unconfirmed != nil), Updates: e.updates,
		Unconfirmed: e.unconfirmed,
	}
}

// fill takes in a positive answer. Elements that failed a moment ago stay marked:
// the registrar may not know yet.
func (e *entry) fill(response *asap.HandleResolutionResponse, home hunt.Link, now time.Time, cfg *Config) {
	policy := response.Policy.Type
	if policy == 0 {
		policy = param.RoundRobin // ASAP-2.2.6-03
	}
	if !e.known || e.unconfirmed != nil || policy != e.policy || !reflect.DeepEqual(e.elements, response.Elements) {
		e.change()
	}
	e.known, e.unconfirmed, e.refusal, e.notBefore = true, nil, nil, time.Time{}
	e.elements, e.filled, e.home, e.updates = response.Elements, now, home, response.AcceptUpdates
	if e.user == nil || policy != e.policy {
		e.user = selection.NewUserOf(cfg.picker(e.pool, policy), e.elements)
	} else {
		e.user.Renew(e.elements)
	}
	e.policy = policy
	for id, f := range e.failed {
		if x, listed := e.element(id); !now.Before(f.until) || listed && !f.of(x) {
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

// refuse takes in a negative answer, in place of a positive one if there is one.
func (e *entry) refuse(refusal error) {
	if e.known || e.refusal == nil {
		e.change()
	}
	e.known, e.elements, e.user = false, nil, nil
	e.refusal, e.unconfirmed = refusal, nil
}

// doubt takes in that a registrar gave no answer.
func (e *entry) doubt(why error) {
	if e.unconfirmed == nil {
		e.change()
	}
	e.unconfirmed = why
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
func (e *entry) fail(id param.PEID, until time.Time) bool {
	if !e.asked[id] {
		return false
	}
	delete(e.asked, id)
	e.avoid(id, until)
	return true
}

// avoid selects the element no more until there is a new answer and the time has
// come.
func (e *entry) avoid(id param.PEID, until time.Time) {
	if len(e.failed) >= maxAsked {
		clear(e.failed) // costs attempts at elements that just failed
	}
	x, _ := e.element(id)
	e.failed[id] = failure{until, x.User}
	if e.user != nil {
		e.user.Failed(id)
	}
}

// recover takes avoid back.
func (e *entry) recover(id param.PEID) {
	delete(e.failed, id)
	if e.user != nil {
		e.user.Recovered(id)
	}
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
