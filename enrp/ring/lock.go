package ring

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// maxLocks bounds the table of locks whatever the limits say, alike at all members.
const maxLocks = 1 << 16

// lockTable is the same at all members of a view: only ordered entries and installs
// change it.
type lockTable struct {
	locks map[string]*lock
	// awaiting are the members that have not repeated all their claims. Until
	// they have nothing is granted.
	awaiting map[Member]bool
	// closed: nothing is granted before KindOpen. Primary mode only.
	closed  bool
	openAt  time.Time // when the coordinator may open
	opening bool      // KindOpen is on its way
}

type lock struct {
	holder Member
	fence  Fence
	queue  []claim
}

// claim is a place in the queue. Former holders have a fence.
type claim struct {
	member Member
	fence  Fence
}

// ownLocks is what this member wants of the locks.
type ownLocks struct {
	wanted  map[string]Fence // locks held or asked for; with the latest fence
	lapsed  map[string]bool  // lease ended, and the others don't know yet
	waiting []lockOp         // operations that were not in a token yet
}

type lockOp struct {
	kind    Kind
	payload []byte
}

func (o *ownLocks) push(kind Kind, payload []byte) {
	o.waiting = append(o.waiting, lockOp{kind, payload})
}

func (o *ownLocks) pop() (Kind, []byte, bool) {
	if len(o.waiting) == 0 {
		return 0, nil, false
	}
	op := o.waiting[0]
	o.waiting = o.waiting[1:]
	return op.kind, op.payload, true
}

// Lock asks for a lock, Unlock gives it or the place in its queue back. Granted
// and Released tell what became of it.
func (m *Machine) Lock(name string, now time.Time) error {
	m.begin(now)
	defer m.end()
	switch _, wanted := m.claims.wanted[name]; {
	case m.leaving || m.left:
		return ErrLeft
	case len(name) > MaxLockName:
		return ErrTooLong
	case wanted:
		return nil
	case len(m.locks.locks)+len(m.claims.waiting) >= m.limits.Locks, len(m.claims.wanted) >= m.limits.Locks:
		return ErrFull
	}
	m.claims.wanted[name] = Fence{}
	m.claims.push(KindLock, []byte(name))
	m.hurry()
	return nil
}

// Unlock gives a lock, or the place in its queue, back; see Lock.
func (m *Machine) Unlock(name string, now time.Time) error {
	m.begin(now)
	defer m.end()
	if m.left {
		return ErrLeft
	}
	if _, wanted := m.claims.wanted[name]; wanted {
		delete(m.claims.wanted, name)
		m.claims.push(KindUnlock, []byte(name))
		m.hurry()
	}
	return nil
}

// applyLock applies an ordered lock operation.
func (m *Machine) applyLock(kind Kind, from Member, payload []byte) {
	t := &m.locks
	switch kind {
	case KindLock:
		m.enqueue(string(payload), claim{member: from})
		m.grant(string(payload))
	case KindUnlock:
		m.unlock(string(payload), from)
	case KindClaim:
		if name, fence, ok := cutClaim(payload); ok {
			m.enqueue(name, claim{from, fence})
		}
	case KindClaimed:
		if t.awaiting[from] {
			delete(t.awaiting, from)
			m.grantAll()
		}
	case KindOpen:
		if from == m.view.ID.Coordinator && t.closed {
			t.closed, t.opening = false, false
			m.grantAll()
		}
	}
}

func appendClaim(dst []byte, name string, f Fence) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, f.Counter), f.Seq)
	return append(dst, name...)
}

func cutClaim(b []byte) (string, Fence, bool) {
	counter, n := binary.Uvarint(b)
	if n <= 0 {
		return "", Fence{}, false
	}
	seq, k := binary.Uvarint(b[n:])
	if k <= 0 {
		return "", Fence{}, false
	}
	return string(b[n+k:]), Fence{counter, seq}, true
}

// enqueue puts a claim behind those with a larger fence and those that came before.
func (m *Machine) enqueue(name string, c claim) {
	l := m.locks.locks[name]
	if l == nil {
		if len(m.locks.locks) >= maxLocks || len(name) > MaxLockName {
			return
		}
		l = &lock{}
		m.locks.locks[name] = l
	}
	if l.holder == c.member || slices.ContainsFunc(l.queue, func(q claim) bool { return q.member == c.member }) {
		return
	}
	at := len(l.queue)
	for at > 0 && l.queue[at-1].fence.Compare(c.fence) < 0 {
		at--
	}
	l.queue = slices.Insert(l.queue, at, c)
}

func (m *Machine) unlock(name string, from Member) {
	l := m.locks.locks[name]
	if l == nil {
		return
	}
	l.queue = slices.DeleteFunc(l.queue, func(c claim) bool { return c.member == from })
	if l.holder == from {
		m.release(name, l)
	}
	m.grant(name)
}

// release takes a lock from its holder.
func (m *Machine) release(name string, l *lock) {
	if l.holder != m.self.Member || !m.claims.lapsed[name] {
		m.emit(Released{Lock: name, Holder: l.holder, Fence: l.fence})
	}
	if l.holder == m.self.Member {
		delete(m.claims.lapsed, name)
	}
	l.holder, l.fence = Member{}, Fence{}
}

