package pooluser

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
)

// Errors of resolutions. They come wrapped; so do hunt.ErrNoRegistrar,
// hunt.ErrTimeout and huntnet.ErrStopped. Test with errors.Is.
var (
	// ErrUnknownPool: the registrar says that there is no such pool.
	ErrUnknownPool = errors.New("unknown pool")
	// ErrHandle: the pool handle can't be sent.
	ErrHandle = errors.New("bad pool handle")
	// ErrTooManyPools: every entry of the cache waits for an answer.
	ErrTooManyPools = errors.New("too many pools at a time")
)

// RefusedError is a negative answer from a registrar. For cause 0x9 it wraps
// ErrUnknownPool.
type RefusedError struct {
	Pool   param.PoolHandle
	Causes param.OperationError
}

// Error names the pool and the causes.
func (e *RefusedError) Error() string {
	if errors.Is(e, ErrUnknownPool) {
		return fmt.Sprintf("%v %q", ErrUnknownPool, e.Pool)
	}
	return fmt.Sprintf("resolution of pool %q refused: %v", e.Pool, e.Causes)
}

// Unwrap returns ErrUnknownPool where that is the cause.
func (e *RefusedError) Unwrap() error {
	if e.Causes.Has(param.CauseUnknownPoolHandle) {
		return ErrUnknownPool
	}
	return nil
}

// Answer is what is known of a pool.
type Answer struct {
	Pool param.PoolHandle
	// Policy is the pool's policy.
	Policy param.PolicyType
	// Elements are in the registrar's order. The slice is shared: don't
	// change it.
	Elements []param.PoolElement
	// Age is the time since the registrar's answer.
	Age time.Duration
	// Stale tells that the answer is older than Config.Stale: a new one is
	// on its way, or no registrar gives one.
	Stale bool
	// Unconfirmed is why there is no newer answer although one was asked for:
	// hunt.ErrNoRegistrar, hunt.ErrTimeout or a RefusedError, wrapped. This is
	// the last known one then. nil while registrars answer.
	Unconfirmed error
	// Updates tells that the registrar sends changes by itself.
	Updates bool
}

// Stats counts since the start.
type Stats struct {
	Requests  uint64 // handle resolutions sent for, re-sends not counted
	Hits      uint64 // resolutions answered from the cache at once
	LastKnown uint64 // resolutions answered by an unconfirmed answer
	Updates   uint64 // answers that came unasked
	Reports   uint64 // ENDPOINT_UNREACHABLE sent
	Evicted   uint64 // pools dropped from a full cache
}

// Resolver resolves pool handles and connects to pools. Its methods may be
// called concurrently. Besides the goroutines of its huntnet.Client it has one
// per pool that waits for a registrar's answer, and a timer per pool that is in use
// (Config.Ahead); Stop ends and awaits all.
type Resolver struct {
	cfg    Config
	client Registrar
	own    *huntnet.Client // client, unless that is Config.Via
	ctx    context.Context
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	mu      sync.Mutex // guards all below, and cfg.Rand
	stopped bool
	pools   map[param.PoolHandle]*entry
	unused  *list.List // of *entry, the one used last at the front
	outage  bool       // last known answers are in use for want of a registrar
	stats   Stats
}

// New returns a resolver that is not running yet.
func New(cfg Config) (*Resolver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pool user: %w", err)
	}
	r := &Resolver{cfg: cfg.withDefaults(), pools: map[param.PoolHandle]*entry{}, unused: list.New()}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	if r.client = cfg.Via; r.client != nil {
		return r, nil
	}
	client, err := huntnet.New(huntnet.Config{
		Registrars: r.cfg.Registrars, Announcers: r.cfg.Announcers, Networks: r.cfg.Networks,
		Options: r.cfg.Options, Hunt: r.cfg.Hunt, Log: r.cfg.Log,
		Handler: r.unasked, OnHome: r.homeChanged,
	})
	if err != nil {
		return nil, fmt.Errorf("pool user: %w", err)
	}
	r.own, r.client = client, client
	return r, nil
}

// Start begins the search for a registrar and returns at once.
func (r *Resolver) Start() {
	if r.own != nil {
		r.own.Start()
	}
}

// Stop ends everything but the connections made by Dial; calls that wait return
// huntnet.ErrStopped.
func (r *Resolver) Stop() {
	r.mu.Lock()
	r.stopped = true
	for _, e := range r.pools {
		r.disarm(e)
	}
	r.mu.Unlock()
	if r.own != nil {
		r.own.Stop()
	}
	r.cancel(huntnet.ErrStopped)
	r.work.Wait()
}

