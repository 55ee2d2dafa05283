package pooltest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rserpool/poolelement"
	"rserpool/pooluser"
)

// Nothing is wrong but the pace of the application at either end, and the room between
// them: sessions stay where they are, and all is answered.
func TestSlowApplicationsKeepTheirElement(t *testing.T) {
	for _, sctp := range []bool{false, true} {
		for _, delivery := range []pooluser.Delivery{pooluser.AtMostOnce, pooluser.AtLeastOnce} {
			t.Run(fmt.Sprintf("sctp %v delivery %v", sctp, delivery), func(t *testing.T) {
				Seeds(t, 10, func(t *testing.T, w *World) { steady(t, w, delivery) }, func(cfg *Config) { cfg.SCTP = sctp })
			})
		}
	}
}

func steady(t *testing.T, w *World, delivery pooluser.Delivery) {
	r := w.Rand()
	if r.IntN(2) == 0 {
		w.Network().Buffer = 200
	}
	elementIsSlow, userIsSlow := r.IntN(2) == 0, r.IntN(2) == 0
	nap := func(slow bool) {
		if slow {
			time.Sleep(300 * time.Millisecond)
		}
	}
	w.Registrar("r1")
	serve := poolelement.HandlerFunc(func(ctx context.Context, s *poolelement.Session) error {
		for n := uint64(1); ; n++ {
			in, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			if n%10 == 0 {
				nap(elementIsSlow)
			}
			if err := s.SaveState(ctx, in.Data[:3]); err != nil {
				return err
			}
			if err := s.Send(ctx, in.Message); err != nil {
				return err
			}
		}
	})
	w.Element("e1", "echo", serve)
	w.Element("e2", "echo", serve)
	user := w.User("u1")
	w.Settle()
	s, err := user.Open(t.Context(), "echo", pooluser.SessionConfig{
		Timers: pooluser.Fast, Delivery: delivery, Notifications: true, SCTPHeartbeats: true, Inbox: 1 + r.IntN(3),
		Answers: func(m pooluser.Message) uint64 { return requestOf(m.Data) },
	})
	if err != nil {
		t.Fatal(err)
	}
	const requests = 100
	var work sync.WaitGroup
	work.Go(func() {
		for id := uint64(1); id <= requests; id++ {
			data := fmt.Sprintf("%d %s", id, strings.Repeat("x", r.IntN(100)))
			if err := s.Send(t.Context(), pooluser.Message{Data: []byte(data), Request: id}); err != nil {
				t.Errorf("request %d: %v", id, err)
				return
			}
		}
	})
	for next := uint64(1); next <= requests; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m, err := s.Receive(ctx)
		cancel()
		if err != nil {
			t.Fatalf("answer %d: %v", next, err)
		}
		if m.Notification != nil {
			if m.Notification.Kind == pooluser.FailoverBegun {
				t.Fatalf("answer %d: failover from %s: %v", next, w.Who(m.Notification.Element.ID), m.Notification.Err)
			}
			continue
		}
		if id := requestOf(m.Data); id != next {
			t.Fatalf("answer %d comes in place of %d", id, next)
		}
		if next++; next%10 == 0 {
			nap(userIsSlow)
		}
	}
	work.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
