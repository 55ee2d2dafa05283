package pingpong

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// User sends pings to a pool. A zero field means its default.
type User struct {
	// Interval is the time from one ping to the next; a ping does not wait for the
	// pong of the one before. Default 500 ms.
	Interval time.Duration
	// OnPong, if set, is called for each pong, with the element that it came from.
	OnPong func(p Pong, from param.PEID)
	// OnFailover, if set, is called when the session has gone on to another element.
	OnFailover func(to param.PEID)
}

// Run keeps a session with the pool until ctx ends, and returns why it ended. A ping
// whose pong dies with an element is sent again to the next. Of session, timers and the
// like count; delivery and identifiers are those of the protocol.
func (u User) Run(ctx context.Context, r *pooluser.Resolver, pool param.PoolHandle, session pooluser.SessionConfig) error {
	session.PPID, session.Notifications = PPID, true
	session.Delivery = pooluser.AtLeastOnce
	session.Answers = func(m pooluser.Message) uint64 {
		pong, err := ParsePong(m.Data)
		if err != nil {
			return 0
		}
		return pong.Number
	}
	s, err := r.Open(ctx, pool, session)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { cancel(u.send(ctx, s)) })
	err = u.receive(ctx, s)
	cancel(err)
	return err
}

func (u User) send(ctx context.Context, s *pooluser.Session) error {
	tick := time.NewTicker(cmp.Or(u.Interval, 500*time.Millisecond))
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		ping := Ping{Number: n, Data: fmt.Appendf(nil, "ping %d", n)}
		if err := s.Send(ctx, pooluser.Message{Data: ping.Append(nil), Request: n}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (u User) receive(ctx context.Context, s *pooluser.Session) error {
	at, _ := s.Element()
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if n := m.Notification; n != nil {
			if n.Kind == pooluser.FailedOver {
				at = n.Element
				if u.OnFailover != nil {
					u.OnFailover(at.ID)
				}
			}
			continue
		}
		pong, err := ParsePong(m.Data)
		if err != nil {
			return err
		}
		if u.OnPong != nil {
			u.OnPong(pong, at.ID)
		}
	}
}
