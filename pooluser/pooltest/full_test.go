package pooltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"rserpool/poolelement"
	"rserpool/pooluser"
)

// An application with one goroutine sends much before it receives, and its hook asks the
// new element something.
func TestFailoverWithFullInbox(t *testing.T) {
	for _, delivery := range []pooluser.Delivery{pooluser.AtMostOnce, pooluser.AtLeastOnce} {
		Run(t, func(t *testing.T, w *World) {
			w.Network().Buffer = 500
			w.Registrar("r1")
			for _, name := range []string{"e1", "e2"} {
				w.Element(name, "echo", poolelement.HandlerFunc(func(ctx context.Context, s *poolelement.Session) error {
					for {
						in, err := s.Receive(ctx)
						if err != nil {
							return err
						}
						if err := s.Send(ctx, in.Message); err != nil {
							return err
						}
					}
				}), func(cfg *poolelement.ServeConfig) { cfg.Queue = 200 })
			}
			user := w.User("u1")
			w.Settle()
			s, err := user.Open(t.Context(), "echo", pooluser.SessionConfig{
				Timers: pooluser.Fast, Delivery: delivery, Inbox: 2,
				Answers: func(m pooluser.Message) uint64 { return requestOf(m.Data) },
				OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
					if err := f.Send(ctx, pooluser.Message{Data: []byte("1000 ready?")}); err != nil {
						return err
					}
					for {
						if m, err := f.Receive(ctx); err != nil || requestOf(m.Data) == 1000 {
							return err
						}
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			element, _ := s.Element()
			for id := uint64(1); id <= 10; id++ {
				if id == 9 {
					w.Pass(time.Second)
					w.Kill(w.Who(element.ID))
					w.Pass(time.Second)
				}
				start := time.Now()
				err := s.Send(t.Context(), pooluser.Message{Data: fmt.Appendf(nil, "%d %050d", id, 0), Request: id})
				if err != nil && !errors.Is(err, pooluser.ErrUncertain) {
					t.Fatalf("request %d: %v", id, err)
				}
				if took := time.Since(start); took > 300*time.Millisecond {
					t.Errorf("request %d waits for %v", id, took)
				}
			}
			for delivery == pooluser.AtLeastOnce {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				m, err := s.Receive(ctx)
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				if requestOf(m.Data) == 10 {
					break
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
