package handlespace

import (
	"math"
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// instant is a deadline: the time since the index's epoch, to grain, and below that
// a number that makes it the only one. Zero is none.
type instant int64

// grain is 131 us.
const grain = 1 << 17

// deadlines are the elements of one home in the order in which they are due. An
// element stays filed under an early deadline when it gets a later one, and is filed
// anew when the early one comes up: to register again costs nothing here.
type deadlines struct {
	tree   *btree.BTreeG[deadline]
	serial instant
}

type deadline struct {
	at      instant
	element *element
}

func (a deadline) less(b deadline) bool { return a.at < b.at }

func newDeadlines() deadlines { return deadlines{tree: btree.NewG(32, deadline.less)} }

// instant returns when the record is due, but for the number, and false if it never is. It
// is a difference, because that keeps the order by the monotonic clock when the
// machine's clock is set while elements are registered.
func (x *index) instant(r *Record) (instant, bool) {
	at, ok := r.due()
	return instant(min(at.Sub(x.epoch), math.MaxInt64/2)) &^ (grain - 1), ok
}

// file makes sure that e, whose record is r, comes up before it is due.
func (x *index) file(d *deadlines, e *element, r *Record) {
	at, ok := x.instant(r)
	if e.filed != 0 {
		if ok && e.filed < at+grain {
			return
		}
		d.unfile(e)
	}
	if !ok {
		return
	}
	d.serial = d.serial%(grain-1) + 1
	for next := (deadline{at + d.serial, e}); ; {
		next.element.filed = next.at
		other, taken := d.tree.ReplaceOrInsert(next)
		if !taken {
			return
		}
		next = deadline{other.at + grain, other.element}
	}
}

func (d *deadlines) unfile(e *element) {
	if e.filed != 0 {
		d.tree.Delete(deadline{at: e.filed})
		e.filed = 0
	}
}

// refiled is how many elements that come up too early one call files anew.
const refiled = 256

// up visits the elements that come up until visit returns false, the one that is due
// first first. It returns elements that have come up too early.
func (x *index) up(h *residents, visit func(*Record) bool) (early []*element) {
	h.deadlines.tree.Ascend(func(d deadline) bool {
		r := d.element.record.Load()
		if at, ok := x.instant(r); !ok || at > d.at {
			early = append(early, d.element)
			return len(early) < refiled
		}
		return visit(r)
	})
	return early
}

// refile files elements anew.
func (x *index) refile(h *residents, early []*element) {
	for _, e := range early {
		h.deadlines.unfile(e)
		x.file(&h.deadlines, e, e.record.Load())
	}
}

// NextDeadline returns when the first of a home's elements is due: its registration
// runs out, or the time is over for which it is held back; false if none ever is. It may be in the past: until its removal has been
// applied, an element is still there. It may be too early when many elements have
// registered again; Due is to be called then all the same.
func (s *Space) NextDeadline(id param.RegistrarID) (at time.Time, found bool) {
	x := &s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.homes[id]
	if h == nil {
		return at, false
	}
	x.refile(h, x.up(h, func(*Record) bool { return false }))
	if first, ok := h.deadlines.tree.Min(); ok {
		at, found = x.epoch.Add(time.Duration(first.at)), true
		if due, ok := first.element.record.Load().due(); ok && due.Sub(at) < grain {
			at = due
		}
	}
	return at, found
}

// Due appends to dst up to max commands that remove the elements of a home that are
// due by now, the longest overdue first (of those within 131 us, any). The caller
// proposes them; only an element's home does so (AMB-76). The same elements are
// due again until the removals have been applied.
func (s *Space) Due(dst []Command, id param.RegistrarID, now time.Time, max int) []Command {
	x := &s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.homes[id]
	if h == nil {
		return dst
	}
	start, left := len(dst), max
	due := func(r *Record) bool {
		if at, _ := r.due(); left <= 0 || at.After(now) {
			return false
		}
		left--
		cause := Expired
		if r.Suspect {
			cause = r.Cause
		}
		dst = append(dst, Remove{Handle: r.Handle, ID: r.ID, Generation: r.Generation, Cause: cause, Now: now})
		return true
	}
	if early := x.up(h, due); len(early) > 0 {
		x.refile(h, early)
		dst, left = dst[:start], max
		x.refile(h, x.up(h, due))
	}
	return dst
}
