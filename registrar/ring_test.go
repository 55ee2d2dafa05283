package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp/ring"
	"rserpool/registrar/admin"
	"rserpool/registrar/replica"
)

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

// A registrar that was left out looks for the others for two probe intervals before it
// takes their elements over.
func TestRegistrarThatWasLeftOutTakesOverLater(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		w.startAll()
		p := w.members[1].element()
		p.join(pool, p.element(1))
		w.wantKnown(pool, 1)
		r := w.members[0].r
		w.fake.do(func() {
			w.fake.leftOut = true
			for _, m := range w.members {
				w.fake.install(ring.CauseNoAck, m.r.ring.group.(*fakeGroup))
			}
		})
		home := func(want param.RegistrarID) {
			t.Helper()
			synctest.Wait()
			if got := r.space.Elements(nil, pool, 0, 1)[0].Home().ID; got != want {
				t.Errorf("the element's home is %v, want %v", got, want)
			}
		}
		w.after(2*r.cfg.Ring.Timers.ProbeInterval - time.Millisecond)
		home(w.members[1].id)
		w.after(2 * time.Millisecond)
		home(w.members[0].id)
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
		w.startApart()
		w.meetSlowly()
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
		w.hold(false)
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
		w.hold(true)
		w.after(time.Minute)
		w.hold(false)
		w.until("both serve", time.Minute, func() bool { return m.r.ready.Load() && other.r.ready.Load() })
	})
}

func TestNothingIsDeniedWhileSidesMeet(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		one, two := w.members[0], w.members[1]
		w.startApart()
		p := two.element()
		p.join(pool, p.element(1))
		u, lost := one.user(), one.user()
		if m := u.resolve(pool); len(m.Elements) > 0 || m.Error == nil {
			t.Fatal("known already")
		}
		w.meetSlowly()
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
		w.hold(false)
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
		w.startApart()
		u := w.members[0].user()
		w.meetSlowly()
		u.say(&asap.HandleResolution{Handle: pool})
		w.after(heldFor + time.Second)
		w.hold(false)
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
		w.hold(false)
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
		w.hold(false)
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
