package poolelement

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFirstRegistration(t *testing.T) {
	var reg *asap.Registration
	var status Status
	inWorld(t, func(t *testing.T, w *world) {
		var e *Element
		e, reg, _ = w.registered(nil)
		status = e.Status()
	})
	check := func(name string, ok bool, got any) {
		t.Run(name, func(t *testing.T) {
			if !ok {
				t.Errorf("got %+v", got)
			}
		})
	}
	data, err := reg.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := []netip.Addr{netip.MustParseAddr(elementAddr)}
	el := reg.Element
	check("ASAP_2_2_1_01_HandleThenElement", bytes.HasPrefix(data[4:], []byte("\x00\x09\x00\x0cEchoPool\x00\x0a")), data)
	check("ASAP_2_2_1_03_AddressesAreTheAssociationsOwn", slices.Equal(el.User.Addrs, own), el.User)
	check("ASAP_3_1_04_PoolHandle", reg.Handle == pool, reg.Handle)
	check("ASAP_3_1_06_LifeInSeconds", el.Life == 300, el.Life)
	check("PAR_3_10_04_LifeInSeconds", el.Life == 300, el.Life)
	check("ASAP_3_1_08_UserTransport", el.User.Type == param.TypeTCPTransport && el.User.Port == 7 && el.User.Use == param.DataOnly, el.User)
	check("ASAP_3_1_09_TransportTypeAsConfigured", el.User.Type == param.TypeTCPTransport, el.User)
	check("ASAP_3_1_10_Policy", el.Policy.Type == param.LeastUsed, el.Policy)
	check("PAR_3_10_03_HomeIsZeroWhileUnknown", el.Home == 0, el.Home)
	check("ControlPortInTheASAPTransportBesidesSCTP", el.ASAP.Type == param.TypeTCPTransport &&
		slices.Equal(el.ASAP.Addrs, own) && el.ASAP.Port == status.Control[transport.Mem] && el.ASAP.Port != 0, el.ASAP)
	check("StatusNamesTheRegistrar", status.Registrar == "mem://"+addrA, status)
}

func TestASAP_3_1_05_IdentifiersAreRandomAndNotZero(t *testing.T) {
	t.Run("AMB_27", func(t *testing.T) {
		seen := map[param.PEID]bool{}
		for range 1000 {
			id := drawID()
			if id == 0 || seen[id] {
				t.Fatalf("identifier %v after %d", id, len(seen))
			}
			seen[id] = true
		}
	})
}

func TestASAP_3_1_02_HuntComesFirst(t *testing.T) {
	t.Run("SM_PE_04_RoundsUntilARegistrarIsThere", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			began := time.Now()
			e := w.element(nil)
			w.state(e, Hunting)
			time.Sleep(25 * time.Second)
			w.startA()
			_, got := expect[*asap.Registration](t, w.a)
			// Rounds begin at 0, 10 and 30 s.
			if d := got.at.Sub(began).Round(time.Second); d != 30*time.Second {
				t.Errorf("registers after %v, want 30s", d)
			}
			w.a.oblige()
		})
	})
}

func TestASAP_3_1_13_T2ExpiryStartsTheHunt(t *testing.T) {
	var first, second *asap.Registration
	var waited time.Duration
	t.Run("SM_PE_07", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startA()
			w.startB()
			w.b.oblige()
			e := w.element(nil)
			var atA, atB received
			first, atA = expect[*asap.Registration](t, w.a)
			second, atB = expect[*asap.Registration](t, w.b)
			waited = atB.at.Sub(atA.at)
			w.state(e, Registered)
			w.a.expectNothing(t, time.Minute) // ASAP-3.7.1-01
		})
	})
	t.Run("ASAP_3_1_11_T2IsThirtySeconds", func(t *testing.T) {
		if waited != 30*time.Second {
			t.Errorf("moved on after %v", waited)
		}
	})
	t.Run("ASAP_3_1_14_RegistrationIsRunAgainAtTheNewHome", func(t *testing.T) {
		if first.Element.ID != second.Element.ID || first.Handle != second.Handle {
			t.Errorf("registered %+v, then %+v", first, second)
		}
	})
}

func TestASAP_3_7_1_01_LostRequestGoesToAnotherRegistrar(t *testing.T) {
	var first, second *asap.Registration
	inWorld(t, func(t *testing.T, w *world) {
		w.startA()
		w.startB()
		w.b.oblige()
		e := w.element(nil)
		var atA, atB received
		first, atA = expect[*asap.Registration](t, w.a)
		w.a.drop()
		second, atB = expect[*asap.Registration](t, w.b)
		if d := atB.at.Sub(atA.at); d > time.Second {
			t.Errorf("moved on after %v", d)
		}
		w.state(e, Registered)
		w.a.expectNothing(t, time.Minute)
	})
	t.Run("ASAP_3_7_1_04_RequestIsRebuilt", func(t *testing.T) {
		if first.Element.ID != second.Element.ID || first.Handle != second.Handle {
			t.Errorf("registered %+v, then %+v", first, second)
		}
	})
}

