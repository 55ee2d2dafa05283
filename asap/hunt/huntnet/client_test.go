package huntnet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/asap/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const port = 3863

// lab is a network in memory with a client at 10.0.0.100.
type lab struct {
	t   *testing.T
	net *mem.Network

	mu      sync.Mutex
	inbound []huntnet.Inbound
	homes   []huntnet.HomeEvent
}

// inLab runs f in virtual time.
func inLab(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &lab{t: t, net: mem.NewNetwork(1)}) })
}

func (l *lab) registrar(addr string, answer func(asap.Message) []asap.Message) *hunttest.Registrar {
	l.t.Helper()
	r, err := hunttest.Start(l.net.Host(addr), netip.AddrPortFrom(netip.MustParseAddr(addr), port), answer)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(r.Stop)
	return r
}

// client returns a running client of the registrars.
func (l *lab) client(change func(*huntnet.Config), registrars ...string) *huntnet.Client {
	l.t.Helper()
	cfg := huntnet.Config{
		Networks: transport.NewNetworks(l.net.Host("10.0.0.100")),
		Hunt:     hunt.Config{Rand: func() float64 { return 0 }},
		Handler: func(in huntnet.Inbound) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.inbound = append(l.inbound, in)
		},
		OnHome: func(e huntnet.HomeEvent) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.homes = append(l.homes, e)
		},
	}
	for _, r := range registrars {
		e, err := transport.ParseEndpoint(r, transport.Mem, port)
		if err != nil {
			l.t.Fatal(err)
		}
		cfg.Registrars = append(cfg.Registrars, e)
	}
	if change != nil {
		change(&cfg)
	}
	c, err := huntnet.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	c.Start()
	l.t.Cleanup(c.Stop)
	return c
}

func (l *lab) homeEvents() []bool {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []bool
	for _, e := range l.homes {
		out = append(out, e.Found)
	}
	return out
}

// resolver answers handle resolutions with one element.
func resolver(id param.PEID) func(asap.Message) []asap.Message {
	return func(msg asap.Message) []asap.Message {
		q, ok := msg.(*asap.HandleResolution)
		if !ok {
			return nil
		}
		return []asap.Message{&asap.HandleResolutionResponse{
			Handle: q.Handle, Policy: param.Policy{Type: param.RoundRobin}, Elements: []param.PoolElement{element(id)},
		}}
	}
}

func element(id param.PEID) param.PoolElement {
	return param.PoolElement{
		ID: id, Life: 300, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: 80, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	}
}

func (l *lab) resolve(c *huntnet.Client, handle param.PoolHandle) (param.PEID, error) {
	l.t.Helper()
	reply, err := c.Do(l.t.Context(), &asap.HandleResolution{Handle: handle})
	if err != nil {
		return 0, err
	}
	return reply.(*asap.HandleResolutionResponse).Elements[0].ID, nil
}

func (l *lab) wantElement(c *huntnet.Client, want param.PEID) {
	l.t.Helper()
	if got, err := l.resolve(c, "pool"); err != nil || got != want {
		l.t.Errorf("element %v, error %v, want %v", got, err, want)
	}
}

func TestASAP_3_3_01_ResolutionNamesThePool(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", resolver(1))
		c := l.client(nil, "10.0.0.1")
		l.wantElement(c, 1)
		got := r.Received()
		if len(got) != 1 || got[0].Message.(*asap.HandleResolution).Handle != "pool" {
			t.Errorf("registrar received %+v", got)
		}
		home, ok := c.Home()
		if !ok || home.Remote[0].Addr() != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("home %+v %v", home, ok)
		}
	})
}

func TestASAP_3_3_03_UserAsksOverTCP(t *testing.T) {
	r, err := hunttest.Start(tcp.New(), netip.MustParseAddrPort("127.0.0.1:0"), resolver(7))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	e, err := transport.ParseEndpoint(r.Addr().String(), transport.TCP, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := huntnet.New(huntnet.Config{Networks: transport.NewNetworks(tcp.New()), Registrars: []transport.Endpoint{e}})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	defer c.Stop()
	reply, err := c.Do(t.Context(), &asap.HandleResolution{Handle: "pool"})
	if err != nil || reply.(*asap.HandleResolutionResponse).Elements[0].ID != 7 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
}

// T01 of the timing vectors, over the wire.
func TestASAP_3_7_2_02_SilentRegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", nil)
		c := l.client(nil, "10.0.0.1")
		synctest.Wait()
		start := time.Now()
		_, err := l.resolve(c, "pool")
		if !errors.Is(err, hunt.ErrTimeout) || time.Since(start) != 45*time.Second {
			t.Errorf("%v after %v, want ErrTimeout after 45s", err, time.Since(start))
		}
		var at []time.Duration
		for _, m := range r.Received() {
			at = append(at, m.At.Sub(start))
		}
		if !slices.Equal(at, []time.Duration{0, 15 * time.Second, 30 * time.Second}) {
			t.Errorf("sent at %v, want 0, 15 and 30 s", at)
		}
	})
}