// grant gives a free lock to the first in its queue, if that is allowed now.
func (m *Machine) grant(name string) {
	l := m.locks.locks[name]
	switch {
	case l == nil || !l.holder.IsZero():
		return
	case len(l.queue) == 0:
		delete(m.locks.locks, name)
		return
	case len(m.locks.awaiting) > 0 || m.locks.closed || !m.primary():
		return
	}
	l.holder, l.fence = l.queue[0].member, Fence{m.view.ID.Counter, m.seq}
	if m.faults.Has(fault.FenceReset) {
		l.fence.Counter = 0
	}
	l.queue = l.queue[1:]
	if l.holder == m.self.Member {
		_, wanted := m.claims.wanted[name]
		if m.cfg.Size > 0 && !m.leased() && !m.faults.Has(fault.MinorityGrants) {
			// Too late, this member was stopped meanwhile: it asks again.
			m.claims.lapsed[name] = true
			m.claims.push(KindUnlock, []byte(name))
			if wanted {
				m.claims.push(KindLock, []byte(name))
			}
			return
		}
		if wanted {
			m.claims.wanted[name] = l.fence
		}
	}
	m.emit(Granted{Lock: name, Holder: l.holder, Fence: l.fence})
}

func (m *Machine) grantAll() {
	for _, name := range m.lockNames() {
		m.grant(name)
	}
}

func (m *Machine) lockNames() []string { return slices.Sorted(maps.Keys(m.locks.locks)) }

// primary reports whether locks may be granted in a view of this size.
func (m *Machine) primary() bool {
	return 2*len(m.view.Members) > m.cfg.Size || m.faults.Has(fault.MinorityGrants)
}

// locksToView takes the locks into the view just installed. Without an exchange all
// members have the same table. With one they don't: all locks are lost, and asked
// for again.
func (m *Machine) locksToView(old *installed) {
	t := &m.locks
	m.claims.waiting = slices.DeleteFunc(m.claims.waiting, func(op lockOp) bool { return op.kind == KindOpen })
	certain := !m.exchange && !t.closed // that nobody elsewhere holds a lock
	if m.exchange && !(m.faults.Has(fault.LocksSurviveMerge) && t.locks != nil) {
		m.loseLocks()
	} else {
		certain = m.removeFromLocks(old) && certain
	}
	if m.cfg.Size > 0 && !m.faults.Has(fault.MinorityGrants) {
		t.closed, t.opening, t.openAt = true, false, m.now
		if !certain {
			t.openAt = m.now.Add(m.cfg.Timers.Lease + m.cfg.Timers.Lease/10)
		}
		if !m.primary() {
			m.suspendLocks()
		}
	}
	m.grantAll()
}

// loseLocks empties the table and queues the own claims.
func (m *Machine) loseLocks() {
	t := &m.locks
	for _, name := range m.lockNames() {
		if l := t.locks[name]; !l.holder.IsZero() {
			m.release(name, l)
		}
	}
	t.locks, t.awaiting = map[string]*lock{}, map[Member]bool{}
	for _, n := range m.view.Members {
		t.awaiting[n.Member] = true
	}
	m.claims.waiting = nil
	for _, name := range slices.Sorted(maps.Keys(m.claims.wanted)) {
		m.claims.push(KindClaim, appendClaim(nil, name, m.claims.wanted[name]))
	}
	m.claims.push(KindClaimed, nil)
}

// removeFromLocks takes those that left out of the table. It reports whether there
// was nobody.
func (m *Machine) removeFromLocks(old *installed) bool {
	nobody := true
	for _, n := range old.view.Members {
		gone := n.Member
		if m.index(&m.view, gone) >= 0 {
			continue
		}
		nobody = false
		delete(m.locks.awaiting, gone)
		if m.faults.Has(fault.LockSurvivesHolder) {
			continue
		}
		for _, name := range m.lockNames() {
			l := m.locks.locks[name]
			l.queue = slices.DeleteFunc(l.queue, func(c claim) bool { return c.member == gone })
			if l.holder == gone {
				m.release(name, l)
			}
		}
	}
	return nobody
}

// suspendLocks takes the locks from their holders, who stay first in the queues.
func (m *Machine) suspendLocks() {
	for _, name := range m.lockNames() {
		if l := m.locks.locks[name]; !l.holder.IsZero() {
			c := claim{l.holder, l.fence}
			m.release(name, l)
			l.queue = slices.Insert(l.queue, 0, c)
		}
	}
}

// openLocks orders that locks may be granted: when no holder of an earlier view can
// have a lease any more, and the token has been round in this one.
func (m *Machine) openLocks() bool {
	t := &m.locks
	if !t.closed || t.opening || m.me != 0 || m.away() || !m.primary() || m.now.Before(t.openAt) || !m.alone() && !m.returned || !m.leased() {
		return false
	}
	t.opening = true
	m.claims.push(KindOpen, nil)
	return true
}

// leased reports whether the latest proof that this member is in a primary view is
// younger than a lease.
func (m *Machine) leased() bool {
	return m.alone() && !m.away() || m.now.Before(m.proofAt.Add(m.cfg.Timers.Lease))
}

// leaseEnd returns when the lease of the own locks ends; zero: there are none.
func (m *Machine) leaseEnd() time.Time {
	if m.cfg.Size == 0 || m.alone() && !m.away() {
		return time.Time{}
	}
	for name, l := range m.locks.locks {
		if l.holder == m.self.Member && !m.claims.lapsed[name] {
			return m.proofAt.Add(m.cfg.Timers.Lease)
		}
	}
	return time.Time{}
}

// lapse ends the leases of the own locks.
func (m *Machine) lapse() {
	for _, name := range m.lockNames() {
		if l := m.locks.locks[name]; l.holder == m.self.Member && !m.claims.lapsed[name] {
			m.emit(Released{Lock: name, Holder: l.holder, Fence: l.fence})
			m.claims.lapsed[name] = true
			delete(m.claims.wanted, name)
			m.claims.push(KindUnlock, []byte(name))
		}
	}
	m.hurry()
}
