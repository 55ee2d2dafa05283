package registrar

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// These scenes run on a real ring, in virtual time.

// asker is a user that asks a registrar for the pool all the time, and connects
// again where it has to.
type asker struct {
	w       *ringWorld
	m       *ringMember
	p       *peer
	answers int
	last    time.Time // of the latest answer
	gap     time.Duration
}

func (w *ringWorld) askers() []*asker {
	var out []*asker
	for _, m := range w.members {
		out = append(out, &asker{w: w, m: m, p: w.host(), last: time.Now()})
	}
	return out
}

// ask has all askers ask once and fails the test at an answer that is not right:
// these elements.
func (w *ringWorld) ask(askers []*asker, want ...param.PEID) {
	w.Helper()
	for _, a := range askers {
		if a.p.conn == nil || a.p.closed() {
			a.connect()
		}
		if a.p.conn == nil {
			continue
		}
		a.p.sendOn(a.p.conn, &asap.HandleResolution{Handle: pool})
	}
	synctest.Wait()
	for _, a := range askers {
		for _, m := range a.p.heard() {
			answer, ok := m.(*asap.HandleResolutionResponse)
			if !ok {
				continue
			}
			got := ids(answer.Elements)
			slices.Sort(got)
			if answer.Error != nil || !slices.Equal(got, want) {
				w.Errorf("%v: user at %s is told %v %v, want %v", time.Now(), a.m.machine, got, answer.Error, want)
			}
			a.gap = max(a.gap, time.Since(a.last))
			a.last = time.Now()
			a.answers++
		}
	}
}

func (a *asker) connect() {
	a.p.mu.Lock()
	a.p.ended = nil
	a.p.mu.Unlock()
	a.p.conn = nil
	a.p.try(a.m.at())
}

// watched runs f and has the askers ask every 10 ms meanwhile, and for so long
// afterwards.
func (w *ringWorld) watched(askers []*asker, d time.Duration, want ...param.PEID) {
	w.Helper()
	for start := time.Now(); time.Since(start) < d; time.Sleep(10 * time.Millisecond) {
		w.ask(askers, want...)
	}
}

// populate registers elements, one after the other at the members.
func (w *ringWorld) populate(n int) (elements []*peer, all []param.PEID) {
	w.Helper()
	for i := range n {
		p := w.members[i%len(w.members)].element()
		id := param.PEID(i + 1)
		p.join(pool, p.element(id))
		elements, all = append(elements, p), append(all, id)
		// What is answered is known at all.
		w.wantKnown(pool, all...)
	}
	return elements, all
}

// homes returns how many elements each registrar is home to, as one of them sees it.
func (w *ringWorld) homes() map[param.RegistrarID]int {
	out := make(map[param.RegistrarID]int)
	for _, m := range w.members {
		if m.r != nil {
			for _, r := range m.r.space.Elements(nil, pool, 0, 1000) {
				if r.Confirmed {
					out[r.Element().Home]++
				}
			}
			return out
		}
	}
	return out
}

// alike fails unless all registrars know the same to the last detail.
func (w *ringWorld) alike() bool {
	synctest.Wait()
	var sums []string
	for _, m := range w.members {
		if m.r != nil {
			d := m.r.space.Digest()
			sums = append(sums, fmt.Sprint(d.Sum()))
		}
	}
	return len(slices.Compact(sums)) == 1
}

// told returns the latest registrar that said to an element that it is its home now.
func (p *peer) told() (home param.RegistrarID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.got {
		if k, ok := decodeASAP(a.data).(*asap.EndpointKeepAlive); ok && k.Home {
			home = k.Registrar
		}
	}
	return home
}

// scene runs f on a real ring of three registrars with so many elements, and users at all of
// them.
func scene(t *testing.T, n int, f func(w *ringWorld, elements []*peer, all []param.PEID, askers []*asker)) {
	t.Helper()
	inRing(t, 3, false, func(w *ringWorld) {
		w.startAll()
		elements, all := w.populate(n)
		f(w, elements, all, w.askers())
	})
}