func TestASAP_3_7_1_02_RegistrarDiesWithTheRequest(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		first := l.registrar("10.0.0.1", nil)
		c := l.client(nil, "10.0.0.1", "10.0.0.2")
		synctest.Wait()
		l.registrar("10.0.0.2", resolver(2))
		go func() {
			time.Sleep(time.Second)
			first.Stop()
		}()
		start := time.Now()
		l.wantElement(c, 2)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		if got := l.homeEvents(); !slices.Equal(got, []bool{true, false, true}) {
			t.Errorf("home events %v", got)
		}
	})
}

func TestNamesAreLookedUpInEachRound(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.net.Host("10.0.0.1")
		l.net.Host("10.0.0.2")
		l.net.Alias("registrars", "10.0.0.1")
		c := l.client(nil, "registrars")
		time.Sleep(time.Second)
		l.net.Alias("registrars", "10.0.0.1", "10.0.0.2")
		l.registrar("10.0.0.2", resolver(2))
		start := time.Now()
		l.wantElement(c, 2)
		if took := time.Since(start); took != 9*time.Second {
			t.Errorf("found after %v, want 9s: at the second round", took)
		}
	})
}

// slowNames is a machine whose DNS server does not answer for one name.
type slowNames struct{ *mem.Host }

func (h slowNames) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if name == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Host.LookupNetIP(ctx, network, name)
}

func TestANameThatHangsHoldsNobodyUp(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar("10.0.0.1", resolver(1))
		l.net.Host("10.0.0.2")
		l.net.Alias("name", "10.0.0.2")
		c := l.client(func(cfg *huntnet.Config) {
			cfg.Networks = transport.NewNetworks(slowNames{l.net.Host("10.0.0.100")})
		}, "slow", "10.0.0.1", "name")
		l.wantElement(c, 1)
		synctest.Wait() // the names are looked up beside
		if known, err := c.Known(t.Context()); err != nil || len(known) != 2 {
			t.Errorf("known %v, %v; want both that can be found", known, err)
		}
	})
}

func TestAMB_32_ReportWaitsForARegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		c := l.client(nil, "10.0.0.1")
		if err := c.Send(t.Context(), &asap.EndpointUnreachable{Handle: "pool", ID: 3}); err != nil {
			t.Fatal(err)
		}
		r := l.registrar("10.0.0.1", nil)
		time.Sleep(11 * time.Second)
		if got := r.Received(); len(got) != 1 || got[0].Message.(*asap.EndpointUnreachable).ID != 3 {
			t.Errorf("registrar received %+v", got)
		}
	})
}

func TestDoEndsWithItsContext(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		c := l.client(nil, "10.0.0.1")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Do(ctx, &asap.HandleResolution{Handle: "pool"})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, hunt.ErrNoRegistrar) || !strings.Contains(err.Error(), "10.0.0.1:3863 not reached") {
			t.Errorf("error %v, want deadline exceeded for want of a registrar, and which", err)
		}
		l.registrar("10.0.0.1", nil)
		time.Sleep(10 * time.Second)
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = c.Do(ctx, &asap.HandleResolution{Handle: "pool"})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hunt.ErrNoRegistrar) {
			t.Errorf("error %v, want deadline exceeded alone", err)
		}
	})
}

func TestStopEndsCalls(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		c := l.client(nil, "10.0.0.1")
		failed := make(chan error)
		go func() {
			_, err := c.Do(context.Background(), &asap.HandleResolution{Handle: "pool"})
			failed <- err
		}()
		synctest.Wait()
		c.Stop()
		if err := <-failed; !errors.Is(err, huntnet.ErrStopped) {
			t.Errorf("Do: %v, want ErrStopped", err)
		}
		if err := c.Send(t.Context(), &asap.EndpointUnreachable{Handle: "pool"}); !errors.Is(err, huntnet.ErrStopped) {
			t.Errorf("Send: %v, want ErrStopped", err)
		}
	})
}