func TestASAP_3_1_22_AttemptsAreCounted(t *testing.T) {
	t.Run("AMB_31_TwoAttemptsOverAllRegistrars", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startA()
			w.startB()
			began := time.Now()
			e := w.element(func(c *Config) { c.GiveUp = true })
			expect[*asap.Registration](t, w.a)
			expect[*asap.Registration](t, w.b)
			time.Sleep(time.Until(began.Add(60*time.Second + time.Millisecond)))
			w.state(e, Failed)
			if err := e.Status().LastError; !errors.Is(err, hunt.ErrTimeout) {
				t.Errorf("last error is %v", err)
			}
			w.a.expectNothing(t, 10*time.Minute)
			w.b.expectNothing(t, 0)
		})
	})
	t.Run("GoesOnAfterABackoffByDefault", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startA()
			e := w.element(nil)
			expect[*asap.Registration](t, w.a)
			_, second := expect[*asap.Registration](t, w.a)
			_, third := expect[*asap.Registration](t, w.a)
			if d := third.at.Sub(second.at); d < 30*time.Second || d > 42*time.Second {
				t.Errorf("third attempt %v after the second", d)
			}
			w.a.accept(third)
			w.state(e, Registered)
			if err := e.Status().LastError; err != nil {
				t.Errorf("last error is %v after a success", err)
			}
		})
	})
}

func TestASAP_3_1_15_ResponseStopsT2(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startB()
		e, _, _ := w.registered(nil)
		time.Sleep(31 * time.Second)
		w.state(e, Registered)
		w.a.expectNothing(t, time.Minute)
		w.b.expectNothing(t, 0)
	})
}

func TestDeregistrationAtTheEnd(t *testing.T) {
	var reg *asap.Registration
	var dereg *asap.Deregistration
	var first, last received
	inWorld(t, func(t *testing.T, w *world) {
		var e *Element
		e, reg, first = w.registered(nil)
		w.a.oblige()
		if err := e.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
		dereg, last = expect[*asap.Deregistration](t, w.a)
		if s := e.Status().State; s != Unregistered {
			t.Errorf("state %v", s)
		}
	})
	t.Run("ASAP_2_2_2_01_HandleThenIdentifier", func(t *testing.T) {
		data, err := dereg.Append(nil)
		if err != nil || !bytes.HasPrefix(data, []byte("\x02\x00\x00\x18\x00\x09\x00\x0cEchoPool\x00\x0e\x00\x08")) {
			t.Errorf("sent %x, %v", data, err)
		}
	})
	t.Run("ASAP_3_2_02_OnTheSameAssociation", func(t *testing.T) {
		if first.conn != last.conn {
			t.Error("it came on another one")
		}
	})
	t.Run("ASAP_3_2_03_SameHandle", func(t *testing.T) {
		if dereg.Handle != reg.Handle {
			t.Errorf("deregistered %q", dereg.Handle)
		}
	})
	t.Run("ASAP_3_2_04_SameIdentifier", func(t *testing.T) {
		if dereg.ID != reg.Element.ID {
			t.Errorf("deregistered %v", dereg.ID)
		}
	})
}

func TestASAP_3_2_06_T3ExpiryStartsTheHunt(t *testing.T) {
	var waited time.Duration
	var again *asap.Deregistration
	t.Run("SM_PE_17", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startB()
			e, _, _ := w.registered(nil)
			e.SetServing(false)
			_, atA := expect[*asap.Deregistration](t, w.a)
			var atB received
			again, atB = expect[*asap.Deregistration](t, w.b)
			waited = atB.at.Sub(atA.at)
			w.b.accept(atB)
			w.state(e, Unregistered)
			// ASAP-3.2-08: T3 does not run any more.
			w.a.expectNothing(t, time.Minute)
			w.b.expectNothing(t, 0)
		})
	})
	t.Run("ASAP_3_2_05_T3IsThirtySeconds", func(t *testing.T) {
		if waited != 30*time.Second {
			t.Errorf("moved on after %v", waited)
		}
	})
	t.Run("ASAP_3_2_07_DeregistrationIsRunAgainAtTheNewHome", func(t *testing.T) {
		if again == nil || again.Handle != pool {
			t.Errorf("sent %+v", again)
		}
	})
}

func TestASAP_3_2_08_ResponseStopsT3(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startB()
		e, _, _ := w.registered(nil)
		w.a.oblige()
		e.SetServing(false)
		expect[*asap.Deregistration](t, w.a)
		w.state(e, Unregistered)
		w.a.expectNothing(t, time.Hour)
		w.b.expectNothing(t, 0)
	})
}

