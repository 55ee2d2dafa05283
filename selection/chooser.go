package selection

import (
	"iter"
	"math"
	"math/rand/v2"

	"rserpool/asap/param"
	"rserpool/internal/pages"
)

// Unlimited as the count or the room of a choice sets no bound.
const Unlimited = math.MaxInt

// Item is one element as a Chooser holds it. It belongs to one Chooser at a
// time, from the first Put to Remove, and must not be copied while it does.
type Item struct {
	// Value is the caller's.
	Value any
	// Size is what the element takes of the room of a choice, in octets.
	Size int
	// ID is the element's identifier. Policies that are to list elements alike
	// everywhere go by it; set it before the first Put.
	ID param.PEID

	held   bool
	slot   int32  // its place: shuffle, lottery; the bits of its phase: wheel
	weight uint32 // lottery, wheel
	next   *Item  // ring
	prev   *Item  // ring

	spot pages.Spot[uint64, queued] // ordered, listed

	key, seq uint64 // its place: ordered, listed; lap and num of its next point: wheel
	base     uint64 // measure; the order of joining: wheel
	step     uint64 // measure
	served   uint64 // measure: the degradation counter (RFC 5356, section 5.2.2)
}

// Chooser is the registrar's half of a policy: it holds the elements of one pool and
// chooses those of a reply.
type Chooser interface {
	// Put adds the element, or changes the policy values of one that it has;
	// either counts as a registration, which starts the degradation counter
	// again. An element that registers again keeps its turn among its equals.
	Put(it *Item, policy param.Policy)
	// Remove takes the element out. It does nothing for one that is not in.
	Remove(it *Item)
	// Len returns the number of elements.
	Len() int
	// Choose appends the next reply to dst: at most n distinct elements in
	// the order of the policy, as many as fit into room together. Elements in
	// the reply count as used, those that did not fit do not. Without memory
	// for dst to grow it allocates nothing.
	Choose(dst []*Item, n, room int) []*Item
}

// Circle is a Chooser whose replies are one circular list, each begun an element
// further on than the one before: Round Robin. Who keeps this list in a form of
// his own can take replies of the whole pool from there, until an element comes or
// goes.
type Circle interface {
	Chooser
	// All lists the elements in the order of the next reply. None counts as
	// used.
	All() iter.Seq[*Item]
	// Turn stands for a reply of all elements and returns its first one, nil
	// if there are none.
	Turn() *Item
}

// Change is what is going to happen to an element: Put with Policy, or Remove.
// Item is nil for an element that is not in yet.
type Change struct {
	Item   *Item
	Policy param.Policy
	Remove bool
}

// Foresighted is a Chooser that reads what several changes will need, in passes that do
// not wait for the memory of one after the other. It changes nothing, and what it was
// told need not happen.
type Foresighted interface {
	Chooser
	Foresee(changes []Change)
}

// Foretelling is a Chooser that knows beforehand which elements it is most likely going to
// choose, of many that are in no order.
type Foretelling interface {
	Chooser
	// Foretell makes it call read for these elements. read reads what its caller is going
	// to need of them, so that it is in the processor's cache by then; what it returns
	// means nothing, but that it was read. A Chooser that does not gain by it ignores it.
	Foretell(read func(*Item) uint64)
}

// NewChooser returns an empty Chooser for a pool of the given policy type. Types
// without a policy of their own are served by Round Robin (AMB-55). r is used by
// the random policies only and may be nil for others.
func NewChooser(t param.PolicyType, r *rand.Rand) Chooser { return newChooser(t, r) }
