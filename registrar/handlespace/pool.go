package handlespace

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

// pool is one pool. The writer reads its fields without the mutex, and takes it
// to change them; readers take it to read them. What each change needs comes first, in
// few cache lines.
type pool struct {
	handle  param.PoolHandle
	hash    hash          // of the handle
	policy  *param.Policy // with neutral values, shared, never changed
	sound   selection.Chooser
	founder param.PEID

	// gone is set when the pool has lost its last element. A pool of the same
	// handle that comes later is another one.
	gone atomic.Bool

	mu       sync.Mutex
	members  members           // with removed ones
	elements int               // without them
	circle   *circle           // nil when it has to be made anew
	shares   []share           // of the index
	oneShare [1]share          // mostly where shares are
	user     param.Transport   // the founder's, for its type and use
	limit    int               // elements in a reply unless the request names a number
	suspects selection.Chooser // nil as long as there were none
	owner    string
	created  time.Time

	// Writer only.
	rand     *rand.Rand
	digest   uint64      // of the state besides the elements
	guessed  bool        // made by a Merge that has not said yet what the pool is
	removals []time.Time // unattended ones within the removal window
	counted  int         // merges when they were counted
}

// element is a place in a pool that outlives re-registrations, and with them its
// record. What a choice looks at comes first.
type element struct {
	record atomic.Pointer[Record] // the writer stores it, with the pool's mutex; nil: removed
	item   selection.Item         // Value is the element
	at     int32                  // where it begins in the pool's circle

	tombstone *Tombstone // of a removed one. Writer only

	// Of the index.
	page  *page   // on which it is filed, nil if it is not
	line  int32   // of the page
	filed instant // under which deadline
}

// state returns what the pool is besides its elements. Writer only.
func (p *pool) state() PoolState {
	return PoolState{p.handle, p.created, p.founder, p.user, p.policy.Type, p.owner}
}

// check compares a registration with what the first element fixed, and returns
// one cause per difference (ASAP-3.1-27).
func (p *pool) check(e *param.PoolElement) (causes param.OperationError) {
	if e.Policy.Type != p.policy.Type {
		causes = append(causes, param.PolicyCause(param.CauseInconsistentPolicy, *p.policy))
	}
	if e.User.Type != p.user.Type {
		causes = append(causes, param.TransportCause(param.CauseInconsistentTransport, p.user))
	}
	if e.User.Use != p.user.Use {
		causes = append(causes, param.NewCause(param.CauseInconsistentControl))
	}
	return causes
}

// there reports whether e is an element that is not removed.
func (e *element) there() bool { return e != nil && e.tombstone == nil }

// is reports whether e is the place of an element with this key, removed or not.
func (e *element) is(handle param.PoolHandle, id param.PEID) bool {
	if e == nil {
		return false
	}
	if r := e.record.Load(); r != nil {
		return r.ID == id && r.Handle == handle
	}
	return e.tombstone != nil && e.tombstone.Key == Key{handle, id}
}

// store makes r the record of e, which is new or in the pool. content is the element
// of r if that is not the one of the record before. The mutex is held.
func (p *pool) store(e *element, before, r *Record, content *param.PoolElement) {
	moves := before == nil || before.Suspect != r.Suspect
	if before != nil && moves {
		p.chooser(before).Remove(&e.item)
	}
	if before == nil {
		e.item.Value, e.item.ID = e, r.ID
		p.elements++
		p.members.most = max(p.members.most, p.elements)
	}
	if before == nil || before.home() != r.home() {
		p.members.put(member{r.ID, r.home(), e})
	}
	// Each registration begins the policy's counters anew (POL-5.2.2-02), an
	// imported one, which raises no generation, too.
	renewed := before == nil || before.Generation != r.Generation || !before.Refreshed.Equal(r.Refreshed)
	if moves || !bytes.Equal(before.Encoded(), r.Encoded()) {
		p.circle = nil
	}
	e.record.Store(r)
	if moves || renewed {
		e.item.Size = len(r.Encoded())
		if content == nil {
			same := r.Element()
			content = &same
		}
		p.chooser(r).Put(&e.item, content.Policy)
	}
}

// drop takes e, whose record is r, out of the pool, but for its place. The mutex is held.
func (p *pool) drop(e *element, r *Record) {
	p.chooser(r).Remove(&e.item)
	e.item = selection.Item{}
	e.record.Store(nil)
	p.elements--
	p.circle = nil
	if m := &p.members; m.len()-p.elements > max(m.most, 2*few) {
		m.remove(r.ID)
		m.part(member{id: r.ID, element: e})
	}
}

// chooser returns where an element with the record r belongs. Suspects have a
// chooser of their own, used when the pool has no others.
func (p *pool) chooser(r *Record) selection.Chooser {
	if !r.Suspect {
		return p.sound
	}
	if p.suspects == nil {
		p.suspects = p.newChooser()
	}
	return p.suspects
}

// newChooser returns a chooser of the pool's policy.
func (p *pool) newChooser() selection.Chooser {
	c := selection.NewChooser(p.policy.Type, p.rand)
	if f, ok := c.(selection.Foretelling); ok {
		f.Foretell(func(it *selection.Item) uint64 {
			r := it.Value.(*element).record.Load()
			return uint64(r.asap) + uint64(r.room[0])
		})
	}
	return c
}

// candidates returns the chooser that replies come from. The mutex is held.
func (p *pool) candidates() selection.Chooser {
	if p.sound.Len() == 0 && p.suspects != nil {
		return p.suspects
	}
	return p.sound
}

// mayHold reports whether one more element may be held back.
func (p *pool) mayHold(share float64) bool {
	held := 0
	if p.suspects != nil {
		held = p.suspects.Len()
	}
	return float64(held+1) <= share*float64(p.elements)
}

// removable counts an unattended removal, unless it exceeds the removal limit. A
// merge begins a new count, because sides have counted different removals.
func (p *pool) removable(s *Space, now time.Time) bool {
	c := &s.cfg
	if c.RemovalShare == 1 {
		return true
	}
	start := now.Add(-c.RemovalWindow)
	old := 0
	for old < len(p.removals) && (!p.removals[old].After(start) || p.counted != s.merges) {
		old++
	}
	p.removals, p.counted = p.removals[old:], s.merges
	size := p.elements + len(p.removals)
	if len(p.removals) >= max(c.RemovalFloor, int(c.RemovalShare*float64(size))) {
		return false
	}
	p.removals = append(p.removals, now)
	return true
}

// PoolInfo describes a pool.
type PoolInfo struct {
	Handle param.PoolHandle
	Policy param.PolicyType
	// Transport and Use are those of the pool's user transports.
	Transport param.Type
	Use       param.TransportUse
	Created   time.Time
	Owner     string // whose registration created the pool, see Register.Owner
	Elements  int
	Suspects  int // among Elements
}

func (p *pool) info() PoolInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := PoolInfo{
		Handle:    p.handle,
		Policy:    p.policy.Type,
		Transport: p.user.Type,
		Use:       p.user.Use,
		Created:   p.created,
		Owner:     p.owner,
		Elements:  p.elements,
	}
	if p.suspects != nil {
		info.Suspects = p.suspects.Len()
	}
	return info
}
