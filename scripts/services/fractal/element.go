package fractal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"rserpool/asap/transport"
	"rserpool/poolelement"
)

// Element computes pictures. It is a poolelement.Handler; its ServeConfig needs
// CheckState as OnResume, and for rsplib's users cookie.Raw. A zero field means its
// default.
type Element struct {
	// CookieEvery is after how many messages with points the next cookie is sent.
	// Fewer cost messages, more lose work at a failover: see Lost. Default 10.
	CookieEvery int
	// Rate slows the computation down to so many points per second. 0: no limit.
	Rate int
	// OnPicture, if set, is called when the computation of a picture begins or goes
	// on, with where. It must be safe for concurrent use.
	OnPicture func(session uint64, from State)
}

const defaultCookieEvery = 10

// Lost returns how many points have to be computed again at most when an element with
// this CookieEvery dies: those of the messages since the last cookie, and those that
// were not sent yet.
func Lost(cookieEvery int) uint64 {
	return uint64(cmp.Or(cookieEvery, defaultCookieEvery)+1) * MaxPoints
}

// ServeSession computes one picture after the other, until the user ends the session.
func (e Element) ServeSession(ctx context.Context, s *poolelement.Session) error {
	for {
		in, err := s.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var state State
		switch in.Kind {
		case poolelement.Resumed:
			state, err = ParseCookie(in.State)
		case poolelement.Data:
			state.Parameters, err = ParseParameters(in.Data)
		case poolelement.Draining:
			err = poolelement.ErrHandOver
		default:
			continue
		}
		if err != nil {
			return err
		}
		if e.OnPicture != nil {
			e.OnPicture(s.Number(), state)
		}
		if err := e.compute(ctx, s, state); err != nil {
			return err
		}
	}
}

// compute sends the rest of the picture, with a cookie first, as rsplib's element does,
// and then every few messages.
func (e Element) compute(ctx context.Context, s *poolelement.Session, state State) error {
	p := state.Parameters
	if err := s.SaveState(ctx, state.Cookie()); err != nil {
		return err
	}
	var out []byte
	send := func(d Data) error {
		out = d.Append(out[:0], p.Width)
		return s.Send(ctx, transport.Message{Data: out, PPID: PPID})
	}
	begin, first := time.Now(), state.Done
	for messages := 1; state.Done < p.Points(); messages++ {
		d := Data{Start: state.Done}
		for len(d.Points) < MaxPoints && state.Done < p.Points() {
			d.Points = append(d.Points, p.Point(state.Done))
			state.Done++
		}
		if err := e.pace(ctx, begin, state.Done-first); err != nil {
			return err
		}
		if err := send(d); err != nil {
			return err
		}
		if messages%cmp.Or(e.CookieEvery, defaultCookieEvery) == 0 {
			if err := s.SaveState(ctx, state.Cookie()); err != nil {
				return err
			}
		}
		select {
		case <-s.Draining():
			if err := s.SaveState(ctx, state.Cookie()); err != nil {
				return err
			}
			return poolelement.ErrHandOver
		default:
		}
	}
	if err := send(Data{End: true}); err != nil {
		return fmt.Errorf("end of the picture: %w", err)
	}
	return s.SaveState(ctx, state.Cookie())
}

// pace waits until so many points may have been computed since begin.
func (e Element) pace(ctx context.Context, begin time.Time, points uint64) error {
	if e.Rate == 0 {
		return nil
	}
	wait := time.NewTimer(time.Until(begin.Add(time.Duration(points) * time.Second / time.Duration(e.Rate))))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CheckState refuses cookies of other services. It is for ServeConfig.OnResume.
func CheckState(_ context.Context, _ *poolelement.Control, state []byte) error {
	_, err := ParseCookie(state)
	return err
}
