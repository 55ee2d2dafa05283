package selection

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
)

// userModel says in the plainest way whether a pick is right. usable are the elements
// that have not failed, in the order of the list.
type userModel interface {
	renew(list []param.PoolElement)
	check(got param.PEID, usable []param.PoolElement, r Request) error
	answered(id param.PEID, took time.Duration, now time.Time)
	unanswered(id param.PEID, took time.Duration, failed bool, now time.Time)
	sent(id param.PEID)
}

// unmeasured is a model that does not care for measurements.
type unmeasured struct{}

func (unmeasured) answered(param.PEID, time.Duration, time.Time)         {}
func (unmeasured) unanswered(param.PEID, time.Duration, bool, time.Time) {}
func (unmeasured) sent(param.PEID)                                       {}

// orderedUser has the elements behind the latest pick first.
type orderedUser struct {
	unmeasured
	turn []param.PEID
}

func (m *orderedUser) renew(list []param.PoolElement) {
	m.turn = nil
	for _, e := range list {
		m.turn = append(m.turn, e.ID)
	}
}

func (m *orderedUser) check(got param.PEID, usable []param.PoolElement, _ Request) error {
	for i, id := range m.turn {
		if slices.ContainsFunc(usable, func(e param.PoolElement) bool { return e.ID == id }) {
			m.turn = slices.Concat(m.turn[i+1:], m.turn[:i+1])
			if id != got {
				return fmt.Errorf("want %v", id)
			}
			return nil
		}
	}
	return fmt.Errorf("none is left")
}

// bestUser picks the first of those that no other is better than.
type bestUser struct {
	unmeasured
	better func(a, b param.PoolElement, r Request) bool
}

func (m *bestUser) renew([]param.PoolElement) {}

func (m *bestUser) check(got param.PEID, usable []param.PoolElement, r Request) error {
	for _, e := range usable {
		if !slices.ContainsFunc(usable, func(other param.PoolElement) bool { return m.better(other, e, r) }) {
			if e.ID != got {
				return fmt.Errorf("want %v", e.ID)
			}
			return nil
		}
	}
	return fmt.Errorf("each is worse than another")
}

// rendezvousScore works out everything anew for one key and one element.
func rendezvousScore(e param.PoolElement, r Request) float64 {
	x := (float64(mix(hashKey(r.Key)^mix(uint64(e.ID)))>>12) + 0.5) / math.Pow(2, 52)
	if e.Policy.Weight == 0 {
		return x - 1
	}
	return float64(e.Policy.Weight) / -math.Log(x)
}

// drawnUser may pick any; by load or by time, but the worst.
type drawnUser struct {
	worth func(e param.PoolElement, r Request) float64 // nil: all alike
	seen  map[param.PEID][]sample
	under map[param.PEID]int
}

type sample struct {
	took time.Duration
	at   time.Time
	none bool // no answer: it can only make things worse
}

func (m *drawnUser) renew([]param.PoolElement) {}
func (m *drawnUser) sent(id param.PEID)        { m.under[id]++ }

func (m *drawnUser) answered(id param.PEID, took time.Duration, now time.Time) {
	m.under[id] = max(0, m.under[id]-1)
	m.seen[id] = append(m.seen[id], sample{took, now, false})
}

func (m *drawnUser) unanswered(id param.PEID, took time.Duration, failed bool, now time.Time) {
	m.under[id] = max(0, m.under[id]-1)
	if failed && took < time.Second {
		took = time.Second
	}
	m.seen[id] = append(m.seen[id], sample{took, now, true})
}

// cost goes through all that was ever measured.
func (m *drawnUser) cost(e param.PoolElement, r Request) float64 {
	if len(m.seen[e.ID]) == 0 {
		if m.under[e.ID] > 0 {
			return math.Inf(1)
		}
		return 0
	}
	average, last := 0.0, time.Time{}
	for i, s := range m.seen[e.ID] {
		left := 0.0
		if i > 0 {
			left = math.Exp(-s.at.Sub(last).Seconds() / 10)
		}
		if s.none && s.took.Seconds() <= average*left {
			continue
		}
		if s.none {
			left = 0
		}
		average, last = max(s.took.Seconds(), average*left+s.took.Seconds()*(1-left)), s.at
	}
	return average * math.Exp(-r.Now.Sub(last).Seconds()/10) * float64(1+m.under[e.ID])
}

