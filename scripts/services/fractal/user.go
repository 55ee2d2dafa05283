package fractal

import (
	"context"
	"errors"
	"fmt"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// User lets a pool compute pictures.
type User struct {
	// OnData, if set, is called for each part of the picture that has come, with the
	// canvas as it is then and the element that computes. An error ends the picture.
	OnData func(ctx context.Context, c *Canvas, at param.PEID) error
	// OnFailover, if set, is called when the first part has come from an element
	// that goes on for another.
	OnFailover func(Change)
}

// Change is what a failover has cost.
type Change struct {
	From, To param.PEID
	// Had is how many points had come, Resumed where the new element went on, so
	// that Had - Resumed points were computed again.
	Had, Resumed uint64
	Cause        error
}

// Compute returns the picture. Of session, timers and the like count; the rest is the
// protocol's.
func (u User) Compute(ctx context.Context, r *pooluser.Resolver, pool param.PoolHandle, p Parameters, session pooluser.SessionConfig) (*Canvas, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	request := pooluser.Message{Data: p.Append(nil), OneWay: true} // the cookie says it the next time
	session.PPID, session.Notifications = PPID, true
	session.OnFailover = func(ctx context.Context, f *pooluser.Failover) error {
		if f.Cookie != nil {
			return nil
		}
		return f.Send(ctx, request)
	}
	s, err := r.Open(ctx, pool, session)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Send(ctx, request); err != nil && !errors.Is(err, pooluser.ErrUncertain) { // if so, the hook sends it
		return nil, err
	}
	c := NewCanvas(p)
	at, _ := s.Element()
	change := Change{To: at.ID}
	changed := false
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return c, fmt.Errorf("after %d of %d points: %w", c.Done(), p.Points(), err)
		}
		if n := m.Notification; n != nil {
			switch n.Kind {
			case pooluser.FailoverBegun:
				change = Change{From: n.Element.ID, Had: c.Done(), Cause: n.Err}
			case pooluser.FailedOver:
				change.To, changed = n.Element.ID, true
			}
			continue
		}
		d, err := ParseData(m.Data, p)
		if err != nil {
			return c, err
		}
		if d.End {
			if c.Missing() > 0 {
				return c, fmt.Errorf("%d points are missing at the end", c.Missing())
			}
			return c, nil
		}
		if changed {
			changed, change.Resumed = false, d.Start
			if u.OnFailover != nil {
				u.OnFailover(change)
			}
		}
		c.Put(d)
		if u.OnData != nil {
			if err := u.OnData(ctx, c, change.To); err != nil {
				return c, err
			}
		}
	}
}