// Home returns the registrar in use, and false while there is none.
func (r *Resolver) Home() (huntnet.Peer, bool) { return r.client.Home() }

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Resolve returns what is known of the pool: from the cache where it has an
// answer, else from the registrar. A stale answer is returned as it is and
// renewed beside it; while no registrar can be reached the last answer goes on
// being used, and says so (Answer.Unconfirmed). Callers that wait for the same pool
// share one request.
//
// Errors: RefusedError, also wrapping ErrUnknownPool; hunt.ErrNoRegistrar;
// hunt.ErrTimeout; ErrHandle; ErrTooManyPools; huntnet.ErrStopped; ctx's cause.
func (r *Resolver) Resolve(ctx context.Context, pool param.PoolHandle) (Answer, error) {
	r.mu.Lock()
	e, err := r.entry(pool)
	if err != nil {
		r.mu.Unlock()
		return Answer{}, err
	}
	now := time.Now()
	if r.cfg.Stale > 0 {
		switch age := now.Sub(e.filled); {
		case e.known && age < r.cfg.Stale && e.unconfirmed == nil:
			r.stats.Hits++
			r.arm(e, r.cfg.Stale-r.cfg.Ahead-age)
			defer r.mu.Unlock()
			return e.answer(now, r.cfg.Stale), nil
		case e.known:
			f := e.flight
			if f == nil && !now.Before(e.notBefore) {
				f = r.ask(e, now)
			}
			answer := r.lastKnown(e, now)
			r.mu.Unlock()
			return r.renewed(ctx, f, answer)
		case e.refusal != nil && now.Before(e.notBefore):
			defer r.mu.Unlock()
			return Answer{}, e.refusal
		}
	}
	f := e.flight
	if f == nil {
		f = r.ask(e, now)
	}
	if e.known && e.unconfirmed != nil && !r.connected() {
		defer r.mu.Unlock()
		return r.lastKnown(e, now), nil
	}
	r.mu.Unlock()
	answer, err := r.wait(ctx, f)
	var refused *RefusedError
	if err == nil || ctx.Err() != nil || f.forgot || errors.As(err, &refused) {
		return answer, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return Answer{}, err
	}
	return r.lastKnown(e, time.Now()), nil
}

// connected reports whether there is a registrar.
func (r *Resolver) connected() bool {
	_, connected := r.client.Home()
	return connected
}

// wait waits for the answer to f. When ctx ends it tells whether for want of a
// registrar.
func (r *Resolver) wait(ctx context.Context, f *flight) (Answer, error) {
	answer, err := f.wait(ctx)
	if err != nil && ctx.Err() != nil && !r.connected() {
		err = fmt.Errorf("resolve pool %q: %w: %w", f.pool, hunt.ErrNoRegistrar, err)
		if r.own != nil {
			if why := r.own.Unreached(); why != nil {
				err = fmt.Errorf("%w; %w", err, why)
			}
		}
		return Answer{}, err
	}
	return answer, err
}

// renewed waits for the answer to f where the stale one is too old to be used at
// once; f is nil where the registrar was asked in vain just now.
func (r *Resolver) renewed(ctx context.Context, f *flight, stale Answer) (Answer, error) {
	if f == nil || stale.Age < 2*r.cfg.Stale || !r.connected() {
		return stale, nil
	}
	wait, cancel := context.WithDeadline(ctx, f.started.Add(r.cfg.StaleWait))
	defer cancel()
	select {
	case <-f.done:
	case <-wait.Done():
		return stale, nil
	}
	if f.err == nil || f.forgot {
		return f.answer, f.err
	}
	return stale, nil
}

// Renew asks the registrar for the pool, whatever the cache says, and returns
// the new answer: the cache-populate call of RFC 5352, section 6.3.
func (r *Resolver) Renew(ctx context.Context, pool param.PoolHandle) (Answer, error) {
	r.mu.Lock()
	e, err := r.entry(pool)
	if err != nil {
		r.mu.Unlock()
		return Answer{}, err
	}
	f := e.flight
	if f == nil {
		f = r.ask(e, time.Now())
	}
	r.mu.Unlock()
	return r.wait(ctx, f)
}

// Purge forgets the pool: the cache-purge call of RFC 5352, section 6.4.
func (r *Resolver) Purge(pool param.PoolHandle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil {
		r.drop(e)
	}
}