func TestStopWritesWhatIsQueued(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", nil)
		c := l.client(nil, "10.0.0.1")
		synctest.Wait()
		for i := range 50 {
			if err := c.Send(t.Context(), &asap.EndpointUnreachable{Handle: "pool", ID: param.PEID(i)}); err != nil {
				t.Fatal(err)
			}
		}
		c.Stop()
		synctest.Wait()
		if got := len(r.Received()); got != 50 {
			t.Errorf("registrar received %d messages, want 50", got)
		}
	})
}

func TestASAP_3_6_03_AnnouncedRegistrarIsFound(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		group := netip.MustParseAddrPort("224.0.1.185:3863")
		ears, err := l.net.Host("10.0.0.100").Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		mouth, err := l.net.Host("10.0.0.1").Announcer(group)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = ears.Close(), mouth.Close() })
		c := l.client(func(cfg *huntnet.Config) { cfg.Announcers = []transport.Announcer{ears} })
		say := func(msg asap.Message) {
			data, err := msg.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := mouth.Announce(t.Context(), data); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		say(&asap.EndpointKeepAlive{Home: true, Registrar: 1, Handle: "pool"}) // no announcement: ignored
		say(&asap.ServerAnnounce{Registrar: 1})
		known, err := c.Known(t.Context())
		if err != nil || len(known) != 1 || known[0].String() != "sctp://10.0.0.1:3863" {
			t.Errorf("known %v, error %v", known, err)
		}
	})
}

func TestASAP_2_2_7_02_KeepAliveIsAnsweredAndAdopts(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar("10.0.0.1", resolver(1))
		c := l.client(func(cfg *huntnet.Config) {
			cfg.Handler = func(in huntnet.Inbound) {
				ka, ok := in.Message.(*asap.EndpointKeepAlive)
				if !ok {
					return
				}
				if err := in.Reply(&asap.EndpointKeepAliveAck{Handle: ka.Handle, ID: 5}); err != nil {
					t.Error(err)
				}
				if ka.Home {
					if changed, err := in.Adopt(ka.Registrar); err != nil || !changed {
						t.Errorf("adopt: %v, %v", changed, err)
					}
				}
			}
		}, "10.0.0.1")
		// The element listens, the other registrar connects to it.
		listener, err := l.net.Host("10.0.0.100").Listen(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("10.0.0.100:5000")}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.net.Host("10.0.0.2").Dial(t.Context(), nil, listener.Addrs(), transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := listener.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Attach(conn); err != nil {
			t.Fatal(err)
		}
		for _, home := range []bool{false, true} {
			data, err := (&asap.EndpointKeepAlive{Home: home, Registrar: 9, Handle: "pool"}).Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Send(t.Context(), transport.Message{Data: data, PPID: transport.PPIDASAP}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, transport.MaxMessage)
			m, err := other.Receive(t.Context(), buf)
			if err != nil {
				t.Fatal(err)
			}
			if msg, _, err := asap.Decode(m.Data); err != nil || msg.(*asap.EndpointKeepAliveAck).ID != 5 {
				t.Errorf("reply %+v, error %v", msg, err)
			}
			synctest.Wait()
			p, _ := c.Home()
			if got := p.Remote[0].Addr() == netip.MustParseAddr("10.0.0.2"); got != home {
				t.Errorf("H=%v: home is %v", home, p.Remote)
			}
			if home && p.Registrar != 9 {
				t.Errorf("home's identifier is %v, want 9", p.Registrar)
			}
		}
		_ = listener.Close()
		_ = other.Close()
	})
}

// visitor is the far end of a connection that a registrar opens.
type visitor struct {
	t    *testing.T
	conn transport.Conn
}

