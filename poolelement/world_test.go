package poolelement

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
)

// world is a network in memory with an element's host and up to two registrars,
// in virtual time.
type world struct {
	t      *testing.T
	net    *mem.Network
	a, b   *fakeRegistrar
	events []EventType
}

const (
	elementAddr = "10.0.0.1"
	addrA       = "10.0.0.10:3863"
	addrB       = "10.0.0.11:3863"
)

// inWorld runs f in a bubble of virtual time.
func inWorld(t *testing.T, f func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: mem.NewNetwork(1)}
		w.net.Host("element", elementAddr)
		w.net.Host("a", "10.0.0.10")
		w.net.Host("b", "10.0.0.11")
		f(t, w)
	})
}

func (w *world) startA() *fakeRegistrar {
	w.a = newFakeRegistrar(w.t, w.net.Host("a"), addrA, 0x0a)
	return w.a
}

func (w *world) startB() *fakeRegistrar {
	w.b = newFakeRegistrar(w.t, w.net.Host("b"), addrB, 0x0b)
	return w.b
}

// element starts an element that knows both registrars, A before B, without
// randomness in its timers.
func (w *world) element(change func(*Config)) *Element {
	w.t.Helper()
	cfg := Config{
		Handle: pool,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7},
		Policy: param.Policy{Type: param.LeastUsed},
		Registrars: []transport.Endpoint{
			{Network: transport.Mem, Hosts: []string{"10.0.0.10"}, Port: 3863},
			{Network: transport.Mem, Hosts: []string{"10.0.0.11"}, Port: 3863},
		},
		Networks: transport.NewNetworks(w.net.Host("element")),
		Hunt:     hunt.Default(),
		OnEvent:  func(e Event) { w.events = append(w.events, e.Type) },
	}
	cfg.Hunt.Rand = func() float64 { return 0 }
	cfg.Hunt.Parallel = 1 // A before B
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := e.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil && !errors.Is(err, ErrStopTimeout) && !isRejected(err) {
			w.t.Errorf("Stop: %v", err)
		}
	})
	return e
}

// registered starts registrar A and an element that has registered with it.
func (w *world) registered(change func(*Config)) (*Element, *asap.Registration, received) {
	w.t.Helper()
	w.startA()
	e := w.element(change)
	reg, got := expect[*asap.Registration](w.t, w.a)
	w.a.accept(got)
	w.state(e, Registered)
	return e, reg, got
}

// state waits until nothing moves, and checks the state.
func (w *world) state(e *Element, want State) {
	w.t.Helper()
	synctest.Wait()
	if got := e.Status().State; got != want {
		w.t.Fatalf("state %v, want %v", got, want)
	}
}

// control returns where registrars reach the element.
func control(e *Element) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(elementAddr), e.Status().Control[transport.Mem])
}

func isRejected(err error) bool {
	_, ok := errors.AsType[*RejectedError](err)
	return ok
}
