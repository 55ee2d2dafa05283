package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/pooluser"
)

// lane is a pool of two elements and a user that asks it all the time.
type lane struct {
	bench    *failover
	pool     string
	timers   pooluser.Timers
	elements [2]*element
	resolver *pooluser.Resolver
	session  *pooluser.Session

	ctx     context.Context // its processes and its user live as long
	end     context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	at       param.PEID // the element that answers
	left     param.PEID // the one before
	last     time.Time  // of the latest answer
	longest  time.Duration
	tried    []pooluser.Attempt // by the last failover
	failed   int                // failovers
	answered int                // since the last one
	err      error
}

func (f *failover) newLane(ctx context.Context, n int, timers pooluser.Timers) (*lane, error) {
	l := &lane{bench: f, pool: fmt.Sprintf("%s-lane%d", f.network, n), timers: timers}
	l.ctx, l.end = context.WithCancel(ctx)
	for i := range l.elements {
		l.elements[i] = &element{lane: l, place: f.places[2*n+i]}
		if err := l.elements[i].start(); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	var err error
	if l.resolver, err = newResolver(f.registrar); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if err := l.whole(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	l.session, err = l.resolver.Open(ctx, param.PoolHandle(l.pool), pooluser.SessionConfig{
		Timers: timers, Delivery: pooluser.AtLeastOnce, Notifications: true,
		SCTPHeartbeats: f.network == transport.SCTP,
	})
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	at, _ := l.session.Element()
	l.at, l.last = at.ID, time.Now()
	l.running.Go(func() {
		if err := l.ask(l.ctx); l.ctx.Err() == nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
		}
	})
	return l, nil
}

// close ends the user and the elements.
func (l *lane) close() error {
	l.end()
	l.running.Wait()
	var errs []error
	if l.session != nil {
		errs = append(errs, l.session.Close())
	}
	if l.resolver != nil {
		l.resolver.Stop()
	}
	for _, e := range l.elements {
		if e == nil || e.process == nil {
			continue
		}
		<-e.process.Done // its context has ended
		if e.isCut {
			errs = append(errs, e.link(context.Background(), "up"))
		}
	}
	return errors.Join(errs...)
}

// ask makes one request after the other, until ctx ends.
func (l *lane) ask(ctx context.Context) error {
	tick := time.NewTicker(l.bench.pace)
	defer tick.Stop()
	request := make([]byte, 64)
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(request, n)
		if err := l.session.Send(ctx, pooluser.Message{Data: request}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		for answered := false; !answered; {
			m, err := l.session.Receive(ctx)
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			answered = l.take(m, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take notes what came and tells whether it is the answer to request n.
func (l *lane) take(m pooluser.Message, n uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Notification != nil {
		if m.Notification.Kind == pooluser.FailedOver {
			l.left, l.at, l.tried = l.at, m.Notification.Element.ID, m.Notification.Tried
			l.failed++
			l.answered = 0
		}
		return false
	}
	if len(m.Data) < 8 || binary.BigEndian.Uint64(m.Data) != n {
		return false // an answer that came twice
	}
	now := time.Now()
	l.longest = max(l.longest, now.Sub(l.last))
	l.last = now
	l.answered++
	return true
}

// whole waits until the registrar knows just the two elements.
func (l *lane) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("waited in vain for the elements of "+l.pool))
	defer cancel()
	for {
		if knows(ctx, l.resolver, param.PoolHandle(l.pool), param.PEID(l.elements[0].id), param.PEID(l.elements[1].id)) {
			return nil
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// calm is how many answers show that a failover is over.
const calm = 20

// once lets the element of the session fail and returns for how long there was no
// answer. Then there are two sound elements again.
func (l *lane) once(ctx context.Context, kind fault) (time.Duration, error) {
	for {
		waited, ok, err := l.try(ctx, kind)
		if ok || err != nil {
			return waited, err
		}
	}
}

// try is once; ok is false when the session had left the element just before, for want
// of processor time.
func (l *lane) try(ctx context.Context, kind fault) (waited time.Duration, ok bool, err error) {
	// Any moment between two heartbeats is as likely as any other. A failover right
	// after another would wait for Pace.
	pause := 50*time.Millisecond + l.timers.Pace + rand.N(min(l.timers.Heartbeat, time.Second))
	if err := sleep(ctx, pause); err != nil {
		return 0, false, err
	}
	l.mu.Lock()
	victim, failed := l.elements[0], l.failed
	if param.PEID(victim.id) != l.at {
		victim = l.elements[1]
	}
	at := l.at
	l.longest = 0
	l.mu.Unlock()
	if param.PEID(victim.id) != at {
		return 0, false, fmt.Errorf("the session is at element %v, none of the lane's", at)
	}
	if err := kind.do(victim, ctx); err != nil {
		return 0, false, err
	}
	for limit := time.Now().Add(2*(l.timers.Silence+l.timers.Connect) + 5*time.Second); !ok && time.Now().Before(limit); {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, false, err
		}
		l.mu.Lock()
		ok = l.failed == failed+1 && l.left == at && l.answered >= calm
		waited, err = l.longest, l.err
		l.mu.Unlock()
		if err != nil {
			return 0, false, err
		}
	}
	l.explain(kind, waited)
	if err := victim.restart(); err != nil {
		return 0, false, err
	}
	return waited, ok, l.whole(ctx)
}

// explain says on standard error whom a failover tried that took longer than one
// attempt to connect. With --json only rows are printed.
func (l *lane) explain(kind fault, waited time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.bench.json && len(l.tried) > 1 && waited > l.timers.Silence+l.timers.Connect {
		fmt.Fprintf(os.Stderr, "%s: %v:\n", kind.name, waited.Round(time.Millisecond))
		for _, a := range l.tried {
			fmt.Fprintf(os.Stderr, "  %v: %v\n", a.Element.ID, a.Err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
