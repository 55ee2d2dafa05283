package registrar

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/enrp"
	enrppeer "rserpool/enrp/peer"
	"rserpool/registrar/admin"
	"rserpool/registrar/handlespace"
)

// single is a registrar that is in no ring.
type single struct {
	w       *ringWorld
	machine string
	addr    netip.Addr
	id      param.RegistrarID
	r       *Registrar // nil after its end
}

func enrpEndpoint(a netip.Addr) transport.Endpoint {
	return transport.Endpoint{Network: transport.Mem, Hosts: []string{a.String()}, Port: enrpAddr.Port()}
}

func mentors(addrs ...netip.Addr) func(*Config) {
	return func(c *Config) {
		for _, a := range addrs {
			c.Peering.Mentors = append(c.Peering.Mentors, enrpEndpoint(a))
		}
	}
}

// fast are times for peers by which a silent one is dead after 10 s.
func fast(c *Config) {
	if c.Compat == CompatNone {
		c.Peering.Timers = enrppeer.Rsplib()
	}
}

// inScope runs f with n registrars in a ring, not started yet, and registrars that
// are in none.
func inScope(t *testing.T, n int, f func(w *ringWorld), change ...func(*Config)) {
	t.Helper()
	inRing(t, n, false, f, append(change, fast)...)
}

// single starts a registrar that is in no ring, on machine number i.
func (w *ringWorld) single(i int, change ...func(*Config)) *single {
	w.Helper()
	s := &single{w: w, machine: fmt.Sprintf("s%d", i), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(200 + i)}), id: param.RegistrarID(0x0b0b0b00 + i)}
	s.start(change...)
	w.Cleanup(s.stop)
	return s
}

func (s *single) start(change ...func(*Config)) {
	s.w.Helper()
	cfg := s.w.config(s.machine, s.addr.String(), append(slices.Clone(s.w.change), change...)...)
	cfg.ID = s.id
	r, err := New(cfg)
	if err != nil {
		s.w.Fatal(err)
	}
	if err := r.Start(context.Background()); err != nil {
		s.w.Fatal(err)
	}
	s.r = r
	synctest.Wait()
}

func (s *single) stop() {
	if s.r != nil {
		_ = s.r.Stop(context.Background())
		s.r = nil
	}
}

func (s *single) kill() {
	s.w.kill(s.machine, s.r)
	s.r = nil
}

// element makes a peer that is connected to the registrar and accepts associations.
func (s *single) element() *peer {
	s.w.Helper()
	p := s.w.host()
	p.calm = true
	p.listen()
	p.connect(netip.AddrPortFrom(s.addr, asapAddr.Port()))
	return p
}

// home is the home of an element by a registrar's word; 0: it is not known.
func home(r *Registrar, id param.PEID) param.RegistrarID {
	if record := r.space.Get(pool, id); record != nil {
		return record.Element().Home
	}
	return 0
}

// consistent reports whether registrars know the same elements, with the same homes.
func consistent(registrars ...*Registrar) bool {
	synctest.Wait()
	var all []string
	for _, r := range registrars {
		var out string
		for _, e := range r.space.Elements(nil, pool, 0, 10000) {
			out += fmt.Sprintf("%v@%v:%v ", e.ID, e.Home().ID, e.Life())
		}
		all = append(all, out)
	}
	return len(slices.Compact(all)) == 1
}

func TestTwoRegistrarsPeer(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		a := w.single(1)
		e1 := a.element()
		e1.join(pool, e1.element(1))
		b := w.single(2, mentors(a.addr))
		if home(b.r, 1) != a.id {
			t.Fatalf("not downloaded: home %v", home(b.r, 1))
		}
		e2 := b.element()
		for id := range param.PEID(20) {
			e2.join(pool, e2.element(id+2))
		}
		e2.say(&asap.Deregistration{Handle: pool, ID: 5})
		e1.say(&asap.Deregistration{Handle: pool, ID: 6}) // of the other home
		if n := len(a.r.space.Elements(nil, pool, 0, 100)); n != 20 {
			t.Errorf("%d elements", n) // 6 is not e1's to remove
		}
		if !consistent(a.r, b.r) {
			t.Error("they differ")
		}
		w.after(time.Minute)
		if !consistent(a.r, b.r) || home(a.r, 3) != b.id {
			t.Error("they differ later")
		}
		// Administrators see the peer.
		shown := backend{a.r}.Registrars()
		if len(shown) != 2 || shown[1].Role != admin.RolePeer || shown[1].ID != b.id.String() || shown[1].Elements != 19 ||
			shown[1].LastHeard == nil || len(shown[1].Endpoints) != 1 {
			t.Errorf("shown %+v", shown)
		}
	})
}

