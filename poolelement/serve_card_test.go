package poolelement

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// element is another element of the pool.
func element(id param.PEID) param.PoolElement {
	return param.PoolElement{
		ID: id, Life: 300, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: 7000, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(id)})}},
	}
}

// ids returns the identifiers on a card.
func ids(card *asap.BusinessCard) (out []param.PEID) {
	for _, e := range card.Elements {
		out = append(out, e.ID)
	}
	return out
}

func TestASAP_3_9_01_CardWhenCommunicationBegins(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		a := w.startA()
		a.oblige()
		own := element(9)
		a.know(element(1), own, element(2))
		s := w.serve(network, func(c *ServeConfig) { c.Element.ID = own.ID }, echo)
		first := map[param.PEID]bool{}
		for range 2 {
			u := w.dial(network)
			u.send("hello")
			card := expectASAP[*asap.BusinessCard](u)
			if card.Handle != pool || len(card.Elements) != 2 || card.Elements[0].ID == own.ID || card.Elements[1].ID == own.ID {
				t.Errorf("card for %q with %v", card.Handle, ids(card))
			}
			first[card.Elements[0].ID] = true
			u.expect("hello")
		}
		if len(first) != 2 {
			t.Error("all users would fail over to the same element")
		}
		if got := s.server.Stats().CardsSent; got != 2 {
			t.Errorf("%d cards counted", got)
		}
	})
}

func TestCardsKeepTheOrderOfOtherPolicies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.startA()
		a.oblige()
		one, two := element(1), element(2)
		one.Policy.Type, two.Policy.Type = param.Priority, param.Priority
		a.policy = param.Policy{Type: param.Priority}
		a.know(one, two)
		w.serve(transport.TCP, nil, echo)
		for range 3 {
			if got := ids(expectASAP[*asap.BusinessCard](w.dial(transport.TCP))); got[0] != 1 || got[1] != 2 {
				t.Errorf("card with %v", got)
			}
		}
	})
}

func TestCardsFollowThePool(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startA().oblige()
		w.serve(transport.TCP, nil, echo)
		u := w.dial(transport.TCP) // alone in the pool: no card
		u.send("hello")
		u.expect("hello")
		w.a.know(element(1))
		time.Sleep(cardAge + time.Second)
		w.dial(transport.TCP) // makes the server ask again
		synctest.Wait()
		if got := ids(expectASAP[*asap.BusinessCard](w.dial(transport.TCP))); len(got) != 1 || got[0] != 1 {
			t.Errorf("card with %v", got)
		}
	})
}

func TestASAP_3_9_04_FreshCardAtAnyTime(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		a := w.startA()
		a.oblige()
		a.know(element(1))
		w.serve(network, nil, func(ctx context.Context, s *Session) error {
			for {
				if _, err := s.Receive(ctx); err != nil {
					return nil
				}
				if err := s.HandOver(ctx, element(3), element(2)); err != nil {
					return err
				}
				if err := s.HandOver(ctx); err != nil {
					return err
				}
			}
		})
		u := w.dial(network)
		expectASAP[*asap.BusinessCard](u)
		u.send("go on elsewhere")
		card := expectASAP[*asap.BusinessCard](u)
		if got := ids(card); card.Handle != pool || len(got) != 2 || got[0] != 3 || got[1] != 2 {
			t.Errorf("card for %q with %v", card.Handle, got)
		}
		if got := ids(expectASAP[*asap.BusinessCard](u)); len(got) != 1 || got[0] != 1 {
			t.Errorf("the pool's others are %v", got)
		}
	})
}

func TestASAP_3_9_03_NoCardWithoutControlChannel(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.startA()
				a.oblige()
				a.know(element(1))
				handed := make(chan error, 1)
				s := w.serveStreams(network, nil, func(ctx context.Context, s *StreamSession) error {
					handed <- s.HandOver(ctx)
					_, err := io.Copy(s, s)
					return err
				})
				stream := w.dialStream(network)
				stream.Write([]byte("hello"))
				buf := make([]byte, 100)
				n, err := stream.Read(buf)
				if err != nil || string(buf[:n]) != "hello" {
					t.Errorf("first came %q, %v", buf[:n], err)
				}
				if err := <-handed; err == nil {
					t.Error("HandOver worked")
				}
				if got := s.server.Stats().CardsSent; got != 0 {
					t.Errorf("%d cards counted", got)
				}
			})
		})
	}
}

func TestNoCards(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.startA()
		a.oblige()
		a.know(element(1))
		w.serve(transport.TCP, func(c *ServeConfig) { c.NoCards = true }, echo)
		u := w.dial(transport.TCP)
		u.send("hello")
		u.expect("hello")
	})
}
