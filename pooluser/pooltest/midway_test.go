package pooltest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"rserpool/poolelement"
	"rserpool/pooluser"
)

// The second element answers the first of the requests that are sent again, and dies
// before it has got the others: all are answered, that one too.
func TestElementDiesWhileRequestsAreSentAgain(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		const requests = 10
		w.Network().Buffer = 64 // less than one request
		w.Registrar("r1")
		served := 0
		serve := poolelement.HandlerFunc(func(ctx context.Context, s *poolelement.Session) error {
			served++
			for n := served; ; {
				in, err := s.Receive(ctx)
				if err != nil {
					return err
				}
				if n == 1 {
					continue // takes everything and answers nothing
				}
				if err := s.Send(ctx, message(fmt.Sprint(requestOf(in.Data), " done"))); err != nil {
					return err
				}
				if n == 2 {
					time.Sleep(3 * time.Millisecond) // the answer gets out
					return errHandler
				}
			}
		})
		for _, name := range trialElements {
			w.Element(name, trialPool, serve, func(cfg *poolelement.ServeConfig) { cfg.Queue = 1 })
		}
		user := w.User("u1")
		w.Settle()
		s, err := user.Open(t.Context(), trialPool, pooluser.SessionConfig{
			Timers: pooluser.Fast, Delivery: pooluser.AtLeastOnce,
			Answers: func(m pooluser.Message) uint64 { return requestOf(m.Data) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for id := uint64(1); id <= requests; id++ {
			if err := s.Send(t.Context(), pooluser.Message{Data: fmt.Appendf(nil, "%d %0100d", id, 0), Request: id}); err != nil {
				t.Fatal(err)
			}
		}
		w.Pass(time.Second)
		element, _ := s.Element()
		w.Kill(w.Who(element.ID))
		answered := map[uint64]bool{}
		for len(answered) < requests {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			m, err := s.Receive(ctx)
			cancel()
			if err != nil {
				t.Fatalf("%d requests are answered, then %v", len(answered), err)
			}
			answered[requestOf(m.Data)] = true
		}
		if served != 3 {
			t.Errorf("%d elements served, want 3", served)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
