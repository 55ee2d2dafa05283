package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/enrp/ring"
	"rserpool/registrar/admin"
	"rserpool/registrar/replica"
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

// kill ends a registrar as SIGKILL does. What is left of it runs on without
// network.
func (m *ringMember) kill() {
	m.w.net.Kill(m.machine)
	r := m.r
	m.r = nil
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
		out = append(out, r.Element.ID)
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
	var groups []*fakeGroup
	for _, m := range members {
		groups = append(groups, m.r.ring.group.(*fakeGroup))
	}
	w.fake.do(func() { w.fake.install(ring.CauseMerge, groups...) })
}

func ringConfig(f func(*RingConfig)) func(*Config) { return func(c *Config) { f(&c.Ring) } }

func TestRegistrationIsAnsweredWhenEveryMemberHasIt(t *testing.T) {
	inRing(t, 3, true, func(w *ringWorld) {
		w.startAll()
		p := w.members[0].element()
		p.answerFor(pool, 1)
		w.fake.set(func() { w.fake.unstable = true })
		p.say(&asap.Registration{Handle: pool, Element: p.element(1)})
		w.wantKnown(pool, 1)
		p.silence()
		// Nothing makes a refusal of it while it may still come true.
		w.after(time.Minute)
		p.silence()
		w.fake.set(func() { w.fake.unstable = false })
		w.fake.do(func() { w.members[0].r.ring.group.(*fakeGroup).settle() })
		if m := one[*asap.RegistrationResponse](p); m.Reject {
			t.Errorf("rejected: %v", m.Error)
		}
	})
}

func TestAcknowledgementIsLocalWhereThatWasChosen(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		w.startAll()
		w.fake.set(func() { w.fake.unstable = true })
		w.members[0].element().join(pool, w.peers[0].element(1))
	}, ringConfig(func(c *RingConfig) { c.Ack = replica.Ack{Local: true} }))
}

func TestAcknowledgementWaitsForEnoughMembers(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one, two := w.members[0], w.members[1]
		one.start()
		w.until("ready", time.Minute, func() bool { return one.r.ready.Load() })
		p := one.element()
		p.answerFor(pool, 1)
		p.say(&asap.Registration{Handle: pool, Element: p.element(1)})
		w.after(time.Minute)
		p.silence()
		if r := w.ringOf(one); r.HeldAnswers != 1 || r.Wanted != 2 || r.Ack != "min-members=2" || r.Exchange != nil {
			t.Errorf("shown: %+v", r)
		}
		two.start()
		w.meet(one, two)
		w.until("answer", time.Minute, func() bool { return len(p.heard()) == 1 })
		if r := w.ringOf(one); r.HeldAnswers != 0 {
			t.Errorf("shown: %+v", r)
		}
		w.wantKnown(pool, 1)
	}, ringConfig(func(c *RingConfig) { c.Ack = replica.Ack{MinMembers: 2} }))
}

// Clients that give up and ask again must not fill the memory of a registrar that
// lacks others.
func TestAnswersThatWaitForMembersAreBounded(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one := w.members[0]
		one.start()
		w.r = one.r
		w.until("ready", time.Minute, func() bool { return one.r.ready.Load() })
		p := one.element()
		for i := range param.PEID(4) {
			p.say(&asap.Registration{Handle: pool, Element: p.element(i + 1)})
		}
		p.silence()
		p.say(&asap.Registration{Handle: pool, Element: p.element(5)})
		w.wantCauses(errorOf(t, p), param.CauseLackOfResources)
		if n := w.exceeded("ring_backlog"); n != 1 {
			t.Errorf("counted %d", n)
		}
		proposed := make(chan int, 1)
		one.r.post(func(time.Time) { proposed <- len(one.r.owner.proposed) })
		if n := <-proposed; n != 4 {
			t.Errorf("%d proposals are kept, want 4", n)
		}
		w.members[1].start()
		w.meet(one, w.members[1])
		w.until("answers", time.Minute, func() bool { return len(p.heard()) == 4 })
		p.join(pool, p.element(5))
	}, ringConfig(func(c *RingConfig) { c.Ack, c.Limits.QueueProposals = replica.Ack{MinMembers: 2}, 4 }))
}

func errorOf(t *testing.T, p *peer) param.OperationError {
	t.Helper()
	m := one[*asap.RegistrationResponse](p)
	if !m.Reject {
		t.Error("not rejected")
	}
	return m.Error
}