func TestENRP_3_5_2_05_SM_PRE_13_ElementsAreToldOfTheTakeover(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		a := w.single(1)
		b := w.single(2, mentors(a.addr))
		e := a.element()
		e.join(pool, e.element(1))
		w.after(10 * time.Second)
		a.kill()
		w.until("taken over", 20*time.Second, func() bool { return home(b.r, 1) == b.id })
		w.until("confirmed", 5*time.Second, func() bool { return b.r.space.Get(pool, 1).Confirmed })
		if got := e.told(); got != b.id {
			t.Errorf("told by %v", got)
		}
		w.after(time.Minute)
		if home(b.r, 1) != b.id {
			t.Error("not kept")
		}
	})
}

func TestENRP_3_2_3_15_SM_PRS_01_NobodyIsServedBeforeTheTableIsHere(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		mentor := w.host("192.0.2.250")
		mentor.ppid = transport.PPIDENRP
		mentor.addrs[0] = netip.AddrPortFrom(mentor.addrs[0].Addr(), enrpAddr.Port())
		mentor.listen()
		r := w.single(1, mentors(mentor.addrs[0].Addr()))
		user := w.host()
		try := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			c, err := user.host.Dial(ctx, nil, []netip.AddrPort{netip.AddrPortFrom(r.addr, asapAddr.Port())}, transport.Options{})
			if err == nil {
				c.Abort()
			}
			return err
		}
		if try() == nil || r.r.ready.Load() {
			t.Error("open while starting")
		}
		mentor.conn = mentor.incoming[0]
		ids := enrp.Servers{Sender: 0x77, Receiver: r.id}
		mentor.say(&enrp.ListResponse{Servers: ids})
		e := mentor.element(1)
		e.Home, e.ASAP = 0x77, param.Transport{Type: param.TypeSCTPTransport, Port: 50000, Addrs: e.User.Addrs}
		part := enrp.HandleTableResponse{Servers: ids, More: true, Pools: []enrp.Pool{{Handle: pool, Elements: []param.PoolElement{e}}}}
		mentor.say(&part)
		if try() == nil {
			t.Error("open with half a table")
		}
		mentor.say(&enrp.HandleTableResponse{Servers: ids})
		synctest.Wait()
		if err := try(); err != nil || !r.r.ready.Load() {
			t.Errorf("not open: %v", err)
		}
		if home(r.r, 1) != 0x77 {
			t.Error("table not installed")
		}
	})
}

func TestENRP_2_1_04_ENRP_3_2_1_01_TheIdentifierIsRandomAndStays(t *testing.T) {
	seen := make(map[param.RegistrarID]bool)
	for range 10 {
		inWorld(t, func(w *world) {
			id := w.r.ID()
			if id == 0 || seen[id] {
				t.Errorf("identifier %v", id)
			}
			seen[id] = true
			for range 2 {
				tool := w.tool()
				tool.say(&enrp.Presence{Servers: enrp.Servers{Sender: toolID}, ReplyRequired: true, NoChecksum: true})
				if m := oneENRP[*enrp.Presence](tool); m.Sender != id || m.Server.ID != id {
					t.Errorf("%+v, want %v", m, id)
				}
			}
		}, func(c *Config) { c.ID = 0 })
	}
}