// entry returns the pool's entry, a new one where there is none.
func (r *Resolver) entry(pool param.PoolHandle) (*entry, error) {
	if r.stopped {
		return nil, huntnet.ErrStopped
	}
	if e := r.pools[pool]; e != nil {
		r.unused.MoveToFront(e.place)
		return e, nil
	}
	switch {
	case pool == "":
		return nil, fmt.Errorf("%w: it is empty", ErrHandle)
	case r.cfg.RSPLib && len(pool) > param.RsplibMaxHandle:
		return nil, fmt.Errorf("%w: %d octets, with rsplib at most %d", ErrHandle, len(pool), param.RsplibMaxHandle)
	}
	if len(r.pools) >= r.cfg.MaxPools && !r.evict() {
		return nil, fmt.Errorf("%w: %d", ErrTooManyPools, len(r.pools))
	}
	e := newEntry(pool)
	e.place = r.unused.PushFront(e)
	r.pools[pool] = e
	return e, nil
}

// evict drops the entry unused for longest that waits for nothing and that nobody
// watches.
func (r *Resolver) evict() bool {
	for place := r.unused.Back(); place != nil; place = place.Prev() {
		if e := place.Value.(*entry); e.flight == nil && e.watchers == 0 {
			r.drop(e)
			r.stats.Evicted++
			return true
		}
	}
	return false
}

func (r *Resolver) drop(e *entry) {
	delete(r.pools, e.pool)
	r.unused.Remove(e.place)
	r.disarm(e)
	e.change()
}

// ask sends a handle resolution and settles the entry when the answer is there.
func (r *Resolver) ask(e *entry, now time.Time) *flight {
	f := &flight{pool: e.pool, started: now, done: make(chan struct{})}
	e.flight = f
	r.stats.Requests++
	if e.known && !r.connected() {
		r.doubt(e, fmt.Errorf("resolve pool %q: %w", e.pool, hunt.ErrNoRegistrar))
	}
	request := &asap.HandleResolution{Handle: e.pool, SendUpdates: r.cfg.Subscribe}
	if r.cfg.RSPLib && r.cfg.Stale < 0 {
		request.Items = 1 // as rsplib's users: the registrar alone selects
	}
	r.work.Go(func() {
		reply, err := r.client.Do(r.ctx, request)
		r.mu.Lock()
		defer r.mu.Unlock()
		e.flight = nil
		f.answer, f.err = r.settle(e, reply, err, time.Now())
		f.forgot = !e.known
		close(f.done)
	})
	return f
}

// settle puts the outcome of a request into the entry.
func (r *Resolver) settle(e *entry, reply asap.Message, err error, now time.Time) (Answer, error) {
	response, ok := reply.(*asap.HandleResolutionResponse)
	switch refused, isError := reply.(*asap.Error); {
	case err != nil && r.stopped:
		return Answer{}, err
	case err != nil:
		e.notBefore = now.Add(r.cfg.Negative)
		r.doubt(e, err)
		return Answer{}, err
	case isError:
		return Answer{}, r.refused(e, refused.Causes, now)
	case !ok:
		return Answer{}, fmt.Errorf("resolution of pool %q answered by %T", e.pool, reply)
	case response.Error != nil:
		return Answer{}, r.refused(e, response.Error, now)
	case len(response.Elements) == 0:
		return Answer{}, r.refused(e, param.OperationError{{Code: param.CauseUnknownPoolHandle}}, now)
	}
	r.fill(e, response, now)
	return e.answer(now, r.cfg.Stale), nil
}

// fill replaces what the entry knows.
func (r *Resolver) fill(e *entry, response *asap.HandleResolutionResponse, now time.Time) {
	r.answered()
	r.disarm(e)
	home, _ := r.client.Home()
	e.fill(response, home.Link, now, &r.cfg)
}

// refused takes in a negative answer.
func (r *Resolver) refused(e *entry, causes param.OperationError, now time.Time) error {
	r.answered()
	refusal := &RefusedError{Pool: e.pool, Causes: causes}
	e.notBefore = now.Add(r.cfg.Negative)
	e.updates = false
	home, _ := r.client.Home()
	newHome := home.Link != e.home && now.Sub(home.Since) < r.cfg.Grace
	if e.known && (newHome || !errors.Is(refusal, ErrUnknownPool)) {
		e.doubt(refusal)
		return refusal // the last answer stands
	}
	r.disarm(e)
	e.refuse(refusal)
	return refusal
}

