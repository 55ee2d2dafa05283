package selection

import (
	"math/rand/v2"
	"slices"
	"time"

	"rserpool/asap/param"
)

// Request is what a pool user knows of what it selects for.
type Request struct {
	// Key is what the request is about, such as a customer or a file name, for
	// policies that give the same element to the same key. "" is none.
	Key string
	// Now is the time, for policies that measure.
	Now time.Time
}

// Picker is the pool user's half of a policy: it picks one element after the other
// from the lists that registrars send. It serves one pool.
type Picker interface {
	// Renew begins with the list of a new answer, which does not change while
	// it is in use. What the Picker remembers of elements may outlive lists.
	Renew(list []param.PoolElement)
	// Pick returns which place of the list to use next. usable are the places
	// that are not known to have failed, at least one, in ascending order; it
	// must not be kept.
	Pick(usable []int, r Request) int
}

// Meter is a Picker that goes by what the user measures.
type Meter interface {
	Picker
	// Sent tells that a request goes to the element.
	Sent(id param.PEID, now time.Time)
	// Answered tells that one was answered after a time.
	Answered(id param.PEID, took time.Duration, now time.Time)
	// Unanswered tells that one ended without an answer after a time: it failed,
	// or nobody waits for the answer any more.
	Unanswered(id param.PEID, took time.Duration, failed bool, now time.Time)
}

// User chooses one element after the other from a list that a registrar sent, by the
// rules that RFC 5356 has for pool users. The list's order and number are the
// registrar's choice.
//
// A User is not safe for concurrent use.
type User struct {
	picker Picker
	list   []param.PoolElement
	usable []int // places not failed, ascending
}

// NewUser returns a User for the list in a response with the given pool policy; a
// zero or unknown type stands for Round Robin. The list is not copied and must not
// change while the User is in use. r is the source of random policies, and may be nil
// for others.
func NewUser(t param.PolicyType, list []param.PoolElement, r *rand.Rand) *User {
	return NewUserOf(NewPicker(t, r), list)
}

// NewUserOf returns a User that goes by the Picker, whatever the pool's policy.
func NewUserOf(p Picker, list []param.PoolElement) *User {
	u := &User{picker: p}
	u.Renew(list)
	return u
}

// NewPicker makes the pool user's half of a pool policy.
func NewPicker(t param.PolicyType, r *rand.Rand) Picker {
	if d, ok := registry.Load().byType[t]; ok {
		return d.NewPicker(r)
	}
	return PickInOrder(r)
}

// Renew goes on with the list of a new answer, of which no element is marked as
// failed.
func (u *User) Renew(list []param.PoolElement) {
	u.list, u.usable = list, make([]int, len(list))
	for i := range u.usable {
		u.usable[i] = i
	}
	u.picker.Renew(list)
}

// Next is NextFor a request of which nothing is known.
func (u *User) Next() (param.PoolElement, bool) { return u.NextFor(Request{}) }

// NextFor chooses an element. It returns false when the list has none that is not
// known to have failed: a new answer is needed then.
func (u *User) NextFor(r Request) (param.PoolElement, bool) {
	if len(u.usable) == 0 {
		return param.PoolElement{}, false
	}
	return u.list[u.picker.Pick(u.usable, r)], true
}

// Measures tells whether the policy has use for Sent, Answered and Unanswered.
func (u *User) Measures() bool {
	_, ok := u.picker.(Meter)
	return ok
}

// Sent tells that a request goes to the element, for policies that measure. Answered
// or Unanswered is to follow.
func (u *User) Sent(id param.PEID, now time.Time) {
	if m, ok := u.picker.(Meter); ok {
		m.Sent(id, now)
	}
}

// Answered tells that a request to the element was answered after a time.
func (u *User) Answered(id param.PEID, took time.Duration, now time.Time) {
	if m, ok := u.picker.(Meter); ok {
		m.Answered(id, took, now)
	}
}

// Unanswered tells that a request to the element ended without an answer after a time:
// it failed, or nobody waits for the answer any more. It does not mark the element.
func (u *User) Unanswered(id param.PEID, took time.Duration, failed bool, now time.Time) {
	if m, ok := u.picker.(Meter); ok {
		m.Unanswered(id, took, failed, now)
	}
}

// Failed marks the element as failed: it is not chosen any more. It does nothing for
// an element that is not in the list.
func (u *User) Failed(id param.PEID) { u.mark(id, true) }

// Recovered takes the mark of Failed back.
func (u *User) Recovered(id param.PEID) { u.mark(id, false) }

func (u *User) mark(id param.PEID, failed bool) {
	for i := range u.list {
		if u.list[i].ID != id {
			continue
		}
		switch k, usable := slices.BinarySearch(u.usable, i); {
		case failed && usable:
			u.usable = slices.Delete(u.usable, k, k+1)
		case !failed && !usable:
			u.usable = slices.Insert(u.usable, k, i)
		}
	}
}

// inOrder is one after the other, again and again.
type inOrder struct{ next int }

// PickInOrder makes a Picker that takes one element after the other, from the first
// again after the last: that of Round Robin (RFC 5356, section 4.1.3), Least Used and
// others.
func PickInOrder(*rand.Rand) Picker { return &inOrder{} }

func (p *inOrder) Renew([]param.PoolElement) { p.next = 0 }

func (p *inOrder) Pick(usable []int, _ Request) int {
	k, _ := slices.BinarySearch(usable, p.next)
	place := usable[k%len(usable)]
	p.next = place + 1
	return place
}

// atRandom is each time anew, all alike.
type atRandom struct{ rand *rand.Rand }

// PickAtRandom makes a Picker that draws anew each time, all alike: that of Random
// (RFC 5356, section 4.3.3) and of the weighted ones, whose weights have had their
// effect at the registrar (AMB-37).
func PickAtRandom(r *rand.Rand) Picker { return atRandom{r} }

func (p atRandom) Renew([]param.PoolElement) {}

func (p atRandom) Pick(usable []int, _ Request) int { return usable[p.rand.IntN(len(usable))] }

// highest is each time the highest priority of those that are left.
type highest struct{ list []param.PoolElement }

// PickByPriority makes a Picker that takes the element of highest priority each time,
// the first of equals (RFC 5356, section 4.5.3).
func PickByPriority(*rand.Rand) Picker { return &highest{} }

func (p *highest) Renew(list []param.PoolElement) { p.list = list }

func (p *highest) Pick(usable []int, _ Request) int {
	best := usable[0]
	for _, i := range usable[1:] {
		if p.list[i].Policy.Priority > p.list[best].Policy.Priority {
			best = i
		}
	}
	return best
}

// lessLoaded is the less loaded of two.
type lessLoaded struct {
	rand *rand.Rand
	list []param.PoolElement
}

// PickLessLoadedOfTwo makes a Picker that draws two elements and takes the one of less
// load: Power of Two Choices for lists that name the whole pool. For the pool policy
// of this name the draw has been made at the registrar.
func PickLessLoadedOfTwo(r *rand.Rand) Picker { return &lessLoaded{rand: r} }

func (p *lessLoaded) Renew(list []param.PoolElement) { p.list = list }

func (p *lessLoaded) Pick(usable []int, _ Request) int {
	a, b := drawTwo(p.rand, len(usable))
	if p.list[usable[b]].Policy.Load < p.list[usable[a]].Policy.Load {
		a = b
	}
	return usable[a]
}
