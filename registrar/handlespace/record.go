package handlespace

import (
	"cmp"
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
	Suspect    bool
	Cause      RemovalCause // why suspect, else zero
	Reports    int          // unreachable reports since the latest registration

	encoded []byte
}

// Encoded returns the element's Pool Element parameter without ASAP transport, as
// it goes into replies, with padding. It must not be changed.
func (r *Record) Encoded() []byte { return r.encoded }

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
	return cmp.Or(cmp.Compare(k.Handle, l.Handle), cmp.Compare(k.ID, l.ID))
}

// IsZero reports whether the generation is that of no element.
func (g Generation) IsZero() bool { return g == Generation{} }
