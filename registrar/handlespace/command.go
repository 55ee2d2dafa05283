package handlespace

import (
	"net/netip"
	"time"

	"rserpool/asap/param"
)

// Generation tells one life of an element from another: it is raised by the
// element's own word, or an administrator's: a registration, a re-registration, a
// deregistration, or that it acknowledged its new home. Commands that remove an
// element or move it name the generation they mean, and do nothing to another one.
// When sides meet the larger generation wins.
type Generation struct {
	// Content is the Stamp of the element's latest registration, re-registration
	// or deregistration. It goes first when generations are compared: a home
	// that confirmed an old copy does not win against a later registration.
	Content uint64
	// Stamp is max(previous + 1, the home registrar's clock in μs): sides that were
	// apart tell what came later as well as their clocks do. Previous is that of the
	// element, of its tombstone, or of forgotten tombstones.
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
	// Kept and Lost are the generations that won and lost; Lost is zero when
	// some side had nothing and the others agreed.
	Kept, Lost Generation
	// KeptHome and LostHome are the homes of entries.
	KeptHome, LostHome HomeID
	// Removed: what won is a removal.
	Removed bool
}

// RemovalCause says why an element left the handlespace.
type RemovalCause uint8

// Removal causes. Expired, Unreachable and Reported are unattended: limited by
// Config.RemovalShare, and held back after registrars were lost.
const (
	Deregistered   RemovalCause = iota + 1 // the element said so
	Administrative                         // an administrator said so
	Expired                                // registration life passed
	Unreachable                            // did not answer a keep-alive
	Reported                               // more unreachable reports than MaxBadPEReports
	Withdrawn                              // a registrar outside the ring said so
	Superseded                             // had been removed at the other side of a partition
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
	case Withdrawn:
		return "withdrawn"
	case Superseded:
		return "superseded"
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
	// Raiser and Incarnation become part of the new generation. The incarnation
	// is also that of the home, which is the raiser.
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

// Deregister removes an element by its own word. If there is none, it still leaves a
// tombstone: what was registered before on another side goes when the sides meet.
type Deregister struct {
	Handle param.PoolHandle
	ID     param.PEID
	// From are the addresses the request came from: the element goes only if
	// one of them is among those of its ASAP transport (AMB-28), else the
	// request is rejected with cause 0xa. Empty skips the check.
	From []netip.Addr
	// Raiser and Incarnation become part of the tombstone's generation.
	Raiser      param.RegistrarID
	Incarnation uint64
	Now         time.Time
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

	spot spot // where Due found it
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

// Import adds or replaces an element as a registrar outside the ring announced it
// (ADD_PE, or an entry of its table). Element.Home is that registrar. Nothing but
// the limits is checked (ENRP-3.3.1-05, AMB-38). If nothing of the element and its
// home differs from what is stored, it is only refreshed; else its generation is
// raised in the registrar's name.
type Import struct {
	Handle  param.PoolHandle
	Element param.PoolElement
	Now     time.Time
}

// Forget removes an element because a registrar outside the ring said so (DEL_PE),
// or did not list it at the end of a resynchronisation. Its tombstone's generation
// is raised in the registrar's name.
type Forget struct {
	Handle param.PoolHandle
	ID     param.PEID
	// Home: only if this is the stored home's identifier; 0: whatever it is.
	Home param.RegistrarID
	// Generation: only if this is stored; zero: whatever is.
	Generation Generation
	Raiser     param.RegistrarID // who said so
	Now        time.Time
}

// Takeover gives the elements of a home that is gone new homes, spread evenly over
// To in the order of their keys. Generations stay; the new homes are unconfirmed.
type Takeover struct {
	From HomeID
	To   []HomeID // without From; not empty
	// Limit is how many elements are moved by this command; 0: all. Who has many
	// to move repeats it, so that no command takes long.
	Limit int
	Now   time.Time
}

// Confirm says that an element acknowledged a keep-alive with H=1 of its home: it
// raises the generation in the home's name, and its registration life begins anew by
// the home's clock. Nothing happens when the element has
// another generation or home, or has confirmed before.
type Confirm struct {
	Handle     param.PoolHandle
	ID         param.PEID
	Generation Generation
	Home       HomeID
	Now        time.Time
}

// HoldBack says that registrars were lost: until Now + Config.HoldBack, elements
// that cannot be reached or expire are marked suspect instead of removed.
type HoldBack struct{ Now time.Time }

// Sweep forgets tombstones that are old enough, up to a bound. NextSweep tells when
// there are some.
type Sweep struct{ Now time.Time }

// Merge takes what another side knows: each item replaces what it beats (Item.Beats)
// and is ignored else. So the order of items, and of several Merges, does not
// matter. Limits don't apply: what was acknowledged stays.
type Merge struct {
	Items []Item
	// Marks are those of the other side.
	Marks Marks
	// Sides is how many registrars, this one among them, may tell what they know until
	// End; less than 2 stands for 2. So many times Config.MaxTombstones are remembered
	// until then.
	Sides int
	// Settle is how many pools get what Items of all Merges said of them, and tombstones
	// for which there is no room after End are forgotten, when there are no more Items to
	// come.
	Settle int
	// End says that this was the last one of an exchange, and settles what is left.
	End bool
}

func (Register) command()   {}
func (Deregister) command() {}
func (Remove) command()     {}
func (Report) command()     {}
func (Alive) command()      {}
func (Import) command()     {}
func (Forget) command()     {}
func (Takeover) command()   {}
func (Confirm) command()    {}
func (HoldBack) command()   {}
func (Sweep) command()      {}
func (Merge) command()      {}

// Event is what a command changed, or why it did not.
type Event interface{ event() }

// Registered says that the element was stored, and is not suspect. Previous is
// the replaced record, nil for a new element; of the same generation if an Import
// only refreshed it.
type Registered struct {
	Handle      param.PoolHandle
	Record      *Record
	Previous    *Record
	PoolCreated bool
	Imported    bool // by an Import: peers outside the ring know
}

// Adopted says that the element was stored as another side knows it, suspect or
// not. Previous is the replaced record, nil for a new element. Everything about the
// element may differ.
type Adopted struct {
	Handle      param.PoolHandle
	Record      *Record
	Previous    *Record
	PoolCreated bool
}

// Rehomed says that a takeover gave the element another home, which it has yet to
// confirm.
type Rehomed struct {
	Handle   param.PoolHandle
	Record   *Record
	Previous *Record
}

// Confirmed says that the element acknowledged its home. Previous has the former
// generation.
type Confirmed struct {
	Handle   param.PoolHandle
	Record   *Record
	Previous *Record
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
	Generation  Generation // of the tombstone
}

// Absent says that a deregistration found nothing to remove. It is granted all the same
// (ASAP-3.2-12), and peers are not told (ASAP-3.2-17).
type Absent struct {
	Handle     param.PoolHandle
	ID         param.PEID
	Generation Generation // of the tombstone; zero: there was no room for one
}

// Suspected says that the element would have been removed, but the pool lost too large a
// share of its elements within a short time, or registrars were lost (Record.Held).
// It stays, marked, until it answers, registers again, or an administrator removes it;
// if held, until then at most.
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
func (Adopted) event()    {}
func (Rehomed) event()    {}
func (Confirmed) event()  {}
