package poolelement

import (
	"context"
	"net/netip"
	"testing"

	"rserpool/asap"
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
	var regOn, reportOn, again received
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
	check("ASAP_3_4_06_TakeoverReachesThePortOfTheAssociation", again.msg != nil, again)
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
