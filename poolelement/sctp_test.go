package poolelement

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// sctpOverMem gives the network in memory, whose connections behave like SCTP
// associations, the name SCTP. Dials without ReusePort are noted.
type sctpOverMem struct {
	transport.Network
	t *testing.T
}

func (sctpOverMem) Name() string { return transport.SCTP }

func (n sctpOverMem) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if !opt.ReusePort {
		n.t.Error("an association does not share the listener's port")
	}
	conn, err := n.Network.Dial(ctx, local, remote, opt)
	return sctpConn{conn}, err
}

func (n sctpOverMem) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Network.Listen(ctx, local, opt)
	return sctpListener{l}, err
}

type sctpListener struct{ transport.Listener }

func (sctpListener) Network() string { return transport.SCTP }

func (l sctpListener) Accept(ctx context.Context) (transport.Conn, error) {
	conn, err := l.Listener.Accept(ctx)
	return sctpConn{conn}, err
}

type sctpConn struct{ transport.Conn }

func (sctpConn) Network() string { return transport.SCTP }

func TestElementOverSCTP(t *testing.T) {
	var reg *asap.Registration
	var regOn, reportOn, questionOn, again received
	var from netip.AddrPort
	inWorld(t, func(t *testing.T, w *world) {
		var e *Element
		e, reg, regOn = w.registered(func(c *Config) {
			c.Networks = transport.NewNetworks(sctpOverMem{w.net.Host("element"), t})
			for i := range c.Registrars {
				c.Registrars[i].Network = transport.SCTP
			}
		})
		from = regOn.conn.RemoteAddrs()[0]
		if p := e.Status().Control[transport.SCTP]; from.Port() != p {
			t.Errorf("the association leaves from %v, registrars reach the element at port %d", from, p)
		}
		if err := e.ReportUnreachable(context.Background(), "other", 0x99); err != nil {
			t.Fatal(err)
		}
		_, reportOn = expect[*asap.EndpointUnreachable](t, w.a)

		answered := make(chan error, 1)
		go func() {
			_, err := e.Do(context.Background(), &asap.HandleResolution{Handle: "other"})
			answered <- err
		}()
		_, questionOn = expect[*asap.HandleResolution](t, w.a)
		w.a.send(questionOn.conn, &asap.HandleResolutionResponse{Handle: "other", Error: causesOf([]param.CauseCode{param.CauseUnknownPoolHandle})})
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if _, err := e.Do(context.Background(), reg); !errors.Is(err, hunt.ErrNotRequest) {
			t.Errorf("a registration by hand: %v, want ErrNotRequest", err)
		}

		// A registrar that takes over knows only where the registration came
		// from.
		w.startB()
		conn := w.b.dial(t, w.net.Host("b"), from)
		w.b.send(conn, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: pool})
		_, again = expect[*asap.EndpointKeepAliveAck](t, w.b)
		w.b.oblige()
	})
	check := func(name string, ok bool, got any) {
		t.Run(name, func(t *testing.T) {
			if !ok {
				t.Errorf("got %+v", got)
			}
		})
	}
	check("ASAP_2_2_1_02_RegistrationOnAnAssociation", reg != nil && regOn.conn != nil, reg)
	check("ASAP_3_1_01_AssociationWithTheHome", from.Addr() == netip.MustParseAddr(elementAddr), from)
	check("ASAP_3_1_12_ASAPTransportIsLeftToTheRegistrar", reg.Element.ASAP.IsZero(), reg.Element.ASAP)
	check("ASAP_3_5_02_ReportOnTheSameAssociation", reportOn.conn == regOn.conn, reportOn.conn)
	check("ASAP_3_3_04_ResolutionOnTheSameAssociation", questionOn.conn == regOn.conn, questionOn.conn)
	check("ASAP_3_4_06_TakeoverReachesThePortOfTheAssociation", again.msg != nil, again)
}

// elsewhere is SCTP where associations leave from a port of their own, as those do
// whose usual port has one to the same peer that is not over yet.
type elsewhere struct{ sctpOverMem }

func (n elsewhere) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	free := []netip.AddrPort{netip.AddrPortFrom(local[0].Addr(), 0)}
	return n.sctpOverMem.Dial(ctx, free, remote, opt)
}

func TestASAP_3_4_06_TakeoverReachesAnotherPortThanUsual(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e, _, on := w.registered(func(c *Config) {
			c.Networks = transport.NewNetworks(elsewhere{sctpOverMem{w.net.Host("element"), t}})
			for i := range c.Registrars {
				c.Registrars[i].Network = transport.SCTP
			}
		})
		for range 2 { // from yet another port each time
			from := on.conn.RemoteAddrs()[0]
			if p := e.Status().Control[transport.SCTP]; from.Port() == p {
				t.Fatalf("the association leaves from the usual port %v", p)
			}
			w.a.drop()
			_, on = expect[*asap.Registration](t, w.a)
			w.a.accept(on)
			w.state(e, Registered)
		}
		w.startB()
		conn := w.b.dial(t, w.net.Host("b"), on.conn.RemoteAddrs()[0])
		w.b.send(conn, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: pool})
		expect[*asap.EndpointKeepAliveAck](t, w.b)
		_, again := expect[*asap.Registration](t, w.b)
		w.b.accept(again)
		w.state(e, Registered)
		w.b.oblige()
		if err := e.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
}

