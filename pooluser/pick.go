package pooluser

import (
	"context"
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
	key, _ := ctx.Value(keyOfContext{}).(string)
	return selection.Request{Key: key, Now: time.Now()}
}

// Measure tells that a request goes to an element of the pool. done is to be called
// when it is answered or given up, once: policies that go by response times
// (selection.PickPeakEWMA) learn from the time between.
func (r *Resolver) Measure(pool param.PoolHandle, id param.PEID) (done func()) {
	sent := time.Now()
	r.inform(pool, func(u *selection.User) { u.Sent(id, sent) })
	return func() {
		now := time.Now()
		r.inform(pool, func(u *selection.User) { u.Answered(id, now.Sub(sent), now) })
	}
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
func (c *Conn) Measure() (done func()) { return c.resolver.Measure(c.pool, c.Element.ID) }

// Measure tells that a request goes over the connection; see Resolver.Measure.
func (c *MessageConn) Measure() (done func()) { return c.resolver.Measure(c.pool, c.Element.ID) }
