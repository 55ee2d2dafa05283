// Package selectiontest checks that a policy keeps what selection.Chooser and
// selection.Picker promise. Which elements a policy prefers is its own tests'
// business.
package selectiontest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

const (
	runs  = 40
	steps = 300
)

// Check puts, removes and chooses at random, with any values of the policy's
// parameter and now and then those of another policy, and reports what breaks a
// promise: replies of distinct elements that are in the pool, no more than asked for
// and that fit, none too few; no difference between two choosers that are told the
// same; no allocation. The seed is fixed. A policy that is not registered is, as without
// that its parameter has no values.
func Check(t *testing.T, d selection.Definition) {
	t.Helper()
	if _, ok := selection.Lookup(d.Type); !ok {
		if err := selection.Register(d); err != nil {
			t.Fatal(err)
		}
	}
	d, _ = selection.Lookup(d.Type) // with defaults
	t.Run("chooser", func(t *testing.T) {
		for run := range uint64(runs) {
			checkChooser(t, d, run)
		}
	})
	t.Run("allocations", func(t *testing.T) { checkAllocations(t, d) })
	t.Run("picker", func(t *testing.T) {
		for run := range uint64(runs) {
			checkPicker(t, d, run)
		}
	})
}

func source(run uint64) *rand.Rand { return rand.New(rand.NewPCG(5356, run)) }

// twin is the same element in two choosers.
type twin struct {
	items [2]selection.Item
	in    bool
}

func checkChooser(t *testing.T, d selection.Definition, run uint64) {
	r := source(run)
	choosers := [2]selection.Chooser{d.NewChooser(source(run + 1000)), d.NewChooser(source(run + 1000))}
	twins := make([]*twin, 1+r.IntN(20))
	for i := range twins {
		twins[i] = &twin{}
		for k := range twins[i].items {
			twins[i].items[k] = selection.Item{Value: i, ID: param.PEID(100 - i), Size: 1 + i%3}
		}
	}
	held, span := 0, uint32(1)<<r.IntN(32)
	for range steps {
		w := twins[r.IntN(len(twins))]
		switch r.IntN(4) {
		case 0, 1:
			p := anyPolicy(r, d.Type, span)
			for k := range choosers {
				choosers[k].Put(&w.items[k], p)
			}
			if !w.in {
				w.in = true
				held++
			}
		case 2:
			for k := range choosers {
				choosers[k].Remove(&w.items[k])
			}
			if w.in {
				w.in = false
				held--
			}
		default:
			n, room := r.IntN(len(twins)+2), selection.Unlimited
			if r.IntN(3) == 0 {
				room = r.IntN(2 * len(twins))
			}
			checkReply(t, choosers, twins, held, n, room)
		}
		for _, c := range choosers {
			if c.Len() != held {
				t.Fatalf("run %d: Len is %d with %d elements", run, c.Len(), held)
			}
		}
	}
}

func checkReply(t *testing.T, choosers [2]selection.Chooser, twins []*twin, held, n, room int) {
	before := &selection.Item{Value: "kept"}
	var replies [2][]int
	for k, c := range choosers {
		reply := c.Choose([]*selection.Item{before}, n, room)
		if reply[0] != before {
			t.Fatal("Choose does not append")
		}
		for _, it := range reply[1:] {
			replies[k] = append(replies[k], it.Value.(int))
		}
	}
	reply, left := replies[0], room
	if !slices.Equal(reply, replies[1]) {
		t.Fatalf("two choosers that were told the same reply %v and %v", reply, replies[1])
	}
	for i, name := range reply {
		if !twins[name].in {
			t.Fatalf("element %d in reply %v is not in the pool", name, reply)
		}
		if slices.Contains(reply[:i], name) {
			t.Fatalf("element %d is twice in reply %v", name, reply)
		}
		left -= twins[name].items[0].Size
	}
	if len(reply) > n || left < 0 {
		t.Fatalf("reply %v to %d elements in room %d", reply, n, room)
	}
	// Policies may keep elements back that cannot serve, but not answer nothing.
	if len(reply) == 0 && n > 0 && held > 0 && room >= 3 {
		t.Fatalf("no reply from %d elements", held)
	}
}

// anyPolicy returns values below span, or as far from the largest.
func anyPolicy(r *rand.Rand, typ param.PolicyType, span uint32) param.Policy {
	p := param.Policy{Type: typ}
	if r.IntN(20) == 0 {
		all := selection.All()
		p.Type = all[r.IntN(len(all))].Type
	}
	format, _ := p.Type.Format()
	for _, f := range format {
		*p.Field(f) = r.Uint32N(span)
		if r.IntN(4) == 0 {
			*p.Field(f) = ^*p.Field(f)
		}
	}
	return p
}

func checkAllocations(t *testing.T, d selection.Definition) {
	r := source(0)
	c := d.NewChooser(r)
	for i := range 1000 {
		c.Put(&selection.Item{ID: param.PEID(i), Size: 1}, anyPolicy(r, d.Type, 1<<20))
	}
	dst := make([]*selection.Item, 0, 100)
	if n := testing.AllocsPerRun(1000, func() { c.Choose(dst, 10, selection.Unlimited) }); n > 0 {
		t.Errorf("%v allocations per choice", n)
	}
}

func checkPicker(t *testing.T, d selection.Definition, run uint64) {
	r := source(run)
	users := [2]*selection.User{}
	list := anyList(r, d.Type)
	for k := range users {
		users[k] = selection.NewUserOf(d.NewPicker(source(run+1000)), list)
	}
	each := func(f func(u *selection.User)) {
		for _, u := range users {
			f(u)
		}
	}
	failed := map[param.PEID]bool{}
	now := time.Unix(1_000_000, 0)
	for range steps {
		now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		id := param.PEID(1 + r.IntN(12))
		switch r.IntN(10) {
		case 0:
			list = anyList(r, d.Type)
			clear(failed)
			each(func(u *selection.User) { u.Renew(list) })
		case 1, 2:
			failed[id] = true
			each(func(u *selection.User) { u.Failed(id) })
		case 3:
			delete(failed, id)
			each(func(u *selection.User) { u.Recovered(id) })
		case 4:
			each(func(u *selection.User) { u.Sent(id, now) })
		case 5:
			took := time.Duration(r.IntN(2000)) * time.Millisecond
			switch r.IntN(3) {
			case 0:
				failed := r.IntN(2) == 0
				each(func(u *selection.User) { u.Unanswered(id, took, failed, now) })
			default:
				each(func(u *selection.User) { u.Answered(id, took, now) })
			}
		default:
			request := selection.Request{Key: string(rune('a' + r.IntN(3))), Now: now}
			e, ok := users[0].NextFor(request)
			if twin, same := users[1].NextFor(request); same != ok || twin.ID != e.ID {
				t.Fatalf("two users that were told the same choose %v and %v", e.ID, twin.ID)
			}
			usable := slices.ContainsFunc(list, func(e param.PoolElement) bool { return !failed[e.ID] })
			listed := slices.ContainsFunc(list, func(x param.PoolElement) bool { return x.ID == e.ID })
			if ok != usable || ok && (!listed || failed[e.ID]) {
				t.Fatalf("run %d: chose %v, %v of %d elements with %v failed", run, e.ID, ok, len(list), failed)
			}
		}
	}
}

func anyList(r *rand.Rand, typ param.PolicyType) []param.PoolElement {
	var list []param.PoolElement
	for _, i := range r.Perm(12)[:r.IntN(12)] {
		list = append(list, param.PoolElement{ID: param.PEID(i + 1), Policy: anyPolicy(r, typ, 10)})
	}
	return list
}
