// Package localpool has a registrar on the loopback interface for tests of pool users
// with real sockets: it answers as it is told and counts the reports.
package localpool

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

// Registrar answers with the pools that Set gave it. Its methods may be called
// concurrently.
type Registrar struct {
	r *hunttest.Registrar

	mu    sync.Mutex
	pools map[param.PoolHandle]*asap.HandleResolutionResponse
}

// New starts a registrar; Stop ends it.
func New() (*Registrar, error) {
	l := &Registrar{pools: map[param.PoolHandle]*asap.HandleResolutionResponse{}}
	var err error
	l.r, err = hunttest.Start(tcp.New(), netip.MustParseAddrPort("127.0.0.1:0"), l.answer)
	return l, err
}

// Start starts a registrar, which ends with the test.
func Start(t testing.TB) *Registrar {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return l
}

func (l *Registrar) answer(msg asap.Message) []asap.Message {
	q, ok := msg.(*asap.HandleResolution)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if response := l.pools[q.Handle]; response != nil {
		return []asap.Message{response}
	}
	return []asap.Message{&asap.HandleResolutionResponse{Handle: q.Handle, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}}
}

// Stop ends the registrar.
func (l *Registrar) Stop() { l.r.Stop() }

// Set gives the pool these elements, in this order; none removes it.
func (l *Registrar) Set(pool param.PoolHandle, policy param.PolicyType, elements ...param.PoolElement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pools, pool)
	if len(elements) > 0 {
		l.pools[pool] = &asap.HandleResolutionResponse{Handle: pool, Policy: param.Policy{Type: policy}, Elements: elements}
	}
}

// Reports returns the elements reported as unreachable, once each, in order of their
// identifiers.
func (l *Registrar) Reports() []param.PEID {
	var out []param.PEID
	for _, m := range l.r.Received() {
		if report, ok := m.Message.(*asap.EndpointUnreachable); ok {
			out = append(out, report.ID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Requests returns how many resolutions were asked for.
func (l *Registrar) Requests() int {
	n := 0
	for _, m := range l.r.Received() {
		if _, ok := m.Message.(*asap.HandleResolution); ok {
			n++
		}
	}
	return n
}

// User returns a running resolver that asks this registrar and ends with the test.
func (l *Registrar) User(t testing.TB) *pooluser.Resolver {
	t.Helper()
	r, err := pooluser.New(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	t.Cleanup(r.Stop)
	return r
}

// Config is the configuration of a resolver that asks this registrar.
func (l *Registrar) Config() pooluser.Config {
	at := transport.Endpoint{Network: transport.TCP, Hosts: []string{l.r.Addr().Addr().String()}, Port: l.r.Addr().Port()}
	return pooluser.Config{Registrars: []transport.Endpoint{at}, Networks: transport.NewNetworks(tcp.New())}
}

// Element returns an element that serves by TCP at the address, such as
// "127.0.0.1:80".
func Element(id param.PEID, at string) param.PoolElement {
	addr := netip.MustParseAddrPort(at)
	return param.PoolElement{
		ID: id, Life: 300, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: addr.Port(), Addrs: []netip.Addr{addr.Addr()}},
	}
}