// visit opens a connection to the client, which attaches it.
func (l *lab) visit(c *huntnet.Client) (visitor, error) {
	l.t.Helper()
	at := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.100:5000")}
	listener, err := l.net.Host("10.0.0.100").Listen(l.t.Context(), at, transport.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	far, err := l.net.Host("10.0.0.2").Dial(l.t.Context(), nil, at, transport.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = far.Close() })
	conn, err := listener.Accept(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	err = c.Attach(conn)
	time.Sleep(time.Second)
	return visitor{l.t, far}, err
}

// keepAlive sends an ENDPOINT_KEEP_ALIVE.
func (v visitor) keepAlive(home bool) {
	v.t.Helper()
	data, err := (&asap.EndpointKeepAlive{Home: home, Registrar: 9, Handle: "pool"}).Append(nil)
	if err == nil {
		err = v.conn.Send(v.t.Context(), transport.Message{Data: data, PPID: transport.PPIDASAP})
	}
	if err != nil {
		v.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

// open tells whether the client has not closed the connection.
func (v visitor) open() bool {
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Second)
	defer cancel()
	_, err := v.conn.Receive(ctx, make([]byte, transport.MaxMessage))
	return errors.Is(err, context.DeadlineExceeded)
}

func adoptAll(max int) func(*huntnet.Config) {
	return func(cfg *huntnet.Config) {
		cfg.MaxIncoming = max
		cfg.Handler = func(in huntnet.Inbound) {
			if in.Message.(*asap.EndpointKeepAlive).Home {
				_, _ = in.Adopt(9)
			}
		}
	}
}

func TestSilentIncomingConnectionsMakeRoom(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		c := l.client(adoptAll(2), "10.0.0.1")
		var v []visitor
		enter := func(wantOpen ...bool) {
			t.Helper()
			next, err := l.visit(c)
			if err != nil {
				t.Fatal(err)
			}
			v = append(v, next)
			for i, want := range wantOpen {
				if got := v[i].open(); got != want {
					t.Errorf("with %d visitors, the one of number %d is open: %v", len(v), i, got)
				}
			}
		}
		enter(true)
		enter(true, true)
		v[0].keepAlive(false)
		enter(true, false, true) // the second has said nothing for longest
		v[2].keepAlive(true)
		v[0].keepAlive(false)
		enter(false, false, true, true) // the third is the home
		if h, ok := c.Home(); !ok || h.Registrar != 9 {
			t.Errorf("home %+v, %v", h, ok)
		}
	})
}

func TestHomeMakesNoRoom(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		c := l.client(adoptAll(1), "10.0.0.1")
		home, err := l.visit(c)
		if err != nil {
			t.Fatal(err)
		}
		home.keepAlive(true)
		if _, err := l.visit(c); !errors.Is(err, huntnet.ErrTooManyConnections) {
			t.Errorf("another connection: %v, want ErrTooManyConnections", err)
		}
		if !home.open() {
			t.Error("the home was dropped")
		}
		_ = home.conn.Close()
		synctest.Wait()
		if _, err := l.visit(c); err != nil {
			t.Errorf("after the home has gone: %v", err)
		}
	})
}

func TestAMB_83_OnlyASAPIsRead(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", resolver(1))
		c := l.client(nil, "10.0.0.1")
		l.wantElement(c, 1)
		data, err := (&asap.EndpointKeepAlive{Registrar: 1, Handle: "pool"}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		for ppid, want := range map[uint32]int{transport.PPIDENRP: 0, 99: 0, 0: 1, transport.PPIDASAP: 1} {
			l.inbound = nil
			if err := r.SendRaw(data, ppid); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(l.inbound) != want {
				t.Errorf("PPID %d: %d messages passed on, want %d", ppid, len(l.inbound), want)
			}
		}
	})
}

func TestASAP_2_2_14_02_BadMessagesAreReported(t *testing.T) {
	for ordered, want := range map[bool]int{false: 1, true: 0} {
		inLab(t, func(t *testing.T, l *lab) {
			r := l.registrar("10.0.0.1", resolver(1))
			c := l.client(func(cfg *huntnet.Config) { cfg.Hunt.Ordered = ordered }, "10.0.0.1")
			l.wantElement(c, 1)
			if err := r.SendRaw([]byte{0x45, 0, 0, 4}, transport.PPIDASAP); err != nil { // PAR-4-02
				t.Fatal(err)
			}
			synctest.Wait()
			reports := 0
			for _, got := range r.Received() {
				if e, ok := got.Message.(*asap.Error); ok && e.Causes.Has(param.CauseUnrecognizedMessage) {
					reports++
				}
			}
			if reports != want {
				t.Errorf("rsplib %v: %d reports, want %d: its registrars take them amiss", ordered, reports, want)
			}
			l.wantElement(c, 1)
		})
	}
}

