package registrar

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/enrp/ring"
	"rserpool/registrar/admin"
)

// ringWorld is a ring of registrars, each on a machine of its own, and raw peers.
type ringWorld struct {
	*world
	fake    *fakeRing // nil: a real ring
	change  []func(*Config)
	members []*ringMember
}

type ringMember struct {
	w       *ringWorld
	machine string
	addr    netip.Addr
	id      param.RegistrarID
	r       *Registrar // nil after its end
}

func (m *ringMember) at() netip.AddrPort { return netip.AddrPortFrom(m.addr, asapAddr.Port()) }

const ringPort = 9902

// inRing runs f with n registrars that are not started yet, over a real ring or a
// fake one.
func inRing(t *testing.T, n int, fake bool, f func(w *ringWorld), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &ringWorld{world: &world{T: t, net: mem.NewNetwork(1), made: make(map[string]bool)}, change: change}
		if fake {
			w.fake = newFakeRing()
			defer w.fake.close()
		}
		defer func() { // also when f fails
			for _, p := range w.peers {
				p.leave()
			}
			for _, m := range w.members {
				m.stop()
			}
		}()
		for i := range n {
			w.members = append(w.members, &ringMember{
				w: w, machine: fmt.Sprintf("r%d", i+1), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)}), id: param.RegistrarID(0x0a0a0a01 + i),
			})
		}
		f(w)
	})
}

// start starts a registrar, for the first time or again.
func (m *ringMember) start() {
	w := m.w
	w.Helper()
	cfg := w.config(m.machine, m.addr.String(), w.change...)
	cfg.ID = m.id
	cfg.Ring.Networks = cfg.Networks
	cfg.Ring.Listen = []transport.Endpoint{{Network: transport.Mem, Hosts: []string{m.addr.String()}, Port: ringPort}}
	for _, other := range w.members {
		cfg.Ring.Peers = append(cfg.Ring.Peers, transport.Endpoint{Network: transport.Mem, Hosts: []string{other.addr.String()}, Port: ringPort})
	}
	r, err := New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	if w.fake != nil {
		r.newGroup = w.fake.group
	}
	if err := r.Start(context.Background()); err != nil {
		w.Fatal(err)
	}
	m.r = r
	synctest.Wait()
}

// stop stops a registrar politely.
func (m *ringMember) stop() {
	if m.r == nil {
		return
	}
	if err := m.r.Stop(context.Background()); err != nil {
		m.w.Errorf("Stop %s: %v", m.machine, err)
	}
	m.r = nil
	synctest.Wait()
}

func (m *ringMember) kill() {
	m.w.kill(m.machine, m.r)
	m.r = nil
}

// kill ends a registrar as SIGKILL does. What is left of it runs on without
// network.
func (w *ringWorld) kill(machine string, r *Registrar) {
	w.net.Kill(machine)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.Stop(ctx) // can't leave
	synctest.Wait()
}

// startAll starts all registrars and waits until they serve in one view.
func (w *ringWorld) startAll() {
	w.Helper()
	for _, m := range w.members {
		m.start()
	}
	if w.fake != nil {
		w.meet(w.members...)
	}
	w.ready()
}

// startApart starts all registrars of a fake ring, which serve each for itself.
func (w *ringWorld) startApart() {
	w.Helper()
	for _, m := range w.members {
		m.start()
	}
	w.until("each serves alone", time.Minute, func() bool {
		return !slices.ContainsFunc(w.members, func(m *ringMember) bool { return !m.r.ready.Load() })
	})
}

// hold stops a fake ring, or lets it go on.
func (w *ringWorld) hold(held bool) { w.fake.set(func() { w.fake.held = held }) }

// meetSlowly puts all members of a fake ring into one view, and stops it before its END.
func (w *ringWorld) meetSlowly() {
	groups := fakeGroups(w.members)
	w.fake.do(func() { // at once, before any member answers the install
		w.fake.install(ring.CauseMerge, groups...)
		w.hold(true)
	})
	synctest.Wait()
}

// part cuts all links between two groups of a real ring, and waits until each serves
// for itself.
func (w *ringWorld) part(left, right []*ringMember) {
	w.Helper()
	links(left, right, w.net.Cut)
	w.until("two sides", 10*time.Second, func() bool { return w.together(left...) && w.together(right...) })
}

// heal connects them again, and waits until all are one ring. It returns how long that
// took.
func (w *ringWorld) heal(left, right []*ringMember) time.Duration {
	w.Helper()
	links(left, right, w.net.Heal)
	return w.until("one ring", 10*time.Second, func() bool { return w.together(w.members...) })
}

