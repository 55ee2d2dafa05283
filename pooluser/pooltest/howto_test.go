package pooltest_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/pooluser"
	"rserpool/pooluser/pooltest"
)

// count is a service: it answers each message with how many there were.
func count(ctx context.Context, s *poolelement.Session) error {
	n := 0
	for {
		in, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		switch in.Kind {
		case poolelement.Draining:
			return poolelement.ErrHandOver
		case poolelement.Resumed: // the user comes from another element
			if n, err = strconv.Atoi(string(in.State)); err != nil {
				return err
			}
		case poolelement.Data:
			n++
			answer := []byte(strconv.Itoa(n))
			if err := s.SaveState(ctx, answer); err != nil {
				return err
			}
			if err := s.Send(ctx, transport.Message{Data: answer}); err != nil {
				return err
			}
		}
	}
}

// next asks for the next number, as the application does.
func next(ctx context.Context, s *pooluser.Session) (int, error) {
	if err := s.Send(ctx, pooluser.Message{Data: []byte("next")}); err != nil {
		return 0, err
	}
	m, err := s.Receive(ctx)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(m.Data))
}

func TestCountingGoesOn(t *testing.T) {
	pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
		w.Registrar("r1")
		w.Element("e1", "counter", poolelement.HandlerFunc(count))
		w.Element("e2", "counter", poolelement.HandlerFunc(count))
		user := w.User("u1")
		w.Settle()

		s, err := user.Open(t.Context(), "counter", pooluser.SessionConfig{Timers: pooluser.Fast, Delivery: pooluser.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		for want := 1; want <= 10; want++ {
			if want == 5 {
				element, _ := s.Element()
				w.Hang(w.Who(element.ID))
			}
			start := time.Now()
			got, err := next(t.Context(), s)
			if got != want || err != nil {
				t.Fatalf("got %d, %v; want %d", got, err, want)
			}
			if took := time.Since(start); took > 300*time.Millisecond {
				t.Errorf("number %d took %v", want, took)
			}
		}
	})
}

func TestCountingWithManyFaults(t *testing.T) {
	pooltest.Seeds(t, 20, func(t *testing.T, w *pooltest.World) {
		w.Registrars("r1", "r2", "r3")
		for _, name := range []string{"e1", "e2", "e3"} {
			w.Element(name, "counter", poolelement.HandlerFunc(count))
		}
		user := w.User("u1")
		w.Settle()
		s, err := user.Open(t.Context(), "counter", pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		go w.Play(pooltest.Troubles{
			Names: []string{"e1", "e2", "e3", "r1", "r2", "r3"}, Number: 10,
			Within: 20 * time.Second, Shortest: 100 * time.Millisecond, Longest: 3 * time.Second,
		}.Draw(w.Rand()))
		for start, last := time.Now(), 0; time.Since(start) < 25*time.Second; w.Pass(50 * time.Millisecond) {
			got, err := next(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if got <= last {
				t.Fatalf("%d comes after %d", got, last)
			}
			last = got
		}
	})
}