// fromPorts is SCTP where associations leave from the ports of a list, one after the
// other, 0 for the usual one. It notes where is listened.
type fromPorts struct {
	sctpOverMem
	ports []uint16
	open  map[uint16]bool
}

func (n *fromPorts) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if port := n.ports[0]; port != 0 {
		local = []netip.AddrPort{netip.AddrPortFrom(local[0].Addr(), port)}
	}
	conn, err := n.sctpOverMem.Dial(ctx, local, remote, opt)
	if err == nil {
		n.ports = n.ports[1:]
	}
	return conn, err
}

func (n *fromPorts) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.sctpOverMem.Listen(ctx, local, opt)
	if err != nil {
		n.t.Errorf("listen at %v: %v", local, err)
		return l, err
	}
	port := l.Addrs()[0].Port()
	n.open[port] = true
	return &notedListener{l, func() { delete(n.open, port) }}, nil
}

type notedListener struct {
	transport.Listener
	closed func()
}

func (l *notedListener) Close() error {
	l.closed()
	return l.Listener.Close()
}

// An element listens at its usual port and, if the association to its home leaves from
// another one, there, too, but at no third one; and nowhere when it has ended.
func TestElementListensAtNoMorePortsThanItNeeds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		n := &fromPorts{sctpOverMem{w.net.Host("element"), t}, []uint16{0, 5000, 5000, 5001, 0}, map[uint16]bool{}}
		e, _, _ := w.registered(func(c *Config) {
			c.Networks = transport.NewNetworks(n)
			for i := range c.Registrars {
				c.Registrars[i].Network = transport.SCTP
			}
		})
		usual := e.Status().Control[transport.SCTP]
		for _, besides := range []uint16{0, 5000, 5000, 5001} {
			want := map[uint16]bool{usual: true}
			if besides != 0 {
				want[besides] = true
			}
			if !maps.Equal(n.open, want) {
				t.Errorf("it listens at %v, not %v", n.open, want)
			}
			w.a.drop()
			_, on := expect[*asap.Registration](t, w.a)
			w.a.accept(on)
			w.state(e, Registered)
		}
		w.a.oblige()
		if err := e.Stop(context.Background()); err != nil || len(n.open) != 0 {
			t.Errorf("Stop: %v, it listens at %v", err, n.open)
		}
	})
}

// What is registered is an address of the association's own end, so that the
// registrar sees that it is the element's: all of them if none is given.
func TestASAP_6_1_01_UserAddressesAreTheAssociations(t *testing.T) {
	one, other := netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.2")
	for _, test := range []struct{ given, want []netip.Addr }{
		{nil, []netip.Addr{one, other}},
		{[]netip.Addr{other}, []netip.Addr{other}},
	} {
		inWorld(t, func(t *testing.T, w *world) {
			_, reg, on := w.registered(func(c *Config) {
				c.Networks = transport.NewNetworks(sctpOverMem{w.net.Host("multi-homed", one.String(), other.String()), t})
				c.User = param.Transport{Type: param.TypeSCTPTransport, Port: 7, Addrs: test.given}
				for i := range c.Registrars {
					c.Registrars[i].Network = transport.SCTP
				}
			})
			if !slices.Equal(reg.Element.User.Addrs, test.want) {
				t.Errorf("given %v: registered %v, want %v", test.given, reg.Element.User.Addrs, test.want)
			}
			bound := addrs(on.conn.RemoteAddrs())
			for _, a := range reg.Element.User.Addrs {
				if !slices.Contains(bound, a) {
					t.Errorf("%v is registered, the association comes from %v", a, bound)
				}
			}
		})
	}
}

// Control messages of sessions are for the server behind the element.
func TestCookiesAndCardsFromRegistrarsDoNoHarm(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e, reg, on := w.registered(nil)
		for i, msg := range []asap.Message{
			&asap.Cookie{Cookie: []byte("c")}, &asap.CookieEcho{Cookie: []byte("c")},
			&asap.BusinessCard{Handle: pool, Elements: []param.PoolElement{reg.Element}},
		} {
			w.a.send(on.conn, msg)
			w.state(e, Registered)
			if got := e.Status().Ignored; got != uint64(i+1) {
				t.Errorf("%T: %d messages ignored, want %d", msg, got, i+1)
			}
		}
	})
}

func TestASAP_3_5_03_OneReportPerCall(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e, _, _ := w.registered(nil)
		if err := e.ReportUnreachable(context.Background(), "other", 0x99); err != nil {
			t.Fatal(err)
		}
		expect[*asap.EndpointUnreachable](t, w.a)
		w.a.expectNothing(t, patience/2)
	})
}
