package registrar

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/enrp/ring"
)

// Of two live registrars under one identifier the one that is alone ends; if both are,
// the one that started later; if none is, the one in the lower view. A clash of others is
// only shown.
func TestRegistrarWhoseIdentifierIsTakenEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members int
		company int  // members of the other's view
		later   bool // this one started later, or is in the lower view
		own     bool
		ends    bool
	}{
		{"alone, the other in a ring, later", 1, 3, true, true, true},
		{"alone, the other in a ring, earlier", 1, 3, false, true, true},
		{"in a ring, the other alone, later", 2, 1, true, true, false},
		{"in a ring, the other alone, earlier", 2, 1, false, true, false},
		{"both alone, later", 1, 1, true, true, true},
		{"both alone, earlier", 1, 1, false, true, false},
		{"both in rings, lower view", 2, 2, true, true, true},
		{"both in rings, higher view", 2, 2, false, true, false},
		{"another member's identifier", 2, 0, true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inRing(t, 2, true, func(w *ringWorld) {
				for i := range tt.members {
					w.members[i].start()
				}
				if tt.members > 1 {
					w.meet(w.members[0], w.members[1])
				}
				r := w.members[0].r
				w.until("ready", time.Minute, func() bool { return r.ready.Load() })
				synctest.Wait()
				r.post(func(now time.Time) {
					self := r.ring.group.Self()
					c := ring.Clash{Mine: self}
					c.View.Members = make([]ring.Node, tt.company)
					if tt.later {
						c.View.ID.Counter = r.ring.view.Counter + 1
					}
					for _, n := range r.ring.members {
						if !tt.own && n.Member != self.Member {
							c.Mine = n
						}
					}
					c.Other = c.Mine
					c.Other.Incarnation++
					if tt.later {
						c.Other.Incarnation -= 2
					}
					r.ring.accept([]ring.Event{c}, now)
				})
				synctest.Wait()
				select {
				case err := <-r.failed:
					if !tt.ends || !errors.Is(err, ErrIdentifierTaken) || r.ready.Load() {
						t.Errorf("ends: %v", err)
					}
				default:
					if tt.ends || !r.ready.Load() {
						t.Error("it goes on, or is not ready")
					}
				}
				if len(r.shown.clashes) != 1 {
					t.Errorf("shown: %v", r.shown.clashes)
				}
			})
		})
	}
}

// What was asked of it before may be ordered in a view of itself alone, of which the
// registrars that have its identifier taken learn nothing.
func TestRegistrarWhoseIdentifierIsTakenAcknowledgesNothingMore(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(map[bool]string{false: "not taken", true: "taken"}[taken], func(t *testing.T) {
			inRing(t, 3, true, func(w *ringWorld) {
				w.startAll()
				r := w.members[0].r
				p, q := w.members[0].element(), w.members[0].element()
				q.join(pool, q.element(2))
				w.fake.set(func() { w.fake.unstable = true })
				p.say(&asap.Registration{Handle: pool, Element: p.element(1)})
				q.say(&asap.Deregistration{Handle: pool, ID: 2})
				synctest.Wait()
				if taken {
					r.post(func(now time.Time) {
						c := ring.Clash{Mine: r.ring.group.Self()}
						c.Other = c.Mine
						c.Other.Incarnation++
						c.View.ID.Counter = r.ring.view.Counter + 1
						c.View.Members = make([]ring.Node, 3)
						r.ring.accept([]ring.Event{c}, now)
					})
					synctest.Wait()
				}
				w.fake.set(func() { w.fake.unstable = false })
				w.fake.do(func() { r.ring.group.(*fakeGroup).settle() })
				synctest.Wait()
				if taken {
					p.silence()
					q.silence()
					return
				}
				one[*asap.RegistrationResponse](p)
				one[*asap.DeregistrationResponse](q)
			})
		})
	}
}
