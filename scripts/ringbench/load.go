package main

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
)

// slots is how many own messages can be on their way with their times known.
const slots = 1 << 18

// load is the application of a member: it sends, and measures what comes. Handle
// is called by the group's goroutine, the rest by that of the caller.
type load struct {
	*job
	group  *ringnet.Group
	bodies *bodies       // nil: bodies go with the token
	whole  chan struct{} // closed when the group has all members and knows the same

	// Times since base, of own messages by number; 0: not measured.
	base  time.Time
	times [slots]atomic.Int64

	begin, end atomic.Int64 // of the measurement, since base
	delivered  chan struct{}
	onTheirWay atomic.Int64
	sent, full atomic.Int64

	ordered atomic.Int64

	// For Handle.
	isWhole  bool
	count    int // members of the view
	stable   uint64
	stableTo *hdrhistogram.Histogram
	// For Handle, or whoever holds the bodies.
	agreedTo *hdrhistogram.Histogram
}

func newLoad(j *job) *load {
	histogram := func() *hdrhistogram.Histogram {
		return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
	}
	return &load{
		job: j, whole: make(chan struct{}), base: time.Now(), delivered: make(chan struct{}, 1),
		agreedTo: histogram(), stableTo: histogram(),
	}
}

func (l *load) now() int64 { return int64(time.Since(l.base)) }

// Handle implements ringnet.Handler.
func (l *load) Handle(events []ring.Event) {
	now := l.now()
	measured := now >= l.begin.Load() && now < l.end.Load()
	for _, e := range events {
		switch e := e.(type) {
		case ring.Installed:
			l.count = len(e.View.Members)
			if self := l.group.Self().Member; e.Exchange && e.View.ID.Coordinator == self {
				l.group.End(e.View.ID)
			}
			l.isWholeIf(l.count >= l.members && !e.Exchange)
		case ring.EndStable:
			l.isWholeIf(l.count >= l.members)
		case ring.Delivered:
			if l.bodies != nil {
				l.bodies.handle(e.Entries)
			} else {
				l.deliver(e.Entries)
			}
		case ring.Stable:
			for l.bodies == nil && l.stable < e.Proposal {
				l.stable++
				slot := &l.times[l.stable%slots]
				if at := slot.Load(); at != 0 && measured && at >= l.begin.Load() {
					_ = l.stableTo.RecordValue(now - at)
				}
			}
		}
	}
}

func (l *load) isWholeIf(whole bool) {
	if whole && !l.isWhole {
		l.isWhole = true
		close(l.whole)
	}
}

func (l *load) deliver(entries []ring.Entry) {
	self := l.group.Self().Member
	for len(entries) > 0 {
		first, n := entries[0], 1
		for n < len(entries) && entries[n].From == first.From && entries[n].Proposal == first.Proposal+uint64(n) {
			n++
		}
		l.took(first.From == self, first.Proposal, uint64(n))
		entries = entries[n:]
	}
}

// took counts messages of one sender, delivered in order.
func (l *load) took(own bool, first, n uint64) {
	now := l.now()
	measured := now >= l.begin.Load() && now < l.end.Load()
	if measured {
		l.ordered.Add(int64(n))
	}
	if !own {
		return
	}
	for number := first; measured && number < first+n; number++ {
		if at := l.times[number%slots].Load(); at != 0 && at >= l.begin.Load() {
			_ = l.agreedTo.RecordValue(now - at) // more than a minute counts as none
		}
	}
	l.onTheirWay.Add(-int64(n))
	poke(l.delivered)
}

// measure sends and counts.
func (l *load) measure(ctx context.Context) (result, error) {
	begin := l.now() + int64(l.warmup)
	end := begin + int64(l.duration)
	l.begin.Store(begin)
	l.end.Store(end)
	ctx, cancel := context.WithTimeout(ctx, l.warmup+l.duration)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- l.sendUntil(ctx) }()
	if err := sleepUntil(ctx, l.base.Add(time.Duration(begin))); err != nil {
		return result{}, err
	}
	before := cpu()
	<-ctx.Done()
	after := cpu()
	if err := <-failed; err != nil {
		return result{}, err
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return result{}, context.Cause(ctx)
	}
	r := result{
		Member: l.id, Seconds: l.duration.Seconds(), Ordered: l.ordered.Load(),
		Sent: l.sent.Load(), Full: l.full.Load(), CPU: (after - before).Seconds(),
	}
	// Handle has the histograms.
	_, err := l.group.Status(context.Background())
	r.Agreed, r.Stable = latencyOf(l.agreedTo), latencyOf(l.stableTo)
	return r, err
}

// sampled is how many messages there are for each that is timed, at full speed.
const sampled = 16

func (l *load) sendUntil(ctx context.Context) error {
	switch l.send {
	case sendMax:
		return l.sendMax(ctx)
	case sendRate:
		return l.sendRate(ctx)
	case sendOne:
		return l.sendOne(ctx)
	}
	return nil
}

// propose hands one message in. The message is new each time, as those of a real
// application are.
// It counts from at, 0: it is not timed.
func (l *load) propose(number uint64, at int64) error {
	l.times[number%slots].Store(at)
	l.onTheirWay.Add(1)
	var err error
	if l.bodies != nil {
		err = l.bodies.put(make([]byte, l.payload))
	} else {
		_, err = l.group.Propose(make([]byte, l.payload))
	}
	if err != nil {
		l.onTheirWay.Add(-1)
		return err
	}
	l.sent.Add(1)
	return nil
}

func (l *load) sendMax(ctx context.Context) error {
	for number := uint64(1); ctx.Err() == nil; {
		if l.outstanding > 0 && l.onTheirWay.Load() >= int64(l.outstanding) {
			select {
			case <-l.delivered:
			case <-ctx.Done():
			}
			continue
		}
		at := int64(0)
		if number%sampled == 0 {
			at = l.now()
		}
		err := l.propose(number, at)
		switch {
		case err == nil:
			number++
		case errors.Is(err, ring.ErrFull):
			l.full.Add(1)
			room := l.group.Room()
			if l.bodies != nil {
				room = l.bodies.room
			}
			select {
			case <-room:
			case <-ctx.Done():
			}
		default:
			return err
		}
	}
	return nil
}

// sendRate sends what is due. Each message counts from when it was due, not from
// when it went out late.
func (l *load) sendRate(ctx context.Context) error {
	timer, err := newAlarm()
	if err != nil {
		return err
	}
	defer timer.close()
	start := time.Now()
	dueAt := func(number uint64) time.Time {
		return start.Add(time.Duration(float64(number) / l.rate * float64(time.Second)))
	}
	for number := uint64(1); ctx.Err() == nil; {
		err := error(nil)
		for err == nil && !time.Now().Before(dueAt(number)) {
			if err = l.propose(number, int64(dueAt(number).Sub(l.base))); err == nil {
				number++
			}
		}
		wait := time.Until(dueAt(number))
		switch {
		case errors.Is(err, ring.ErrFull):
			l.full.Add(1)
			wait = time.Millisecond // and it is offered again
		case err != nil:
			return err
		}
		if wait = min(wait, 100*time.Millisecond); wait > 0 {
			if err := timer.sleep(wait); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *load) sendOne(ctx context.Context) error {
	for number := uint64(1); ctx.Err() == nil; number++ {
		if err := l.propose(number, l.now()); err != nil {
			return err
		}
		for l.onTheirWay.Load() > 0 && ctx.Err() == nil {
			select {
			case <-l.delivered:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	select {
	case <-time.After(time.Until(at)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cpu returns how much CPU time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