func TestCrashOfAHomeGivesItsElementsNewOnes(t *testing.T) {
	scene(t, 9, func(w *ringWorld, elements []*peer, all []param.PEID, askers []*asker) {
		w.watched(askers, 100*time.Millisecond, all...)
		w.members[0].kill()
		start := time.Now()
		w.watched(askers, 2*time.Second, all...)
		w.until("confirmed homes", 5*time.Second, func() bool { h := w.homes(); return h[w.members[1].id]+h[w.members[2].id] == 9 })
		t.Logf("all confirmed within %v", time.Since(start))
		if h := w.homes(); h[w.members[1].id] < 4 || h[w.members[2].id] < 4 {
			t.Errorf("homes %v are not spread", h)
		}
		for i, p := range elements {
			if at := w.members[i%3]; at.r != nil {
				if p.told() != 0 {
					t.Errorf("element %d is told of a home that it has", i+1)
				}
			} else if home := p.told(); home != w.members[1].r.space.Get(pool, all[i]).Element().Home {
				t.Errorf("element %d was told that %v is its home", i+1, home)
			}
		}
		if !w.alike() {
			t.Error("the registrars differ")
		}
		for _, a := range askers[1:] {
			if a.gap > 20*time.Millisecond {
				t.Errorf("no answer at %s for %v", a.m.machine, a.gap)
			}
		}
	})
}

func TestCrashOfAllButOne(t *testing.T) {
	scene(t, 9, func(w *ringWorld, _ []*peer, all []param.PEID, askers []*asker) {
		w.members[0].kill()
		w.members[1].kill()
		w.watched(askers, 3*time.Second, all...)
		w.until("confirmed homes", 5*time.Second, func() bool { return w.homes()[w.members[2].id] == 9 })
	})
}

func TestRestartUnderTheSameIdentifier(t *testing.T) {
	scene(t, 6, func(w *ringWorld, _ []*peer, all []param.PEID, askers []*asker) {
		first := w.members[0].r.incarnation
		w.members[0].kill()
		// Before the others have noticed.
		time.Sleep(time.Millisecond)
		w.members[0].start()
		w.watched(askers, 3*time.Second, all...)
		w.ready()
		if again := w.members[0].r.incarnation; again <= first {
			t.Errorf("incarnation %d after %d", again, first)
		}
		w.until("confirmed homes", 5*time.Second, func() bool {
			h := w.homes()
			return h[w.members[0].id]+h[w.members[1].id]+h[w.members[2].id] == 6
		})
		w.wantKnown(pool, all...)
		if !w.alike() {
			t.Error("the registrars differ")
		}
	})
}

func TestLeavingRegistrarHandsItsElementsOver(t *testing.T) {
	scene(t, 6, func(w *ringWorld, _ []*peer, all []param.PEID, askers []*asker) {
		start := time.Now()
		w.members[0].stop()
		if d := time.Since(start); d > time.Second {
			t.Errorf("leaving took %v", d)
		}
		w.watched(askers, time.Second, all...)
		if h := w.homes(); h[w.members[1].id]+h[w.members[2].id] != 6 {
			t.Errorf("homes %v", h)
		}
	})
}

func TestSidesThatWereApartMeet(t *testing.T) {
	inRing(t, 3, false, func(w *ringWorld) {
		w.startAll()
		_, all := w.populate(6)
		one, two, three := w.members[0], w.members[1], w.members[2]
		w.part(w.members[:1], w.members[1:])
		// Either side has news; of one element both.
		p, q := one.element(), two.element()
		p.join(pool, p.element(10))
		q.join(pool, q.element(11))
		again := p.element(10)
		again.Life = 600
		w.after(10 * time.Millisecond)
		r := p.elsewhere(three)
		r.join(pool, again)
		gone := w.members[1].element()
		gone.join(pool, gone.element(12))
		gone.say(&asap.Deregistration{Handle: pool, ID: 12})
		t.Logf("one ring after %v", w.heal(w.members[:1], w.members[1:]))
		w.wantKnown(pool, append(all, 10, 11)...)
		if !w.alike() {
			t.Error("the registrars differ")
		}
		record := one.r.space.Get(pool, 10)
		if record.Element().Home != three.id || record.Element().Life != 600 {
			t.Errorf("element 10 has home %v and life %v, not those of its latest word", record.Element().Home, record.Element().Life)
		}
		one.r.shown.mu.Lock()
		defer one.r.shown.mu.Unlock()
		if len(one.r.shown.merges) == 0 || one.r.shown.merges[0].Differences < 2 {
			t.Errorf("merge reports: %+v", one.r.shown.merges)
		}
	})
}