// A ring of two and two registrars outside of it.
func TestRingWithRegistrarsOutside(t *testing.T) {
	inScope(t, 2, func(w *ringWorld) {
		a := w.single(1)
		ea := a.element()
		for id := range param.PEID(10) {
			ea.join(pool, ea.element(id+1))
		}
		w.change = append(w.change, mentors(a.addr))
		w.startAll()
		b := w.single(2)
		all := func() []*Registrar { return []*Registrar{w.members[0].r, w.members[1].r, a.r, b.r} }
		w.until("all know all", 10*time.Second, func() bool { return consistent(all()...) })
		var own []*peer
		for i, m := range w.members {
			e := m.element()
			for id := range param.PEID(10) {
				e.join(pool, e.element(param.PEID(100*(i+1))+id))
			}
			own = append(own, e)
		}
		eb := b.element()
		eb.join(pool, eb.element(1000))
		own[0].say(&asap.Deregistration{Handle: pool, ID: 100})
		ea.say(&asap.Deregistration{Handle: pool, ID: 1})
		w.until("all agree", 10*time.Second, func() bool { return consistent(all()...) })
		if n := len(b.r.space.Elements(nil, pool, 0, 100)); n != 29 {
			t.Fatalf("%d elements", n)
		}
		w.after(20 * time.Second)
		if !consistent(all()...) {
			t.Error("they don't agree any more")
		}

		// A member dies: the ring takes over, and the others hear of it.
		w.members[0].kill()
		left := []*Registrar{w.members[1].r, a.r, b.r}
		w.until("taken over", 10*time.Second, func() bool { return home(b.r, 105) == w.members[1].id && consistent(left...) })
		if got := own[0].told(); got != w.members[1].id {
			t.Errorf("told by %v", got)
		}
		w.after(20 * time.Second)
		if !consistent(left...) {
			t.Error("they don't agree after the takeover")
		}

		// It comes back: what outsiders say of the ring's elements counts nothing.
		w.members[0].start()
		w.ready()
		w.after(10 * time.Second)
		if !consistent(append(left, w.members[0].r)...) {
			t.Error("they don't agree after the return")
		}
		for _, r := range w.members[0].r.space.Elements(nil, pool, 0, 100) {
			if member := r.Element().Home == w.members[0].id || r.Element().Home == w.members[1].id; member != (r.HomeIncarnation != 0) {
				t.Errorf("%v has home %+v", r.ID, r.Home())
			}
		}

		// One outside dies.
		a.kill()
		left = []*Registrar{w.members[1].r, w.members[0].r, b.r}
		w.until("taken over", 20*time.Second, func() bool {
			h := home(b.r, 5)
			return h != 0 && h != a.id && consistent(left...)
		})
		w.after(20 * time.Second)
		if n := len(b.r.space.Elements(nil, pool, 0, 100)); n != 29 || !consistent(left...) {
			t.Errorf("%d elements, consistent %v", n, consistent(left...))
		}
	})
}