func TestLeaving(t *testing.T) {
	t.Run("ASAP_3_2_01_NeverStopsInThePoolLongerThanAllowed", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, _, _ := w.registered(func(c *Config) { c.StopTimeout = 2 * time.Second })
			began := time.Now()
			err := e.Stop(context.Background())
			if !errors.Is(err, ErrStopTimeout) {
				t.Errorf("Stop: %v", err)
			}
			if d := time.Since(began); d > 4*time.Second {
				t.Errorf("Stop took %v", d)
			}
		})
	})
	t.Run("StopEndsWithItsContext", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, _, _ := w.registered(nil)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			began := time.Now()
			if err := e.Stop(ctx); !errors.Is(err, ErrStopTimeout) {
				t.Errorf("Stop: %v", err)
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("Stop took %v", d)
			}
		})
	})
	t.Run("RefusalIsReported", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, _, _ := w.registered(nil)
			stopped := make(chan error, 1)
			go func() { stopped <- e.Stop(context.Background()) }()
			dereg, got := expect[*asap.Deregistration](t, w.a)
			w.a.send(got.conn, &asap.DeregistrationResponse{
				Handle: dereg.Handle, ID: dereg.ID, Error: causesOf([]param.CauseCode{param.CauseSecurity}),
			})
			if err := <-stopped; !isRejected(err) {
				t.Errorf("Stop: %v", err)
			}
			if !slices.Contains(w.events, DeregistrationRejected) {
				t.Errorf("events are %v", w.events)
			}
		})
	})
	t.Run("WishesAfterwardsChangeNothing", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, _, _ := w.registered(nil)
			stopped := make(chan error, 1)
			go func() { stopped <- e.Stop(context.Background()) }()
			_, got := expect[*asap.Deregistration](t, w.a)
			for _, serving := range []bool{false, true} {
				e.SetServing(serving)
				synctest.Wait()
			}
			w.a.send(got.conn, success(got.msg))
			if err := <-stopped; err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	})
	t.Run("LeavingAndJoiningAgainWithTheSameIdentifier", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, reg, _ := w.registered(nil)
			w.a.oblige()
			e.SetServing(false)
			expect[*asap.Deregistration](t, w.a)
			w.state(e, Unregistered)
			w.a.expectNothing(t, 10*time.Minute)
			e.SetServing(true)
			again, _ := expect[*asap.Registration](t, w.a)
			if again.Element.ID != reg.Element.ID {
				t.Errorf("identifier %v, was %v", again.Element.ID, reg.Element.ID)
			}
			w.state(e, Registered)
		})
	})
}

func TestSM_PE_13_LostHomeIsReplaced(t *testing.T) {
	t.Run("ASAP_3_6_08_AtAnotherRegistrar", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startB()
			w.b.oblige()
			e, reg, _ := w.registered(nil)
			w.net.Kill("a")
			again, _ := expect[*asap.Registration](t, w.b)
			if again.Element.ID != reg.Element.ID {
				t.Errorf("identifier %v, was %v", again.Element.ID, reg.Element.ID)
			}
			w.state(e, Registered)
		})
	})
	t.Run("AtTheOldOneWhenItIsBack", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, reg, _ := w.registered(nil)
			w.net.Kill("a")
			time.Sleep(15 * time.Second)
			w.state(e, Hunting)
			w.startA()
			w.a.oblige()
			again, _ := expect[*asap.Registration](t, w.a)
			if again.Element.ID != reg.Element.ID {
				t.Errorf("identifier %v, was %v", again.Element.ID, reg.Element.ID)
			}
			w.state(e, Registered)
		})
	})
	t.Run("SilentlyUnplugged", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.startB()
			w.b.oblige()
			e, _, _ := w.registered(nil)
			w.net.Unplug("a")
			expect[*asap.Registration](t, w.b)
			w.state(e, Registered)
			w.net.Plug("a")
		})
	})
}