// slowDials is a machine whose connections take their time and can't be stopped.
type slowDials struct {
	*mem.Host
	late chan transport.Conn
}

func (h slowDials) Dial(_ context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if remote[0].Addr() != netip.MustParseAddr("10.0.0.2") {
		return h.Host.Dial(context.Background(), local, remote, opt)
	}
	time.Sleep(time.Second)
	conn, err := h.Host.Dial(context.Background(), local, remote, opt)
	h.late <- conn
	return conn, err
}

func TestASAP_3_6_10_ConnectionThatComesTooLateIsClosed(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar("10.0.0.1", resolver(1))
		l.registrar("10.0.0.2", resolver(2))
		late := make(chan transport.Conn, 1)
		c := l.client(func(cfg *huntnet.Config) {
			cfg.Networks = transport.NewNetworks(slowDials{l.net.Host("10.0.0.100"), late})
		}, "10.0.0.1", "10.0.0.2")
		l.wantElement(c, 1)
		conn := <-late
		time.Sleep(time.Second)
		if _, err := conn.Receive(t.Context(), make([]byte, transport.MaxMessage)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the late connection: %v, want it closed", err)
		}
		l.wantElement(c, 1)
	})
}

func TestSlowHandlerLosesMessagesOnly(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", resolver(1))
		release := make(chan struct{})
		c := l.client(func(cfg *huntnet.Config) {
			cfg.InboundQueue = 4
			cfg.OnHome = nil
			cfg.Handler = func(huntnet.Inbound) { <-release }
		}, "10.0.0.1")
		l.wantElement(c, 1)
		for range 20 {
			if err := r.Send(&asap.EndpointKeepAlive{Registrar: 1, Handle: "pool"}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := c.Dropped(); got != 20-1-4 {
			t.Errorf("%d dropped, want 15", got)
		}
		l.wantElement(c, 1) // answers still come through
		close(release)
	})
}

func TestPrepareSeesTheConnection(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.registrar("10.0.0.1", nil)
		c := l.client(func(cfg *huntnet.Config) {
			cfg.Prepare = func(msg asap.Message, via huntnet.Peer) asap.Message {
				if reg, ok := msg.(*asap.Registration); ok {
					changed := *reg
					changed.Element.User.Addrs = []netip.Addr{via.Local[0].Addr()}
					return &changed
				}
				return msg
			}
		}, "10.0.0.1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Do(ctx, &asap.Registration{Handle: "pool", Element: element(1)})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		got := r.Received()
		if len(got) != 1 || got[0].Message.(*asap.Registration).Element.User.Addrs[0] != netip.MustParseAddr("10.0.0.100") {
			t.Errorf("registrar received %+v", got)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := huntnet.New(huntnet.Config{MaxIncoming: -1, Hunt: hunt.Config{Parallel: 9}})
	if err == nil {
		t.Fatal("bad configuration accepted")
	}
	for _, part := range []string{"networks", "registrars", "MaxIncoming", "Parallel"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

// Whoever finds no registrar hears of it once, and why.
func TestHuntInVainIsLoggedOnce(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		logger, hook := test.NewNullLogger()
		warned := func() []string {
			var out []string
			for _, e := range hook.AllEntries() {
				if e.Level == logrus.WarnLevel {
					out = append(out, fmt.Sprint(e.Message, ": ", e.Data[logrus.ErrorKey]))
				}
			}
			hook.Reset()
			return out
		}
		l.client(func(c *huntnet.Config) { c.Log = logger }, "10.0.0.1")
		time.Sleep(time.Hour)
		if got := warned(); len(got) != 1 || !strings.Contains(got[0], "still looking") || !strings.Contains(got[0], "10.0.0.1") || !strings.Contains(got[0], "no route") {
			t.Errorf("an hour without registrar: warnings %q", got)
		}
		r := l.registrar("10.0.0.1", nil)
		time.Sleep(time.Hour)
		r.Stop()
		time.Sleep(time.Hour)
		if got := warned(); len(got) != 2 || !strings.Contains(got[0], "lost") || !strings.Contains(got[1], "still looking") {
			t.Errorf("a registrar that came and went: warnings %q", got)
		}
	})
}