// The elements of a registrar outside that dies are spread over the ring, and a
// second member's death loses none.
func TestRingTakesAPeerOver(t *testing.T) {
	inScope(t, 3, func(w *ringWorld) {
		a := w.single(1)
		ea := a.element()
		for id := range param.PEID(9) {
			ea.join(pool, ea.element(id+1))
		}
		w.change = append(w.change, mentors(a.addr))
		w.startAll()
		w.wantKnown(pool, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		w.after(6 * time.Second)
		a.kill()
		w.until("taken over and confirmed", 20*time.Second, func() bool {
			h := w.homes()
			return h[w.members[0].id] == 3 && h[w.members[1].id] == 3 && h[w.members[2].id] == 3
		})
		if !w.alike() {
			t.Error("the members differ")
		}
	})
}

// Of several that find a peer dead at the same time one takes it over, whichever way
// they arbitrate.
func TestOneTakesOver(t *testing.T) {
	for _, compat := range []Compat{CompatNone, CompatRsplib} {
		inScope(t, 0, func(w *ringWorld) {
			a := w.single(1)
			singles := []*single{a}
			for i := range 4 {
				singles = append(singles, w.single(i+2, mentors(a.addr)))
			}
			e := a.element()
			x := e.element(1)
			x.Life = 300000
			e.join(pool, x)
			w.after(10 * time.Second)
			a.kill()
			var left []*Registrar
			for _, s := range singles[1:] {
				left = append(left, s.r)
			}
			w.until("taken over", 20*time.Second, func() bool { return home(left[0], 1) != a.id && consistent(left...) })
			first := home(left[0], 1)
			w.after(30 * time.Second)
			if got := home(left[0], 1); got != first || !consistent(left...) {
				t.Errorf("home %v, then %v; consistent %v", first, got, consistent(left...))
			}
			if got := e.told(); got != first {
				t.Errorf("told by %v, home is %v", got, first)
			}
		}, func(c *Config) { c.Compat = compat })
	}
}

// Two that start together have each other for mentors: one begins, the other
// downloads from it.
func TestTwoRegistrarsThatStartTogether(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		at := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 200 + i}) }
		w.net.Host("s1", at(1).String())
		w.net.Host("s2", at(2).String())
		w.made["s1"], w.made["s2"] = true, true
		both := mentors(at(1), at(2)) // each finds itself among them
		a, b := w.single(1, both), w.single(2, both)
		took := w.until("both serve", time.Minute, func() bool { return a.r.ready.Load() && b.r.ready.Load() })
		if took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		e := a.element()
		e.join(pool, e.element(1))
		w.until("both know", 5*time.Second, func() bool { return consistent(a.r, b.r) && home(b.r, 1) == a.id })
	})
}

// What is lost on the way is found by the audit.
func TestAuditFindsWhatWasLost(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		a := w.single(1)
		b := w.single(2, mentors(a.addr))
		e := a.element()
		e.join(pool, e.element(1))
		w.net.DropNext(func(data []byte) bool { return enrp.MessageType(data[0]) == enrp.TypeHandleUpdate && len(data) > 40 })
		e.join(pool, e.element(2))
		if home(b.r, 2) != 0 {
			t.Fatal("not lost")
		}
		w.until("found", 5*time.Second, func() bool { return consistent(a.r, b.r) })
	})
}

// A table of many parts.
func TestLargeTableIsDownloaded(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		a := w.single(1)
		const n = 3000
		now := time.Now()
		done := make(chan struct{})
		a.r.post(func(time.Time) {
			for id := range param.PEID(n) {
				where := param.Transport{Type: param.TypeSCTPTransport, Port: 7, Addrs: []netip.Addr{a.addr}}
				a.r.owner.propose(handlespace.Register{
					Handle:  param.PoolHandle(fmt.Sprintf("%s%d", pool, id%7)),
					Element: param.PoolElement{ID: id + 1, Home: a.id, Life: 3000, User: where, Policy: param.Policy{Type: param.RoundRobin}},
					Raiser:  a.id, Incarnation: a.r.incarnation, Now: now,
				}, proposal{}, now)
			}
			close(done)
		})
		<-done
		b := w.single(2, mentors(a.addr))
		w.until("all there", 10*time.Second, func() bool { return b.r.ready.Load() })
		if got := b.r.space.Counts().Elements; got != n {
			t.Errorf("%d elements", got)
		}
		if x, y := a.r.space.Home(a.id).Checksum(), b.r.space.Home(a.id).Checksum(); x != y {
			t.Errorf("checksums %#04x and %#04x", x, y)
		}
	})
}

// Multicast finds registrars that know nothing of each other.
func TestMulticastPresenceFindsPeers(t *testing.T) {
	inScope(t, 0, func(w *ringWorld) {
		group := func(c *Config) {
			c.Peering.Announce = []func(context.Context) (transport.Announcer, error){func(context.Context) (transport.Announcer, error) {
				n, err := c.Networks.Get(transport.Mem)
				if err != nil {
					return nil, err
				}
				return n.(*mem.Host).Announcer(netip.MustParseAddrPort("239.0.0.51:9901"))
			}}
		}
		a, b := w.single(1, group, asRsplib), w.single(2, group, asRsplib)
		e := a.element()
		x := e.element(1)
		x.Life = 300000
		e.join(pool, x)
		w.until("both know", 10*time.Second, func() bool { return home(b.r, 1) == a.id })
	})
}