// Others wait for what a member has to tell them, until it is out of the view.
func TestRegistrarDoesNotLeaveInTheMiddleOfAnExchange(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one, two := w.members[0], w.members[1]
		for _, m := range w.members {
			m.start()
		}
		w.until("both serve alone", time.Minute, func() bool { return one.r.ready.Load() && two.r.ready.Load() })
		w.meet(one, two)
		w.fake.do(func() { w.fake.set(func() { w.fake.held = true }) }) // after the install
		synctest.Wait()
		group := two.r.ring.group.(*fakeGroup)
		leaving := func() (is bool) {
			w.fake.set(func() { is = group.leaving })
			return is
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			two.stop()
		}()
		w.after(time.Second)
		if leaving() {
			t.Error("it begins to leave before END")
		}
		w.fake.set(func() { w.fake.held = false })
		<-stopped
		if one.r.unsure.Load() {
			t.Error("the other still waits")
		}
	})
}

func TestJoiningRegistrarKeepsItsDoorsClosed(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		m := w.members[0]
		m.start()
		// Nobody is there, and it does not know yet.
		user := w.host()
		refused := func() bool {
			c, err := user.host.Dial(user.ctx, nil, []netip.AddrPort{m.at()}, transport.Options{})
			if err == nil {
				c.Abort()
			}
			return err != nil
		}
		if !refused() || m.r.ready.Load() {
			t.Error("a joining registrar takes connections or is ready")
		}
		if _, err := m.r.Submit(user.ctx, nil); err == nil {
			t.Error("it takes commands")
		}
		turnedAway(t, m.r)
		w.until("serve alone", time.Minute, func() bool { return m.r.ready.Load() })
		if refused() {
			t.Error("a registrar that serves refuses connections")
		}
		// Another one joins, and the exchange takes its time.
		other := w.members[1]
		other.start()
		w.meet(m, other)
		w.fake.set(func() { w.fake.held = true })
		w.after(time.Minute)
		w.fake.set(func() { w.fake.held = false })
		w.until("both serve", time.Minute, func() bool { return m.r.ready.Load() && other.r.ready.Load() })
	})
}

func TestNothingIsDeniedWhileSidesMeet(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one, two := w.members[0], w.members[1]
		for _, m := range w.members {
			m.start()
		}
		w.until("both serve alone", time.Minute, func() bool { return one.r.ready.Load() && two.r.ready.Load() })
		p := two.element()
		p.join(pool, p.element(1))
		u, lost := one.user(), one.user()
		if m := u.resolve(pool); len(m.Elements) > 0 || m.Error == nil {
			t.Fatal("known already")
		}
		w.meet(one, two)
		w.fake.do(func() { w.fake.set(func() { w.fake.held = true }) }) // after the install
		synctest.Wait()
		u.say(&asap.HandleResolution{Handle: pool})
		u.say(&asap.HandleResolution{Handle: "other"})
		u.silence()
		start := time.Now()
		for a, b := range map[*ringMember]*ringMember{one: two, two: one} {
			if x := w.ringOf(a).Exchange; x == nil || start.Sub(x.Since) > time.Second || len(x.With) != 1 || x.With[0] != b.r.id.String() || len(x.Awaited) != 1 || x.Awaited[0] != x.With[0] {
				t.Errorf("exchange as shown: %+v", x)
			}
		}
		if b := (backend{one.r}); !b.Ready() || b.Certain() {
			t.Errorf("ready %v, certain %v", b.Ready(), b.Certain())
		}
		w.fake.set(func() { w.fake.held = false })
		var answers []string
		for _, m := range u.heard() {
			answer := m.(*asap.HandleResolutionResponse)
			answers = append(answers, fmt.Sprint(answer.Handle, ids(answer.Elements)))
		}
		if fmt.Sprint(answers) != "[EchoPool[PE-1] other[]]" && fmt.Sprint(answers) != fmt.Sprintf("[EchoPool%v other[]]", []param.PEID{1}) {
			t.Errorf("answers %v", answers)
		}
		lost.silence()
		if x := w.ringOf(one).Exchange; x != nil || !(backend{one.r}).Certain() {
			t.Errorf("after END: exchange %+v", x)
		}
	})
}

// What a client gets no answer to it asks another registrar.
func TestWhatCannotBeDeniedForLongIsNotAnswered(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one, two := w.members[0], w.members[1]
		for _, m := range w.members {
			m.start()
		}
		w.until("both serve alone", time.Minute, func() bool { return one.r.ready.Load() && two.r.ready.Load() })
		u := one.user()
		w.meet(one, two)
		w.fake.do(func() { w.fake.set(func() { w.fake.held = true }) })
		synctest.Wait()
		u.say(&asap.HandleResolution{Handle: pool})
		w.after(heldFor + time.Second)
		w.fake.set(func() { w.fake.held = false })
		w.after(time.Second)
		u.silence()
		if m := u.resolve(pool); m.Error == nil {
			t.Error("the next request is not answered")
		}
	})
}