func links(left, right []*ringMember, do func(a, b string)) {
	for _, a := range left {
		for _, b := range right {
			do(a.machine, b.machine)
		}
	}
}

// until lets time pass until a condition holds, and returns how long that took.
func (w *ringWorld) until(what string, d time.Duration, condition func() bool) time.Duration {
	w.Helper()
	start := time.Now()
	for synctest.Wait(); !condition(); synctest.Wait() {
		if time.Since(start) >= d {
			w.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// ready waits until all registrars serve in one view.
func (w *ringWorld) ready() {
	w.Helper()
	defer func() {
		if w.Failed() {
			w.describe()
		}
	}()
	w.until("all ready in one view", 20*time.Second, func() bool { return w.together(w.members...) })
}

// describe writes how the members are.
func (w *ringWorld) describe() {
	for _, m := range w.members {
		if m.r == nil {
			w.Logf("%s is down", m.machine)
			continue
		}
		st, err := m.r.ring.group.Status(context.Background())
		w.Logf("%s: ready %v, unsure %v, synced %v, %v; replica %+v; ring %+v", m.machine, m.r.ready.Load(), m.r.unsure.Load(), st.Synced, err, m.r.ring.replica.Stats(), st.Status)
		for _, p := range st.Peers {
			w.Logf("    %+v", p)
		}
	}
}

// together reports whether these registrars serve in one view of their own.
func (w *ringWorld) together(members ...*ringMember) bool {
	for _, m := range members {
		if m.r == nil || !m.r.ready.Load() || m.r.unsure.Load() {
			return false
		}
		if w.fake == nil {
			st, err := m.r.ring.group.Status(context.Background())
			if err != nil || len(st.View.Members) != len(members) || st.Synced != st.View.ID {
				return false
			}
		}
	}
	return true
}

// element makes a peer at a registrar that accepts associations.
func (m *ringMember) element() *peer {
	m.w.Helper()
	p := m.w.host()
	p.calm = true
	p.listen()
	p.connect(m.at())
	return p
}

// user makes a peer that asks.
func (m *ringMember) user() *peer {
	m.w.Helper()
	p := m.w.host()
	p.connect(m.at())
	return p
}

// knows returns the elements that a registrar has of the pool.
func (m *ringMember) knows(handle param.PoolHandle) []param.PEID {
	var out []param.PEID
	for _, r := range m.r.space.Elements(nil, handle, 0, 1000) {
		out = append(out, r.ID)
	}
	return out
}

func (w *ringWorld) wantKnown(handle param.PoolHandle, want ...param.PEID) {
	w.Helper()
	synctest.Wait()
	for _, m := range w.members {
		if m.r == nil {
			continue
		}
		if got := m.knows(handle); !slices.Equal(got, want) {
			w.Errorf("%s knows %v, want %v", m.machine, got, want)
		}
	}
}

// meet puts members of a fake ring into one view.
func (w *ringWorld) meet(members ...*ringMember) {
	groups := fakeGroups(members)
	w.fake.do(func() { w.fake.install(ring.CauseMerge, groups...) })
}

func fakeGroups(members []*ringMember) (groups []*fakeGroup) {
	for _, m := range members {
		groups = append(groups, m.r.ring.group.(*fakeGroup))
	}
	return groups
}

// ringOf is what administrators see of the ring.
func (w *ringWorld) ringOf(m *ringMember) admin.Ring {
	w.Helper()
	r, err := backend{m.r}.Ring(w.Context())
	if err != nil {
		w.Error(err)
	}
	return r
}

// elsewhere makes a peer on the same machine that is connected to another registrar.
func (p *peer) elsewhere(m *ringMember) *peer {
	p.w.Helper()
	q := &peer{w: p.w, host: p.host, addrs: p.addrs, ppid: p.ppid, calm: true, acks: make(map[param.PoolHandle][]param.PEID)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	p.w.peers = append(p.w.peers, q)
	q.connect(m.at())
	return q
}

// try connects if that is possible.
func (p *peer) try(to netip.AddrPort) {
	c, err := p.host.Dial(p.ctx, nil, []netip.AddrPort{to}, transport.Options{})
	if err != nil {
		return
	}
	p.conn = c
	p.group.Go(func() { p.receive(c) })
}

func ringConfig(f func(*RingConfig)) func(*Config) { return func(c *Config) { f(&c.Ring) } }
