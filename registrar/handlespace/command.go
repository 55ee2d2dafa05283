package handlespace

import (
	"net/netip"
	"time"

	"rserpool/asap/param"
)

// Generation tells one life of an element from another: it grows with each
// accepted registration, re-registration and deregistration of the same
// (handle, identifier). Commands that remove an element name the generation
// they mean, and do nothing to another one.
type Generation struct {
	// Stamp is max(previous + 1, the home registrar's clock in ms).
	Stamp uint64
	// Raiser is the registrar that raised it, by identifier and incarnation.
	Raiser      param.RegistrarID
	Incarnation uint64
}

// HomeID is one life of a home registrar. Incarnation 0: a registrar outside the
// ring, which has none that we know.
type HomeID struct {
	ID          param.RegistrarID
	Incarnation uint64
}

// MergeEntry is one element about which sides differed when they met.
type MergeEntry struct {
	Key Key
	// Kept and Lost are the generations that won and lost; zero: one side had
	// nothing.
	Kept, Lost Generation
	// KeptHome and LostHome are the homes of entries.
	KeptHome, LostHome HomeID
	// Removed: what won is a removal.
	Removed bool
}

// RemovalCause says why an element left the handlespace.
type RemovalCause int

// Removal causes. All but Deregistered and Administrative count as unattended
// and are limited by Config.RemovalShare.
const (
	Deregistered   RemovalCause = iota + 1 // the element said so
	Administrative                         // an administrator said so
	Expired                                // registration life passed
	Unreachable                            // did not answer a keep-alive
	Reported                               // more unreachable reports than MaxBadPEReports
)

// String names the cause in one word, as metrics and the admin API do.
func (c RemovalCause) String() string {
	switch c {
	case Deregistered:
		return "deregistered"
	case Administrative:
		return "administrative"
	case Expired:
		return "expired"
	case Unreachable:
		return "unreachable"
	case Reported:
		return "reported"
	}
	return "none"
}

// Command changes the handlespace. Commands are plain data, applied by Apply in
// one order at every registrar. What they refer to belongs to the handlespace
// from then on and must not be changed.
type Command interface{ command() }

// Register adds or replaces an element. Element is complete: home, policy, user
// and ASAP transport as they shall be stored.
type Register struct {
	Handle  param.PoolHandle
	Element param.PoolElement
	// Raiser and Incarnation become part of the new generation.
	Raiser      param.RegistrarID
	Incarnation uint64
	// Conflict, if not zero, is the generation of a stored element with the
	// same identifier that the proposer knows to be another, living element
	// (AMB-09). If that very generation is still stored, the registration is
	// rejected with cause 0x4.
	Conflict Generation
	// Owner is who registers, stable per client (its address or authenticated
	// identity). The pools that one owner created are limited by
	// Config.MaxPoolsPerOwner; empty is not limited.
	Owner string
	// Now is the proposer's clock; expiry counts from it.
	Now time.Time
}

// Deregister removes an element by its own word.
type Deregister struct {
	Handle param.PoolHandle
	ID     param.PEID
	// From are the addresses the request came from: the element goes only if
	// one of them is among those of its ASAP transport (AMB-28), else the
	// request is rejected with cause 0xa. Empty skips the check.
	From []netip.Addr
	Now  time.Time
}

// Remove removes an element that others found dead, or that an administrator
// wants gone. Unattended causes are subject to the removal limit of the pool:
// beyond it the element is marked suspect instead, and stays so: another
// unattended removal of a suspect does nothing.
type Remove struct {
	Handle     param.PoolHandle
	ID         param.PEID
	Generation Generation // zero (administrators only): whatever is stored
	Cause      RemovalCause
	Now        time.Time
}

// Report counts an unreachable report. Each reporter counts once per element
// generation, and when there are more than Config.MaxBadPEReports the element is
// removed, subject to the removal limit. Reports of a suspect do nothing.
type Report struct {
	Handle     param.PoolHandle
	ID         param.PEID
	Generation Generation
	Reporter   string // who reported, stable per reporter (its address)
	Now        time.Time
}

// Alive takes the suspect mark off an element that answered a keep-alive. Its
// reports stay counted (AMB-16).
type Alive struct {
	Handle     param.PoolHandle
	ID         param.PEID
	Generation Generation
	Now        time.Time
}

func (Register) command()   {}
func (Deregister) command() {}
func (Remove) command()     {}
func (Report) command()     {}
func (Alive) command()      {}

// Event is what a command changed, or why it did not.
type Event interface{ event() }

// Registered says that the element was stored, and is not suspect. Previous is
// the replaced record, nil for a new element.
type Registered struct {
	Handle      param.PoolHandle
	Record      *Record
	Previous    *Record
	PoolCreated bool
}

// Rejected says that a registration or deregistration was refused and nothing changed.
type Rejected struct {
	Handle param.PoolHandle
	ID     param.PEID
	Causes param.OperationError
}

// Removed says that the element is gone; with it the pool, if PoolRemoved.
type Removed struct {
	Handle      param.PoolHandle
	Record      *Record
	Cause       RemovalCause
	PoolRemoved bool
}

// Absent says that a deregistration found nothing to remove. It is granted all the same
// (ASAP-3.2-12), and peers are not told (ASAP-3.2-17).
type Absent struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// Suspected says that the element would have been removed, but the pool lost too large a
// share of its elements within a short time. It stays, marked, until it answers,
// registers again, or an administrator removes it.
type Suspected struct {
	Handle param.PoolHandle
	Record *Record
	Cause  RemovalCause
}

// Recovered says that the element is no longer suspect.
type Recovered struct {
	Handle param.PoolHandle
	Record *Record
}

// Counted says that an unreachable report was counted and the element stays.
type Counted struct {
	Handle  param.PoolHandle
	Record  *Record
	Reports int
}

func (Registered) event() {}
func (Rejected) event()   {}
func (Removed) event()    {}
func (Absent) event()     {}
func (Suspected) event()  {}
func (Recovered) event()  {}
func (Counted) event()    {}