func TestRegistrationsAreRefusedWhenTooManyWaitForTheRing(t *testing.T) {
	inRing(t, 1, true, func(w *ringWorld) {
		w.startAll()
		w.r = w.members[0].r
		w.fake.set(func() { w.fake.room, w.fake.held = 3, true })
		p := w.members[0].element()
		for i := range param.PEID(7) {
			p.say(&asap.Registration{Handle: pool, Element: p.element(i + 1)})
		}
		p.silence()
		// Three in the ring and four in the backlog; the next is one too many.
		p.say(&asap.Registration{Handle: pool, Element: p.element(8)})
		m := one[*asap.RegistrationResponse](p)
		w.wantCauses(m.Error, param.CauseLackOfResources)
		if n := w.exceeded("ring_backlog"); !m.Reject || m.ID != 8 || n != 1 {
			t.Errorf("rejected %v %v, counted %d", m.Reject, m.ID, n)
		}
		w.fake.set(func() { w.fake.held = false })
		synctest.Wait()
		if got := len(p.heard()); got != 7 {
			t.Errorf("%d answers, want 7", got)
		}
		p.join(pool, p.element(8))
	}, ringConfig(func(c *RingConfig) { c.Limits.QueueProposals = 4 }))
}

func TestOctetsThatWaitForTheRingAreBounded(t *testing.T) {
	inRing(t, 1, true, func(w *ringWorld) {
		w.startAll()
		w.r = w.members[0].r
		w.fake.set(func() { w.fake.room, w.fake.held = 1, true })
		p := w.members[0].element()
		long := param.PoolHandle(strings.Repeat("x", 8000))
		for i := range param.PEID(4) { // one is in the ring
			p.say(&asap.Registration{Handle: long, Element: p.element(i + 1)})
		}
		p.silence()
		p.say(&asap.Registration{Handle: long, Element: p.element(5)})
		w.wantCauses(errorOf(t, p), param.CauseLackOfResources)
		w.fake.set(func() { w.fake.held = false })
		synctest.Wait()
		if got := len(p.heard()); got != 4 {
			t.Errorf("%d answers, want 4", got)
		}
		p.join(long, p.element(5))
	}, ringConfig(func(c *RingConfig) { c.Limits.QueueOctets = 20000 }))
}

func TestRingThatEndsTakesTheRegistrarWithIt(t *testing.T) {
	// See Run: the process that runs a registrar is to know.
	inRing(t, 1, true, func(w *ringWorld) {
		w.startAll()
		r := w.members[0].r
		r.post(func(time.Time) {
			r.owner.ring.group = endedGroup{r.owner.ring.group}
		})
		synctest.Wait()
		r.post(func(time.Time) {})
		synctest.Wait()
		if r.ready.Load() {
			t.Error("still ready")
		}
		turnedAway(t, r)
		select {
		case err := <-r.failed:
			if err == nil {
				t.Error("no reason")
			}
		default:
			t.Error("Run is not told")
		}
	})
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

// turnedAway checks what administrators hear of a registrar that serves nobody.
func turnedAway(t *testing.T, r *Registrar) {
	t.Helper()
	b := backend{r}
	if b.Ready() || b.Certain() {
		t.Errorf("ready %v, certain %v", b.Ready(), b.Certain())
	}
	if _, err := b.Register(t.Context(), pool, param.PoolElement{ID: 1, Policy: param.Policy{Type: param.RoundRobin}}); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("registration: %v", err)
	}
	if _, err := b.Remove(t.Context(), pool, 1); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("removal: %v", err)
	}
}

type endedGroup struct{ ringGroup }

func (endedGroup) Done() <-chan struct{} { c := make(chan struct{}); close(c); return c }
func (endedGroup) Err() error            { return context.DeadlineExceeded }

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

func TestJoiningRegistrarIsNotAnnounced(t *testing.T) {
	inRing(t, 1, true, func(w *ringWorld) {
		m := w.members[0]
		w.change = append(w.change, func(c *Config) {
			c.Announce = []func(context.Context) (transport.Announcer, error){
				func(context.Context) (transport.Announcer, error) { return w.net.Host(m.machine).Announcer(group) },
			}
		})
		m.start()
		if got := w.hear(m.id, 2*time.Second); len(got) > 0 {
			t.Errorf("%d announcements before it serves", len(got))
		}
		select {
		case <-m.r.Serving():
			t.Error("it says that it serves")
		default:
		}
		<-m.r.Serving()
		got := w.hear(m.id, 3*time.Second)
		if len(got) < 2 {
			t.Fatalf("%d announcements in 3 s", len(got))
		}
		if a := got[0].Transports; len(a) != 1 || a[0].Port != asapAddr.Port() {
			t.Errorf("announced %+v", a)
		}
	}, ringConfig(func(c *RingConfig) {
		c.JoinWait = 5 * time.Second
		c.Peers = []transport.Endpoint{{Network: transport.Mem, Hosts: []string{"192.0.2.199"}, Port: ringPort}}
	}))
}