func (m *drawnUser) check(got param.PEID, usable []param.PoolElement, r Request) error {
	i := slices.IndexFunc(usable, func(e param.PoolElement) bool { return e.ID == got })
	if i < 0 {
		return fmt.Errorf("it can't be used")
	}
	if m.worth == nil || len(usable) == 1 {
		return nil
	}
	for k, e := range usable {
		if k != i && m.worth(e, r) >= m.worth(usable[i], r)*(1-1e-9) {
			return nil
		}
	}
	return fmt.Errorf("it is the worst of all")
}

// TestUsersAgainstModel lets elements fail and recover, lists change and requests be
// answered at random, and compares each pick with the model's.
func TestUsersAgainstModel(t *testing.T) {
	timed := &drawnUser{}
	timed.worth = timed.cost
	for name, c := range map[string]struct {
		pick  func(*rand.Rand) Picker
		model userModel
	}{
		"in order":  {PickInOrder, &orderedUser{}},
		"at random": {PickAtRandom, &drawnUser{}},
		"priority":  {PickByPriority, &bestUser{better: func(a, b param.PoolElement, _ Request) bool { return a.Policy.Priority > b.Policy.Priority }}},
		"hrw":       {PickRendezvous, &bestUser{better: func(a, b param.PoolElement, r Request) bool { return rendezvousScore(a, r) > rendezvousScore(b, r) }}},
		"p2c":       {PickLessLoadedOfTwo, &drawnUser{worth: func(e param.PoolElement, _ Request) float64 { return float64(e.Policy.Load) }}},
		"ewma":      {PickPeakEWMA, timed},
	} {
		t.Run(name, func(t *testing.T) {
			for run := range uint64(30) {
				if m, ok := c.model.(*drawnUser); ok {
					m.seen, m.under = map[param.PEID][]sample{}, map[param.PEID]int{}
				}
				r := rand.New(rand.NewPCG(seed, run))
				span, now := uint32(1)<<r.IntN(5), time.Unix(1000, 0)
				var list []param.PoolElement
				failed := map[param.PEID]bool{}
				u := NewUserOf(c.pick(r), nil)
				for step := range 300 {
					now = now.Add(time.Duration(r.IntN(500)) * time.Millisecond)
					id := param.PEID(1 + r.IntN(10))
					switch r.IntN(12) {
					case 0:
						list = nil
						for _, i := range r.Perm(10)[:r.IntN(11)] {
							p := param.Policy{Type: param.RendezvousHashing, Weight: r.Uint32N(span), Priority: r.Uint32N(span), Load: r.Uint32N(span)}
							list = append(list, param.PoolElement{ID: param.PEID(i + 1), Policy: p})
						}
						clear(failed)
						u.Renew(list)
						c.model.renew(list)
					case 1:
						failed[id] = true
						u.Failed(id)
					case 2:
						delete(failed, id)
						u.Recovered(id)
					case 3:
						u.Sent(id, now)
						c.model.sent(id)
					case 4:
						took, gaveUp := time.Duration(1+r.IntN(2000))*time.Millisecond, r.IntN(2) == 0
						u.Unanswered(id, took, !gaveUp, now)
						c.model.unanswered(id, took, !gaveUp, now)
					case 5:
						took := time.Duration(1+r.IntN(1000)) * time.Millisecond
						u.Answered(id, took, now)
						c.model.answered(id, took, now)
					default:
						var usable []param.PoolElement
						for _, e := range list {
							if !failed[e.ID] {
								usable = append(usable, e)
							}
						}
						request := Request{Key: fmt.Sprint(r.IntN(20)), Now: now}
						got, ok := u.NextFor(request)
						if ok != (len(usable) > 0) {
							t.Fatalf("run %d, step %d: %v of %d usable elements", run, step, ok, len(usable))
						}
						if !ok {
							continue
						}
						if err := c.model.check(got.ID, usable, request); err != nil {
							t.Fatalf("run %d, step %d: %v of %v: %v", run, step, got.ID, usable, err)
						}
					}
				}
			}
		})
	}
}
