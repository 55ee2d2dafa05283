package handlespace

import (
	"cmp"
	"time"

	"rserpool/asap/param"
)

// Tombstone remembers a removed element, so that it stays removed when a side that
// has missed the removal comes back. A registration takes it away, a deregistration of
// what is not there raises it, or leaves one.
type Tombstone struct {
	Key        Key
	Generation Generation
	// Until is when it may be forgotten: the registration life (at most a day)
	// and Config.Tombstone after the removal. For a deregistration of what is not
	// there, a day counts as the registration life.
	Until time.Time
}

// PoolState is what a pool is besides its elements.
type PoolState struct {
	Handle  param.PoolHandle
	Created time.Time
	// Founder is the element whose registration created the pool, User its user
	// transport as it is now, Policy the pool's type.
	Founder param.PEID
	User    param.Transport
	Policy  param.PolicyType
	Owner   string // Register.Owner of that registration
}

// Item is one piece of the replicated state as it travels between registrars: an
// element, a tombstone, or a pool. Exactly one of the pointers is not nil.
type Item struct {
	Record    *Record
	Reporters []string // whose reports of Record were counted
	Tombstone *Tombstone
	Pool      *PoolState
}

// Marks are the pieces of the replicated state that are one for all elements. The
// larger ones win.
type Marks struct {
	// Stamp is the largest one of forgotten tombstones: the generations of new
	// elements begin above it.
	Stamp uint64
	// HeldBack is until when elements are held back.
	HeldBack time.Time
}

// Key returns the key of the element, or of the pool with the identifier 0.
func (i *Item) Key() Key {
	switch {
	case i.Record != nil:
		return i.Record.Key()
	case i.Tombstone != nil:
		return i.Tombstone.Key
	}
	return Key{Handle: i.Pool.Handle}
}

// Generation returns that of the element or tombstone.
func (i *Item) Generation() Generation {
	switch {
	case i.Record != nil:
		return i.Record.Generation
	case i.Tombstone != nil:
		return i.Tombstone.Generation
	}
	return Generation{}
}

// Beats reports whether i wins against j, which has the same key, when sides meet:
// the larger generation (what was registered later, then what was confirmed later); at equal ones an entry against a tombstone, a confirmed
// home against an unconfirmed one, the larger home. What differs then are marks of
// less weight: who is not suspect, was refreshed later, or has more reports; and at
// last the larger digest, so that every registrar decides alike. Of pools the older
// one wins.
func (i *Item) Beats(j *Item) bool { return i.compare(j) > 0 }

func (i *Item) compare(j *Item) int {
	if i.Pool != nil && j.Pool != nil {
		return i.Pool.compare(j.Pool)
	}
	if c := i.Generation().Compare(j.Generation()); c != 0 {
		return c
	}
	a, b := i.Record, j.Record
	if a == nil || b == nil {
		if a == nil && b == nil {
			return i.Tombstone.Until.Compare(j.Tombstone.Until)
		}
		return order(a != nil, b != nil)
	}
	return cmp.Or(
		order(a.Confirmed, b.Confirmed),
		a.Home().Compare(b.Home()),
		order(!a.Suspect, !b.Suspect),
		a.Refreshed.Compare(b.Refreshed),
		cmp.Compare(a.Reports, b.Reports),
		cmp.Compare(a.digest, b.digest),
	)
}

func (p *PoolState) compare(q *PoolState) int {
	return cmp.Or(
		q.Created.Compare(p.Created),
		cmp.Compare(q.Founder, p.Founder),
		cmp.Compare(p.digest(), q.digest()),
	)
}

// order puts true above false.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