func TestElementThatRegistersElsewhereIsForgotten(t *testing.T) {
	inRing(t, 2, false, func(w *ringWorld) {
		w.startAll()
		p := w.members[0].element()
		p.join(pool, p.element(1))
		t.Run("ASAP_3_1_32_RegistrationElsewhereMovesTheHome", func(*testing.T) {
			q := p.elsewhere(w.members[1])
			q.join(pool, q.element(1))
			synctest.Wait()
			for i, m := range w.members {
				r := m.r
				done := make(chan struct{})
				r.post(func(time.Time) {
					defer close(done)
					key := elementKey{Handle: pool, ID: 1}
					watched := r.owner.watched(key).phase != unwatched
					bound := r.owner.reach(key) != nil
					if want := i == 1; watched != want || bound != want {
						t.Errorf("%s watches the element: %v, has its connection: %v", m.machine, watched, bound)
					}
				})
				<-done
			}
		})
	})
}

// via returns the latest connection that a registrar has opened.
func (p *peer) via() transport.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.incoming[len(p.incoming)-1]
}

func TestElementThatWasTakenOverDeregistersThere(t *testing.T) {
	inRing(t, 2, false, func(w *ringWorld) {
		w.startAll()
		p := w.members[0].element()
		p.join(pool, p.element(1))
		w.members[0].kill()
		w.until("confirmed", 5*time.Second, func() bool { return w.homes()[w.members[1].id] == 1 })
		p.take()
		conn := p.via()
		p.sendOn(conn, &asap.Deregistration{Handle: pool, ID: 1})
		w.after(100 * time.Millisecond)
		one[*asap.DeregistrationResponse](p)
		w.wantKnown(pool)
		// Nobody needs the connection any more.
		w.after(time.Minute)
		if n := w.members[1].r.census.len(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// Its machine may be on the other side, not dead.
func TestElementThatDiesWithItsHomeIsHeldBack(t *testing.T) {
	inRing(t, 2, false, func(w *ringWorld) {
		w.startAll()
		p, q := w.members[0].element(), w.members[1].element()
		p.join(pool, p.element(1))
		q.join(pool, q.element(2))
		w.members[0].kill() // first, or it may see the element's end and remove it
		w.net.Kill("host1")
		r := w.members[1].r
		suspect := func() bool { e := r.space.Get(pool, 1); return e != nil && e.Suspect && !e.Held().IsZero() }
		w.until("held back", 5*time.Second, suspect)
		u := w.members[1].user()
		if got := ids(u.resolve(pool).Elements); !slices.Equal(got, []param.PEID{2}) {
			t.Errorf("users are told %v", got)
		}
		w.after(50 * time.Second)
		if !suspect() {
			t.Error("removed too soon")
		}
		w.after(90 * time.Second)
		if r.space.Get(pool, 1) != nil {
			t.Error("it is kept for ever")
		}
	})
}

func TestRegistrationDuringTheMergeIsAnsweredAfterIt(t *testing.T) {
	inRing(t, 2, true, func(w *ringWorld) {
		w.startApart()
		p := w.members[0].element()
		p.answerFor(pool, 1)
		w.meetSlowly()
		p.say(&asap.Registration{Handle: pool, Element: p.element(1)})
		p.say(&asap.Deregistration{Handle: pool, ID: 7})
		w.after(10 * time.Second)
		p.silence()
		w.hold(false)
		synctest.Wait()
		if got := p.heard(); len(got) != 2 {
			t.Errorf("answers %v", got)
		}
		w.wantKnown(pool, 1)
	})
}

func TestElementIsToldThatItWasRemovedElsewhere(t *testing.T) {
	inRing(t, 2, false, func(w *ringWorld) {
		w.startAll()
		left, two := w.members[0], w.members[1]
		p := left.element()
		p.join(pool, p.element(1))
		w.part(w.members[:1], w.members[1:])
		w.after(time.Millisecond)
		q := p.elsewhere(two)
		q.say(&asap.Deregistration{Handle: pool, ID: 1})
		if m := one[*asap.DeregistrationResponse](q); m.Error != nil {
			t.Fatalf("deregistration: %v", m.Error)
		}
		p.take()
		w.heal(w.members[:1], w.members[1:])
		w.wantKnown(pool)
		// Should it live on, it can register again.
		if m := one[*asap.DeregistrationResponse](p); m.ID != 1 || m.Error != nil {
			t.Errorf("it is told %+v", m)
		}
	})
}
