package pooluser_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/pooluser"
)

func TestASAP_4_06_ElementAndUserInOne(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		at := netip.AddrPortFrom(netip.MustParseAddr(home1), asap1)
		home, err := hunttest.Start(l.net.Host(home1), at, func(msg asap.Message) []asap.Message {
			switch m := msg.(type) {
			case *asap.Registration:
				return []asap.Message{&asap.RegistrationResponse{Handle: m.Handle, ID: m.Element.ID}}
			case *asap.Deregistration:
				return []asap.Message{&asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID}}
			}
			return l.answer(msg)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer home.Stop()
		l.setPool(pool, param.RoundRobin, 1, 2)
		networks := transport.NewNetworks(l.net.Host(userAt))
		e, err := poolelement.New(poolelement.Config{
			Handle: "other", User: param.Transport{Type: param.TypeTCPTransport, Port: 7}, Networks: networks,
			Registrars: []transport.Endpoint{{Network: transport.Mem, Hosts: []string{home1}, Port: asap1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := pooluser.New(pooluser.Config{Via: e, Networks: networks, DialStream: l.dial})
		if err != nil {
			t.Fatal(err)
		}
		r.Start()
		if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, huntnet.ErrStopped) {
			t.Errorf("before the element runs: %v, want ErrStopped", err)
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		l.wantAnswer(r, 1, 2)
		l.fail(1, true)
		if got := l.dialOK(r); got != 2 {
			t.Errorf("connected to %v, want 2", got)
		}
		l.wantReports(home, 1)
		if err := home.Send(&asap.EndpointKeepAlive{Registrar: 9, Handle: "other"}); err != nil {
			t.Fatal(err)
		}
		if err := home.Send(&asap.Error{Causes: param.OperationError{{Code: param.CauseUnspecified}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		acks := 0
		for _, got := range home.Received() {
			if _, ok := got.Message.(*asap.EndpointKeepAliveAck); ok {
				acks++
			}
		}
		if acks != 1 || home.Accepted() != 1 || e.Status().State != poolelement.Registered {
			t.Errorf("%d acknowledgements, %d associations, state %v", acks, home.Accepted(), e.Status().State)
		}

		// A question that nobody answers ends with the asker.
		home.Stop()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Resolve(ctx, "third"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without registrar: %v", err)
		}
		r.Stop()
		if err := e.Stop(t.Context()); err != nil && !errors.Is(err, poolelement.ErrStopTimeout) {
			t.Error(err)
		}
	})
}

func TestASAP_4_02_UserHearsAnnouncements(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		group := netip.MustParseAddrPort("224.0.1.185:3863")
		ears, err := l.net.Host(userAt).Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ears.Close() })
		r := l.user(func(c *pooluser.Config) { c.Registrars, c.Announcers = nil, []transport.Announcer{ears} })
		data, err := (&asap.ServerAnnounce{Registrar: 1, Transports: []param.Transport{
			{Type: param.TypeSCTPTransport, Port: asap1, Addrs: []netip.Addr{netip.MustParseAddr(home1)}},
		}}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		sender, err := l.net.Host(home1).Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		if err := sender.Announce(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		l.wantAnswer(r, 1)
	})
}
