package registrar

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"rserpool/asap/param"
)

// Two registrars have the same identifier, one on each side of a partition. When it heals
// one of them ends, and nothing that either has acknowledged is lost but what only the one
// that ends knew: its log says so.
func TestTwinsOnTwoSidesMeet(t *testing.T) {
	for _, tt := range []struct {
		name        string
		left, right int // members
		lost        bool
	}{
		{"two and two", 2, 2, false}, {"two and three", 2, 3, false},
		{"one and two", 1, 2, true}, {"two and one", 2, 1, true}, {"one and one", 1, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logger, log := logtest.NewNullLogger()
			inRing(t, tt.left+tt.right, false, func(w *ringWorld) {
				left, right := w.members[:tt.left], w.members[tt.left:]
				twins := []*ringMember{left[len(left)-1], right[0]}
				twins[1].id = twins[0].id
				for _, m := range w.members {
					w.config(m.machine, m.addr.String()) // makes the machine
				}
				links(left, right, w.net.Cut)
				for _, m := range w.members {
					w.after(time.Millisecond) // two that start at once would be one
					m.start()
				}
				w.until("two sides", time.Minute, func() bool { return w.together(left...) && w.together(right...) })
				acknowledged := map[*ringMember]param.PEID{}
				for i, m := range w.members {
					p := m.element()
					acknowledged[m] = param.PEID(i + 1)
					p.join(pool, p.element(acknowledged[m]))
				}
				links(left, right, w.net.Heal)
				var ended *ringMember
				w.until("one of them ends", 10*time.Second, func() bool {
					ended = w.ended(twins)
					return ended != nil
				})
				families, err := ended.r.metrics.registry.Gather()
				counted := 0.0
				for _, f := range families {
					if f.GetName() == "rserpool_ring_clashes_total" {
						counted = f.Metric[0].Counter.GetValue()
					}
				}
				if err != nil || counted == 0 {
					t.Errorf("%v counted, %v", counted, err)
				}
				ended.stop() // as rspd does
				live := slices.DeleteFunc(slices.Clone(w.members), func(m *ringMember) bool { return m == ended })
				w.until("one ring", 10*time.Second, func() bool { return w.together(live...) })
				if other := w.ended(twins); other != nil {
					t.Errorf("%s ends, too", other.machine)
				}
				if tt.lost {
					delete(acknowledged, ended)
				}
				var want []param.PEID
				for _, id := range acknowledged {
					want = append(want, id)
				}
				slices.Sort(want)
				w.wantKnown(pool, want...)
				if !w.alike() {
					t.Error("the registrars differ")
				}
				said := 0
				for _, e := range log.AllEntries() {
					if strings.HasPrefix(e.Message, "ring: this registrar ends") {
						said++
						if n, lost := e.Data["elements"]; lost != tt.lost || lost && n != 1 {
							t.Errorf("log: %s, %v", e.Message, e.Data)
						}
					}
				}
				if said != 1 {
					t.Errorf("the log says %d times that a registrar ends", said)
				}
			}, func(c *Config) { c.Log = logger })
		})
	}
}

// ended returns one of the members that can't go on because its identifier is taken, nil
// if there is none.
func (w *ringWorld) ended(members []*ringMember) *ringMember {
	for _, m := range members {
		if m.r == nil {
			continue
		}
		synctest.Wait()
		select {
		case err := <-m.r.failed:
			if !errors.Is(err, ErrIdentifierTaken) {
				w.Errorf("%s: %v", m.machine, err)
			}
			return m
		default:
		}
	}
	return nil
}
