package handlespace

import (
	"cmp"
	"strings"
	"time"

	"rserpool/asap/param"
)

// Record is one stored element. Records are never changed once published: a
// change stores a new one.
type Record struct {
	Handle     param.PoolHandle
	Element    param.PoolElement
	Generation Generation
	Registered time.Time // first registration of this identifier
	Refreshed  time.Time // latest (re-)registration
	Expires    time.Time // zero: never
	// HomeIncarnation is that of Element.Home; 0: a registrar outside the ring.
	HomeIncarnation uint64
	// Confirmed says that the element knows its home: it registered there, or
	// acknowledged that it was taken over.
	Confirmed bool
	Suspect   bool
	Cause     RemovalCause // why suspect, else zero
	// Held is until when a suspect is held back at most; zero: a suspect because
	// of the removal limit, or none.
	Held    time.Time
	Reports int // unreachable reports since the latest registration

	encoded []byte
	digest  uint64 // of all of it, and of who reported
}

// Home returns the home registrar.
func (r *Record) Home() HomeID { return HomeID{r.Element.Home, r.HomeIncarnation} }

// Encoded returns the element's Pool Element parameter without ASAP transport, as
// it goes into replies, with padding. It must not be changed.
func (r *Record) Encoded() []byte { return r.encoded }

// refresh makes now the time of the latest registration.
func (r *Record) refresh(now time.Time) {
	r.Refreshed, r.Expires = now, time.Time{}
	if life, finite := r.Element.Life.Duration(); finite {
		r.Expires = now.Add(life)
	}
}

// sound takes the suspect mark off.
func (r *Record) sound() { r.Suspect, r.Cause, r.Held = false, 0, time.Time{} }

// due returns when the element goes if nothing happens. Suspects stay, but for
// those that are only held back. Whether an element that was taken over lives is
// found out by a keep-alive: the clock of its new home may differ from the one by
// which it was registered.
func (r *Record) due() (time.Time, bool) {
	switch {
	case r.Suspect:
		return r.Held, !r.Held.IsZero()
	case !r.Confirmed && !r.Element.ASAP.IsZero():
		return time.Time{}, false
	}
	return r.Expires, !r.Expires.IsZero()
}

// Key names an element: its pool and its identifier therein. The zero Key comes
// before all others.
type Key struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// Key returns the record's key.
func (r *Record) Key() Key { return Key{r.Handle, r.Element.ID} }

// Compare orders keys by handle, octet by octet, then by identifier.
func (k Key) Compare(l Key) int {
	if c := strings.Compare(string(k.Handle), string(l.Handle)); c != 0 {
		return c
	}
	return cmp.Compare(k.ID, l.ID)
}

// Compare orders generations by content, then stamp, raiser and its incarnation.
func (g Generation) Compare(h Generation) int {
	return cmp.Or(cmp.Compare(g.Content, h.Content), cmp.Compare(g.Stamp, h.Stamp), cmp.Compare(g.Raiser, h.Raiser), cmp.Compare(g.Incarnation, h.Incarnation))
}

// Compare orders homes by identifier, then incarnation.
func (h HomeID) Compare(i HomeID) int {
	return cmp.Or(cmp.Compare(h.ID, i.ID), cmp.Compare(h.Incarnation, i.Incarnation))
}

// IsZero reports whether the generation is that of no element.
func (g Generation) IsZero() bool { return g == Generation{} }
