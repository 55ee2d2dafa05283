package registrar

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// rateLimiter allows each address a rate of something with a burst, in a table
// of bounded size. It has no clock; it may be used concurrently.
type rateLimiter struct {
	mu      sync.Mutex
	rate    float64 // per second
	burst   float64
	limit   int
	buckets map[netip.Addr]*list.Element // of *bucket
	recent  *list.List                   // least recently used first
}

type bucket struct {
	addr   netip.Addr
	tokens float64
	last   time.Time
}

func newRateLimiter(rate, burst float64, limit int) *rateLimiter {
	return &rateLimiter{rate: rate, burst: burst, limit: limit,
		buckets: make(map[netip.Addr]*list.Element), recent: list.New()}
}

// set changes the limits; what was counted stays.
func (l *rateLimiter) set(rate, burst float64, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate, l.burst, l.limit = rate, burst, limit
}

// allow reports whether the address may do it once more now. When the table is
// full of addresses that are still being counted, new ones are refused.
func (l *rateLimiter) allow(addr netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.buckets[addr]
	if e == nil {
		if len(l.buckets) >= l.limit && !l.evict(now) {
			return false
		}
		e = l.recent.PushBack(&bucket{addr: addr, tokens: l.burst, last: now})
		l.buckets[addr] = e
	}
	l.recent.MoveToBack(e)
	b := e.Value.(*bucket)
	b.tokens = min(l.burst, b.tokens+l.rate*now.Sub(b.last).Seconds())
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// evict forgets the least recently used address if its bucket is full again, so
// that forgetting it changes nothing.
func (l *rateLimiter) evict(now time.Time) bool {
	e := l.recent.Front()
	if e == nil {
		return false
	}
	b := e.Value.(*bucket)
	if b.tokens+l.rate*now.Sub(b.last).Seconds() < l.burst {
		return false
	}
	l.recent.Remove(e)
	delete(l.buckets, b.addr)
	return true
}
