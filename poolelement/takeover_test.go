package poolelement

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

func TestTakeover(t *testing.T) {
	var own, ackID, home param.RegistrarID
	var homes []string // before, after H=0, after H=1
	var ackOn, again, last received
	var reported []EventType
	var conn transport.Conn
	inWorld(t, func(t *testing.T, w *world) {
		w.startB()
		e, reg, _ := w.registered(nil)
		note := func() {
			synctest.Wait()
			homes = append(homes, e.Status().Registrar)
		}
		note()
		conn = w.b.dial(t, w.net.Host("b"), control(e))

		w.b.send(conn, &asap.EndpointKeepAlive{Registrar: 0x0b, Handle: pool})
		var ack *asap.EndpointKeepAliveAck
		ack, ackOn = expect[*asap.EndpointKeepAliveAck](t, w.b)
		own, ackID = param.RegistrarID(reg.Element.ID), param.RegistrarID(ack.ID)
		note()

		w.b.send(conn, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: pool})
		expect[*asap.EndpointKeepAliveAck](t, w.b)
		note()

		events := len(w.events)
		w.b.send(conn, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: pool})
		expect[*asap.EndpointKeepAliveAck](t, w.b)
		synctest.Wait()
		reported = w.events[events:]

		var next *asap.Registration
		next, again = expect[*asap.Registration](t, w.b)
		home = next.Element.Home
		w.b.accept(again)
		w.state(e, Registered)
		w.b.oblige()
		if err := e.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
		_, last = expect[*asap.Deregistration](t, w.b)
	})
	t.Run("ASAP_3_4_02_AckNamesTheElement", func(t *testing.T) {
		if ackID != own {
			t.Errorf("acknowledged %v, registered %v", ackID, own)
		}
	})
	t.Run("ASAP_3_4_03_AckOnTheAssociationOfTheSender", func(t *testing.T) {
		if ackOn.conn != conn {
			t.Error("it came on another one")
		}
	})
	t.Run("ASAP_2_2_7_02_HomeStaysWithoutH", func(t *testing.T) {
		if homes[0] != "mem://"+addrA || homes[1] != homes[0] {
			t.Errorf("homes are %v", homes)
		}
	})
	t.Run("ASAP_3_4_04_SenderBecomesHome", func(t *testing.T) {
		if !strings.HasPrefix(homes[2], "mem://10.0.0.11:") {
			t.Errorf("homes are %v", homes)
		}
	})
	t.Run("AMB_85_SameHomeAgainChangesNothing", func(t *testing.T) {
		if len(reported) > 0 {
			t.Errorf("events are %v", reported)
		}
	})
	t.Run("ASAP_3_4_05_RequestsGoToTheNewHome", func(t *testing.T) {
		if again.conn != conn || last.conn != conn || home != 0x0b {
			t.Errorf("re-registered there: %v, naming home %v; deregistered there: %v", again.conn == conn, home, last.conn == conn)
		}
	})
	t.Run("ASAP_3_4_06_ElementAcceptsAssociations", func(t *testing.T) {
		if ackOn.msg == nil {
			t.Error("nothing was acknowledged")
		}
	})
}

func TestAMB_33_TakeoverDuringTheHunt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		hostB := w.net.Host("b")
		e, _, _ := w.registered(nil)
		w.a.close()
		w.state(e, Hunting)
		w.startB()
		conn := w.b.dial(t, hostB, control(e))
		w.b.send(conn, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: pool})
		expect[*asap.EndpointKeepAliveAck](t, w.b)
		_, got := expect[*asap.Registration](t, w.b)
		if got.conn != conn {
			t.Error("registered on another association")
		}
		w.b.accept(got)
		w.state(e, Registered)
	})
}