func TestRegistrarFoundByAnnouncement(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		group := netip.MustParseAddrPort("224.0.1.185:3863")
		w.startA()
		w.a.oblige()
		hostA := w.net.Host("a")
		sender, err := hostA.Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		listener, err := w.net.Host("element").Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		e := w.element(func(c *Config) {
			c.Registrars = nil
			c.Announcers = []transport.Announcer{listener}
			c.Networks = transport.NewNetworks(tcpOverMem{w.net.Host("element")})
		})
		w.state(e, Hunting)
		data, err := (&asap.ServerAnnounce{Registrar: 0x0a, Transports: []param.Transport{{
			Type: param.TypeTCPTransport, Port: 3863, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.10")},
		}}}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sender.Announce(context.Background(), data); err != nil {
			t.Fatal(err)
		}
		expect[*asap.Registration](t, w.a)
		w.state(e, Registered)
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// tcpOverMem gives the network in memory the name that announcements mean.
type tcpOverMem struct{ transport.Network }

func (tcpOverMem) Name() string { return transport.TCP }

func TestLoadAndPolicyReachTheRegistrar(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e, _, _ := w.registered(nil)
		w.a.oblige()
		began := time.Now()
		for i := range 1000 { // a busy server
			e.SetLoad(float64(i) / 1000)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		var loads []uint32
		for len(w.a.got) > 0 {
			reg, _ := expect[*asap.Registration](t, w.a)
			loads = append(loads, reg.Element.Policy.Load)
		}
		if n, seconds := len(loads), int(time.Since(began)/time.Second); n < seconds-2 || n > seconds+1 {
			t.Errorf("%d registrations in %d s", n, seconds)
		}
		if !slices.IsSorted(loads) {
			t.Errorf("loads %v", loads)
		}
		e.Update(param.Policy{Type: param.LeastUsed, Load: 7})
		time.Sleep(time.Second)
		reg, _ := expect[*asap.Registration](t, w.a)
		if reg.Element.Policy.Load != 7 {
			t.Errorf("load %d after Update", reg.Element.Policy.Load)
		}
		if err := e.SetLife(0x7fffffff); err != nil {
			t.Error(err)
		}
		if reg, _ := expect[*asap.Registration](t, w.a); reg.Element.Life != 0x7fffffff {
			t.Errorf("life %d after SetLife", reg.Element.Life)
		}
		if err := e.SetLife(-2); err == nil {
			t.Error("SetLife took -2")
		}
	})
}

func TestTwoElementsInOneProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startA()
		w.a.oblige()
		first := w.element(nil)
		second := w.element(func(c *Config) { c.Handle, c.OnEvent = "Other", nil })
		expect[*asap.Registration](t, w.a)
		expect[*asap.Registration](t, w.a)
		w.state(first, Registered)
		w.state(second, Registered)
		if first.Status().ID == second.Status().ID || control(first) == control(second) {
			t.Errorf("elements share identity: %+v %+v", first.Status(), second.Status())
		}
	})
}

func TestASAP_4_03_UnreachableReport(t *testing.T) {
	t.Run("ASAP_3_5_01_ToTheHome", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			e, _, _ := w.registered(nil)
			if err := e.ReportUnreachable(context.Background(), "other", 0x99); err != nil {
				t.Fatal(err)
			}
			if got, _ := expect[*asap.EndpointUnreachable](t, w.a); got.Handle != "other" || got.ID != 0x99 {
				t.Errorf("reported %+v", got)
			}
		})
	})
}

func TestMalformedMessagesHarmNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e, _, got := w.registered(nil)
		for _, data := range [][]byte{
			{0x20, 0, 0, 4},          // unknown type, silent
			{7, 0, 0, 8, 0, 0, 0, 1}, // keep-alive without handle
			{3, 0, 0, 8, 0, 9, 0, 64},
			{0, 0, 0, 4},
		} {
			if err := got.conn.Send(context.Background(), transport.Message{Data: data, PPID: transport.PPIDASAP}); err != nil {
				t.Fatal(err)
			}
		}
		w.a.send(got.conn, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool})
		for {
			m := <-w.a.got
			if _, ok := m.msg.(*asap.EndpointKeepAliveAck); ok {
				break
			}
			if _, ok := m.msg.(*asap.Error); !ok {
				t.Errorf("element sent %T", m.msg)
			}
		}
		w.state(e, Registered)
	})
}

// TestElementOverTCP is the one test over a real network.
func TestElementOverTCP(t *testing.T) {
	r := newFakeRegistrar(t, tcp.New(), "127.0.0.1:0", 0x0a)
	r.oblige()
	e, err := New(Config{
		Handle:     "echo",
		User:       param.Transport{Type: param.TypeTCPTransport, Port: 7},
		Registrars: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: r.listener.Addrs()[0].Port()}},
		Networks:   transport.NewNetworks(tcp.New()),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	reg, _ := expect[*asap.Registration](t, r)
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if !slices.Equal(reg.Element.User.Addrs, loopback) || !slices.Equal(reg.Element.ASAP.Addrs, loopback) {
		t.Errorf("registered %+v", reg.Element)
	}
	conn := r.dial(t, tcp.New(), reg.Element.ASAP.AddrPorts()[0])
	r.send(conn, &asap.EndpointKeepAlive{Registrar: 0x0b, Handle: "echo"})
	expect[*asap.EndpointKeepAliveAck](t, r)
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	expect[*asap.Deregistration](t, r)
}