// unasked takes in what a registrar sends by itself: updates, and second answers
// to requests that were sent again, which serve as updates (AMB-11).
func (r *Resolver) unasked(in huntnet.Inbound) {
	response, ok := in.Message.(*asap.HandleResolutionResponse)
	if !ok {
		return // keep-alives are for elements (AMB-70)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pools[response.Handle]
	if e == nil {
		return
	}
	r.stats.Updates++
	// The outcome is in the entry; nobody waits for it.
	_, _ = r.settle(e, response, nil, time.Now())
}

// homeChanged subscribes again at a new home (ASAP-2.2.5-03).
func (r *Resolver) homeChanged(e huntnet.HomeEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !e.Found || r.stopped || !r.cfg.Subscribe {
		return
	}
	for _, e := range r.pools {
		if e.known && e.flight == nil {
			r.ask(e, time.Now())
		}
	}
}

// Report tells the registrar that an element of the pool could not be reached,
// with ENDPOINT_UNREACHABLE, and avoids it until there is a new answer. It does
// so once for each time that the element was selected (Select, Dial), so once
// per failure, and never for one that was not (RFC 5352, section 3.5). It
// reports whether a report was made.
func (r *Resolver) Report(ctx context.Context, pool param.PoolHandle, id param.PEID) (bool, error) {
	r.mu.Lock()
	e := r.pools[pool]
	if e == nil || !e.fail(id, time.Now().Add(r.cfg.RetryPause)) {
		r.mu.Unlock()
		return false, nil
	}
	r.stats.Reports++
	r.mu.Unlock()
	if err := r.client.Send(ctx, &asap.EndpointUnreachable{Handle: pool, ID: id}); err != nil {
		return false, fmt.Errorf("report element %v of pool %q: %w", id, pool, err)
	}
	return true, nil
}

// Select resolves the pool and selects one of its elements by the pool's policy, or
// by that of Config.Pick. ctx may carry a key for it (WithKey).
// When all have failed it asks the registrar again, and where that brings no
// others it begins anew with them, after a pause (Config.RetryPause). Errors are
// those of Resolve.
func (r *Resolver) Select(ctx context.Context, pool param.PoolHandle) (param.PoolElement, error) {
	if _, err := r.Resolve(ctx, pool); err != nil {
		return param.PoolElement{}, err
	}
	if element, ok := r.next(ctx, pool); ok {
		return element, nil
	}
	if err := r.replace(ctx, pool); err != nil {
		return param.PoolElement{}, err
	}
	if element, ok := r.next(ctx, pool); ok {
		return element, nil
	}
	if err := r.pause(ctx); err != nil {
		return param.PoolElement{}, err
	}
	r.restart(pool)
	if element, ok := r.next(ctx, pool); ok {
		return element, nil
	}
	return param.PoolElement{}, &RefusedError{Pool: pool, Causes: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}
}

// replace gets a new answer for a pool whose elements have all failed. Where none
// comes soon the old one stays.
func (r *Resolver) replace(ctx context.Context, pool param.PoolHandle) error {
	if !r.connected() && r.knows(pool) {
		return nil
	}
	soon, cancel := context.WithTimeout(ctx, r.cfg.StaleWait)
	defer cancel()
	_, err := r.Renew(soon, pool)
	if err == nil || ctx.Err() == nil && r.knows(pool) {
		return nil
	}
	if soon.Err() != nil && ctx.Err() == nil {
		_, err = r.Renew(ctx, pool) // there is no old one
	}
	return err
}

// next selects from the entry.
func (r *Resolver) next(ctx context.Context, pool param.PoolHandle) (param.PoolElement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pools[pool]
	if e == nil || !e.known {
		return param.PoolElement{}, false
	}
	return e.next(request(ctx))
}

// note remembers an element as asked for.
func (r *Resolver) note(pool param.PoolHandle, id param.PEID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil {
		e.note(id)
	}
}

// knows reports whether there is an answer for the pool.
func (r *Resolver) knows(pool param.PoolHandle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pools[pool]
	return e != nil && e.known
}

// restart takes back the marks of failure of the pool's elements.
func (r *Resolver) restart(pool param.PoolHandle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil && e.known {
		e.restart()
	}
}

// pause waits before elements that have failed are tried again.
func (r *Resolver) pause(ctx context.Context) error {
	r.mu.Lock()
	d := r.cfg.RetryPause/2 + time.Duration(r.cfg.Rand.Int64N(int64(r.cfg.RetryPause/2)+1))
	r.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
