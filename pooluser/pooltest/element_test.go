package pooltest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/poolelement"
)

func TestElementsServeSessions(t *testing.T) {
	for name, sctp := range map[string]bool{"TCP": false, "SCTP": true} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T, w *World) {
				w.Registrar("r1")
				w.Element("e1", "echo", poolelement.HandlerFunc(func(ctx context.Context, s *poolelement.Session) error {
					for {
						in, err := s.Receive(ctx)
						if err != nil {
							return err
						}
						if err := s.SaveState(ctx, in.Data); err != nil {
							return err
						}
						if err := s.Send(ctx, in.Message); err != nil {
							return err
						}
					}
				}))
				user := w.User("u1")
				w.Settle()
				element, err := user.Select(t.Context(), "echo")
				if err != nil || w.Who(element.ID) != "e1" {
					t.Fatalf("selected %v, %v", element, err)
				}
				if want := map[bool]param.Type{false: param.TypeTCPTransport, true: param.TypeSCTPTransport}[sctp]; element.User.Type != want {
					t.Errorf("transport %v", element.User.Type)
				}
			}, func(cfg *Config) { cfg.SCTP = sctp })
		})
	}
}

// A user of the session framing that does nothing by itself.
func TestStreamElement(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		w.Registrar("r1")
		w.StreamElement("e1", "echo", poolelement.StreamHandlerFunc(func(_ context.Context, s *poolelement.StreamSession) error {
			_, err := io.Copy(s, s)
			return err
		}))
		user := w.User("u1")
		w.Settle()
		conn, err := user.Dial(t.Context(), "echo")
		if err != nil {
			t.Fatal(err)
		}
		c, err := framed.Client(t.Context(), conn, framed.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Send(t.Context(), transport.Message{Data: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Next(t.Context()); string(m.Data) != "hello" || err != nil {
			t.Errorf("%q, %v", m.Data, err)
		}
		w.Hang("e1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hung element answers: %v", err)
		}
		w.Kill("e1")
		if _, err := c.Next(t.Context()); !errors.Is(err, framed.ErrCut) {
			t.Errorf("after the kill: %v", err)
		}
	})
}
