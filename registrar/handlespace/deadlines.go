package handlespace

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// instant is a deadline: the time since the index's epoch.
type instant int64

// deadlines are the elements of one home by when they are due. An element stays filed
// under an early deadline when it gets a later one, and is filed anew when the early one
// comes up: to register again costs nothing here.
//
// Elements that are due within the same span are on one page, in no order until its turn
// comes: to come and to go costs the same, however many there are.
type deadlines struct {
	tree   *btree.BTreeG[*page]
	latest *page // on which something was filed
}

// span is that of a page: 4 ms.
const span = 1 << 22

// page has the elements that are due from its beginning on.
type page struct {
	begin  instant
	lines  []line // the first one at the end if sorted
	left   int    // lines that are not crossed out
	sorted bool   // then lines keep their places, and those of elements that go are crossed out
}

// line is nobody's if it is crossed out.
type line struct {
	at      instant
	element *element
}

// after orders lines by when they come up, the last one first.
func (l line) after(m line) int { return cmp.Compare(m.at, l.at) }

func newDeadlines() deadlines {
	return deadlines{tree: btree.NewG(32, func(a, b *page) bool { return a.begin < b.begin })}
}

// instant returns when the record is due, and false if it never is. It
// is a difference, because that keeps the order by the monotonic clock when the
// machine's clock is set while elements are registered.
func (x *index) instant(r *Record) (instant, bool) {
	at, ok := r.due()
	return instant(min(at.Sub(x.epoch), math.MaxInt64/2)), ok
}

// file makes sure that e, whose record is r, comes up before it is due.
func (x *index) file(d *deadlines, e *element, r *Record) {
	at, ok := x.instant(r)
	if e.page != nil {
		if ok && e.filed <= at {
			return
		}
		d.unfile(e)
	}
	if !ok {
		return
	}
	d.file(e, at)
}

// file puts e, which is not filed, on the page where it belongs.
func (d *deadlines) file(e *element, at instant) {
	p := d.from(begin(at))
	e.page, e.line, e.filed = p, int32(len(p.lines)), at
	p.lines = append(p.lines, line{at, e})
	p.left++
	p.sorted = false
}

// begin returns when the page of an instant begins.
func begin(at instant) instant { return at &^ (span - 1) }

// from returns the page that begins then.
func (d *deadlines) from(begin instant) *page {
	if d.latest == nil || d.latest.begin != begin {
		p, found := d.tree.Get(&page{begin: begin})
		if !found {
			p = &page{begin: begin}
			d.tree.ReplaceOrInsert(p)
		}
		d.latest = p
	}
	return d.latest
}

func (d *deadlines) unfile(e *element) {
	p := e.page
	if p == nil {
		return
	}
	e.page = nil
	if p.left--; p.left > 0 {
		p.cross(int(e.line))
		return
	}
	d.tree.Delete(p)
	if d.latest == p {
		d.latest = nil
	}
}

// cross takes a line out.
func (p *page) cross(at int) {
	last := len(p.lines) - 1 // not crossed out
	if !p.sorted {
		p.lines[at] = p.lines[last]
		p.lines[at].element.line = int32(at)
		at = last
	}
	p.lines[at].element = nil
	for p.lines[last].element == nil { // there is another one
		last--
	}
	p.lines = p.lines[:last+1]
}

// sort brings the lines in order.
func (p *page) sort() {
	if p.sorted {
		return
	}
	p.lines = slices.DeleteFunc(p.lines, func(l line) bool { return l.element == nil })
	slices.SortFunc(p.lines, line.after)
	for i, l := range p.lines {
		l.element.line = int32(i)
	}
	p.sorted = true
}

// refiled is how many elements that come up too early one call files anew.
const refiled = 256

// up visits the elements that come up until visit returns false, the one that is due
// first first. It returns elements that have come up too early.
func (x *index) up(h *residents, visit func(*element, *Record) bool) (early []*element) {
	h.deadlines.tree.Ascend(func(p *page) bool {
		p.sort()
		for _, l := range slices.Backward(p.lines) {
			if l.element == nil {
				continue
			}
			r := l.element.record.Load()
			if at, ok := x.instant(r); !ok || at > l.at {
				if early = append(early, l.element); len(early) == refiled {
					return false
				}
			} else if !visit(l.element, r) {
				return false
			}
		}
		return true
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
// runs out, or the time is over for which it is held back; false if none ever is. It may
// be in the past: until its removal has been applied, an element is still there. It may be too early when many elements have
// registered again; Due is to be called then all the same.
func (s *Space) NextDeadline(id param.RegistrarID) (at time.Time, found bool) {
	x := &s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.homes[id]
	if h == nil {
		return at, false
	}
	x.refile(h, x.up(h, func(*element, *Record) bool { return false }))
	if p, ok := h.deadlines.tree.Min(); ok {
		p.sort()
		at, found = x.epoch.Add(time.Duration(p.lines[len(p.lines)-1].at)), true
	}
	return at, found
}

// Due appends to dst up to max commands that remove the elements of a home that are
// due by now, the longest overdue first. The caller proposes them; only an element's home
// does so (AMB-76). The same elements are due again until the removals have been applied.
func (s *Space) Due(dst []Command, id param.RegistrarID, now time.Time, max int) []Command {
	x := &s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.homes[id]
	if h == nil {
		return dst
	}
	start, left := len(dst), max
	due := func(e *element, r *Record) bool {
		if at, _ := r.due(); left <= 0 || at.After(now) {
			return false
		}
		left--
		cause := Expired
		if r.Suspect {
			cause = r.Cause
		}
		dst = append(dst, Remove{Handle: r.Handle, ID: r.ID, Generation: r.Generation, Cause: cause, Now: now, spot: spot{s, e}})
		return true
	}
	if early := x.up(h, due); len(early) > 0 {
		x.refile(h, early)
		dst, left = dst[:start], max
		x.refile(h, x.up(h, due))
	}
	return dst
}
