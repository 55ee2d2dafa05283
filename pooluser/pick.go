package pooluser

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

// picker makes what selects elements of a pool with the policy.
func (cfg *Config) picker(pool param.PoolHandle, policy param.PolicyType) selection.Picker {
	if cfg.Pick != nil {
		if pick := cfg.Pick(pool, policy); pick != nil {
			return pick(cfg.Rand)
		}
	}
	return selection.NewPicker(policy, cfg.Rand)
}

type keyOfContext struct{}

// WithKey returns a context for calls of Select and Dial that are about a key, such as
// a customer or a file name. Policies that have use for one (selection.RendezvousHashing)
// give the same element to the same key; others ignore it.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

// request is what is known of what is selected for.
func request(ctx context.Context) selection.Request {
	return selection.Request{Key: KeyOf(ctx), Now: time.Now()}
}

// KeyOf returns the key of WithKey, "" if there is none.
func KeyOf(ctx context.Context) string {
	key, _ := ctx.Value(keyOfContext{}).(string)
	return key
}

// NewUser returns what selects from the answer's elements as Select does, by the
// pool's policy or that of Config.Pick, for callers that keep connections to several
// elements and select among these. It has a random source and a memory of its own, and
// is not safe for concurrent use.
func (r *Resolver) NewUser(answer Answer) *selection.User {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg := r.cfg
	cfg.Rand = rand.New(rand.NewPCG(cfg.Rand.Uint64(), cfg.Rand.Uint64()))
	return selection.NewUserOf(cfg.picker(answer.Pool, answer.Policy), answer.Elements)
}

// Avoid makes Select and Dial leave the element out for a time, and after it until
// there is a new answer, as long as the pool has others. The registrar is not told;
// see Report.
func (r *Resolver) Avoid(pool param.PoolHandle, id param.PEID, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil {
		e.avoid(id, time.Now().Add(d))
	}
}

// current returns what is known now of an element of a business card that came then, and
// false if it is better left out: it failed, and no registrar has listed it anew since; or
// it is not listed any more.
func (r *Resolver) current(pool param.PoolHandle, element param.PoolElement, card time.Time) (param.PoolElement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pools[pool]
	if e == nil {
		return element, true
	}
	if e.known && e.filled.After(card) {
		listed, ok := e.element(element.ID)
		if !ok {
			return element, false
		}
		element = listed
	}
	f, failed := e.failed[element.ID]
	return element, !failed || !f.of(element)
}

// moved tells whether the resolver has learned since then that the element is at another
// place: it was started again, and what is known of the old one says nothing about it.
func (r *Resolver) moved(pool param.PoolHandle, element param.PoolElement, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pools[pool]
	if e == nil || !e.known || !e.filled.After(since) {
		return false
	}
	listed, ok := e.element(element.ID)
	return ok && !samePlace(listed.User, element.User)
}

// Recovered takes back what made Select and Dial leave the element out.
func (r *Resolver) Recovered(pool param.PoolHandle, id param.PEID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil {
		e.recover(id)
	}
}

// Measure tells that a request goes to an element of the pool. done is to be called
// once: with nil when it is answered, with an error when it failed, with one that wraps
// context.Canceled when nobody waits for the answer any more. Policies that go by
// response times (selection.PickPeakEWMA) learn from the time between.
func (r *Resolver) Measure(pool param.PoolHandle, id param.PEID) (done func(error)) {
	sent := time.Now()
	r.inform(pool, func(u *selection.User) { u.Sent(id, sent) })
	return func(err error) {
		now := time.Now()
		r.inform(pool, func(u *selection.User) {
			if err == nil {
				u.Answered(id, now.Sub(sent), now)
			} else {
				u.Unanswered(id, now.Sub(sent), !errors.Is(err, context.Canceled), now)
			}
		})
	}
}

// meter is Measure for the requests of a session, nil if the pool's policy has no use
// for it.
func (r *Resolver) meter(pool param.PoolHandle, id param.PEID) func() (done func(error)) {
	var measures bool
	r.inform(pool, func(u *selection.User) { measures = u.Measures() })
	if !measures {
		return nil
	}
	return func() func(error) { return r.Measure(pool, id) }
}

// inform tells the pool's policy something, if the pool is in the cache.
func (r *Resolver) inform(pool param.PoolHandle, f func(*selection.User)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil && e.user != nil {
		f(e.user)
	}
}

// Measure tells that a request goes over the connection; see Resolver.Measure.
func (c *Conn) Measure() (done func(error)) { return c.resolver.Measure(c.pool, c.Element.ID) }

// Measure tells that a request goes over the connection; see Resolver.Measure.
func (c *MessageConn) Measure() (done func(error)) { return c.resolver.Measure(c.pool, c.Element.ID) }
