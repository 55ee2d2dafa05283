package admin

import (
	"context"
	"sync"
	"time"

	"rserpool/registrar/handlespace"
)

// feedLength is how many changes a Feed remembers for readers that fall behind or
// come back.
const feedLength = 4096

// Change is one change of the handlespace in a Feed.
type Change struct {
	Seq   uint64
	Time  time.Time
	Event handlespace.Event
	shown *Event // instead of Event, of what is no change of the handlespace
}

// Feed remembers the latest changes of the handlespace, for any number of readers
// that each go at their own speed: nobody waits for a slow one, who misses some
// and is told so. Its methods may be called concurrently.
type Feed struct {
	mu      sync.Mutex
	ring    []Change
	last    uint64 // sequence number of the newest change
	first   uint64 // that of the oldest one remembered
	waiting bool
	more    chan struct{} // closed when something is published and somebody waits
	readers int
	limit   int
}

// NewFeed returns an empty feed for at most so many readers. Sequence numbers
// begin with the time, so that one from before a restart is never taken for a new
// one.
func NewFeed(readers int) *Feed {
	last := uint64(max(0, time.Now().UnixMicro()))
	return &Feed{ring: make([]Change, feedLength), last: last, first: last + 1, more: make(chan struct{}), limit: readers}
}

// Publish adds a change.
func (f *Feed) Publish(event handlespace.Event, now time.Time) {
	f.publish(Change{Time: now, Event: event})
}

// PublishView adds a change of the ring's view.
func (f *Feed) PublishView(c RingChange) {
	f.publish(Change{Time: c.Time, shown: &Event{Type: EventView, Cause: c.Cause, View: &c}})
}

// PublishMerge adds a merge of the ring.
func (f *Feed) PublishMerge(m RingMerge) {
	f.publish(Change{Time: m.Time, shown: &Event{Type: EventMerged, Merge: &m}})
}

func (f *Feed) publish(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	c.Seq = f.last
	f.ring[f.last%feedLength] = c
	f.first = max(f.first, f.last-min(f.last, feedLength-1))
	if f.waiting {
		f.waiting = false
		close(f.more)
		f.more = make(chan struct{})
	}
}

// Join counts a reader in; false when there are too many. Leave counts it out.
func (f *Feed) Join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers >= f.limit {
		return false
	}
	f.readers++
	return true
}

// Leave counts a reader out.
func (f *Feed) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
}

// Last returns the sequence number of the newest change.
func (f *Feed) Last() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Next waits for the changes behind after, and appends some to dst. It returns
// false when not all changes behind after are remembered: the reader must begin
// anew at Last.
func (f *Feed) Next(ctx context.Context, dst []Change, after uint64) ([]Change, bool) {
	for {
		f.mu.Lock()
		if after > f.last || after+1 < f.first {
			f.mu.Unlock()
			return dst, false
		}
		if after < f.last {
			for seq := after + 1; seq <= f.last && len(dst) < feedPage; seq++ {
				dst = append(dst, f.ring[seq%feedLength])
			}
			f.mu.Unlock()
			return dst, true
		}
		f.waiting = true
		more := f.more
		f.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return dst, true
		}
	}
}

// feedPage is how many changes Next returns at most.
const feedPage = 256
