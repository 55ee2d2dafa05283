package pooltest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/pooluser"
	"rserpool/pooluser/pooltest"
)

// poisoned is a handler that dies of one request, at once or after a time, and answers all
// others.
func poisoned(after time.Duration) poolelement.HandlerFunc {
	return func(ctx context.Context, s *poolelement.Session) error {
		for {
			in, err := s.Receive(ctx)
			switch {
			case err != nil:
				return err
			case in.Kind != poolelement.Data:
			case string(in.Data) == "die":
				time.Sleep(after)
				return errors.New("poison")
			default:
				if err := s.Send(ctx, transport.Message{Data: in.Data}); err != nil {
					return err
				}
			}
		}
	}
}

// A request that its elements die of is sent to so many as Tries says, with the cards
// that they begin with, and however long they take to die.
func TestRequestsThatKillEndTheSession(t *testing.T) {
	for name, after := range map[string]time.Duration{"AtOnce": 0, "Later": 10 * pooluser.Fast.Silence, "AfterTotal": 2 * pooluser.Fast.Total} {
		t.Run(name, func(t *testing.T) {
			pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
				w.Registrar("r1")
				for _, n := range []string{"e1", "e2", "e3"} {
					w.Element(n, "p", poisoned(after))
				}
				user := w.User("u")
				w.Settle()
				s, err := user.Open(t.Context(), "p", pooluser.SessionConfig{Timers: pooluser.Fast, Delivery: pooluser.AtLeastOnce})
				if err != nil {
					t.Fatal(err)
				}
				send := func(text string) {
					if err := s.Send(t.Context(), pooluser.Message{Data: []byte(text)}); err != nil {
						t.Fatal(err)
					}
				}
				send("fine")
				if m, err := s.Receive(t.Context()); string(m.Data) != "fine" {
					t.Errorf("received %q, %v", m.Data, err)
				}
				send("die")
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				_, err = s.Receive(ctx)
				var failure *pooluser.DialError
				if !errors.As(err, &failure) || ctx.Err() != nil {
					t.Fatalf("the session ends with %v", err)
				}
				if n := len(failure.Attempts); n < 2 || n > pooluser.Fast.Tries+1 {
					t.Errorf("the error names %d attempts: %v", n, err)
				}
				if n := user.Stats().Reports; n > uint64(pooluser.Fast.Tries+1) {
					t.Errorf("%d reports", n)
				}
			})
		})
	}
}
