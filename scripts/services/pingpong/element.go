package pingpong

import (
	"context"
	"errors"
	"io"

	"rserpool/asap/transport"
	"rserpool/poolelement"
)

// Element answers pings. It is a poolelement.Handler; its ServeConfig needs CheckState
// as OnResume, and for rsplib's users cookie.Raw.
type Element struct {
	// OnPong, if set, is called for each pong sent. It must be safe for concurrent
	// use.
	OnPong func(session uint64, p Pong)
}

// ServeSession answers pings, each with a cookie behind, until the user ends the
// session.
func (e Element) ServeSession(ctx context.Context, s *poolelement.Session) error {
	state := State{Next: 1}
	var out []byte
	for {
		in, err := s.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch in.Kind {
		case poolelement.Resumed:
			if state, err = ParseCookie(in.State); err != nil {
				return err
			}
		case poolelement.Draining:
			return poolelement.ErrHandOver
		case poolelement.Data:
			ping, err := ParsePing(in.Data)
			if err != nil {
				return err
			}
			pong := Pong{Number: ping.Number, Reply: state.Next, Data: ping.Data}
			out = pong.Append(out[:0])
			if err := s.Send(ctx, transport.Message{Data: out, PPID: PPID}); err != nil {
				return err
			}
			state.Next++
			if err := s.SaveState(ctx, state.Cookie()); err != nil {
				return err
			}
			if e.OnPong != nil {
				e.OnPong(s.Number(), pong)
			}
		}
	}
}

// CheckState refuses cookies of other services. It is for ServeConfig.OnResume.
func CheckState(_ context.Context, _ *poolelement.Control, state []byte) error {
	_, err := ParseCookie(state)
	return err
}
