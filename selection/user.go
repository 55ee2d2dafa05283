package selection

import (
	"math/rand/v2"
	"slices"

	"rserpool/asap/param"
)

type userMode int

const (
	inOrder         userMode = iota // one after the other, again and again
	atRandom                        // each time anew, all alike
	highestPriority                 // each time the highest of those alive
)

// User chooses one element after the other from a list that a registrar sent,
// by the rules that RFC 5356 has for pool users. The list's order and number are
// the registrar's choice; a new answer needs a new User.
//
// A User is not safe for concurrent use.
type User struct {
	mode   userMode
	rand   *rand.Rand
	list   []param.PoolElement // highestPriority: sorted by it
	failed []bool              // by place in list
	alive  []int               // atRandom: places not failed
	place  []int               // atRandom: place in alive by place in list
	next   int                 // inOrder: place of the next choice
}

// NewUser returns a User for the list in a response with the given pool policy;
// a zero type stands for Round Robin. The list is not copied and must not change
// while the User is in use. r is used by random policies only and may be nil for
// others.
func NewUser(t param.PolicyType, list []param.PoolElement, r *rand.Rand) *User {
	u := &User{rand: r, list: list, failed: make([]bool, len(list))}
	if d, ok := Lookup(t); ok {
		u.mode = d.userMode
	}
	switch u.mode {
	case atRandom:
		u.alive, u.place = make([]int, len(list)), make([]int, len(list))
		for i := range list {
			u.alive[i], u.place[i] = i, i
		}
	case highestPriority:
		u.list = slices.Clone(list)
		slices.SortStableFunc(u.list, func(a, b param.PoolElement) int {
			switch {
			case a.Policy.Priority > b.Policy.Priority:
				return -1
			case a.Policy.Priority < b.Policy.Priority:
				return 1
			}
			return 0
		})
	}
	return u
}

// Next chooses an element. It returns false when the list has none that is not
// known to have failed: a new answer is needed then.
func (u *User) Next() (param.PoolElement, bool) {
	switch u.mode {
	case atRandom:
		if len(u.alive) > 0 {
			return u.list[u.alive[u.rand.IntN(len(u.alive))]], true
		}
	case highestPriority:
		if i := slices.Index(u.failed, false); i >= 0 {
			return u.list[i], true
		}
	default:
		for range u.list {
			i := u.next
			u.next = (u.next + 1) % len(u.list)
			if !u.failed[i] {
				return u.list[i], true
			}
		}
	}
	return param.PoolElement{}, false
}

// Failed marks the element as failed: Next does not choose it any more. It does
// nothing for an element that is not in the list.
func (u *User) Failed(id param.PEID) { u.mark(id, true) }

// Recovered takes the mark of Failed back.
func (u *User) Recovered(id param.PEID) { u.mark(id, false) }

func (u *User) mark(id param.PEID, failed bool) {
	for i, e := range u.list {
		if e.ID != id || u.failed[i] == failed {
			continue
		}
		u.failed[i] = failed
		if u.mode != atRandom {
			continue
		}
		if !failed {
			u.place[i] = len(u.alive)
			u.alive = append(u.alive, i)
			continue
		}
		last := u.alive[len(u.alive)-1]
		u.alive[u.place[i]] = last
		u.place[last] = u.place[i]
		u.alive = u.alive[:len(u.alive)-1]
	}
}
