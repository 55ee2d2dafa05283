package handlespace

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"strings"
	"time"

	"rserpool/asap/param"
)

// Record is one stored element. Records are never changed once published: a
// change stores a new one. What they hold of the element is its encoded form.
type Record struct {
	Handle     param.PoolHandle
	Generation Generation
	// HomeIncarnation is that of the home; 0: a registrar outside the ring.
	HomeIncarnation uint64
	Refreshed       time.Time // latest (re-)registration

	registered, held int64  // as nanoseconds says
	digest           uint64 // of all of it, and of who reported
	ID               param.PEID
	// Reports counts unreachable reports since the latest registration.
	Reports int32
	length  uint16       // of what is in room
	asap    uint16       // see octets
	Cause   RemovalCause // why suspect, else zero
	Suspect bool
	// Confirmed says that the element knows its home: it registered there, or
	// acknowledged that it was taken over.
	Confirmed bool

	// room has the octets of nearly every element, so that a record is one piece of
	// memory; large those of others.
	large *[]byte
	room  [64]byte
}

// octets returns the Pool Element parameter without ASAP transport, as it goes into
// replies, with padding; behind it, from asap on, the ASAP transport.
func (r *Record) octets() []byte {
	if r.large != nil {
		return *r.large
	}
	return r.room[:r.length]
}

// nanoseconds is a time as records keep it: since 1970, 0 for none.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanoseconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Registered returns when this identifier registered for the first time.
func (r *Record) Registered() time.Time { return fromNanoseconds(r.registered) }

// Held returns until when a suspect is held back at most; zero: a suspect because of
// the removal limit, or none.
func (r *Record) Held() time.Time { return fromNanoseconds(r.held) }

// Entry is a Record written out: all of it that registrars exchange.
type Entry struct {
	Handle                param.PoolHandle
	Element               param.PoolElement
	Generation            Generation
	HomeIncarnation       uint64
	Registered, Refreshed time.Time
	Confirmed, Suspect    bool
	Cause                 RemovalCause
	Held                  time.Time
	Reports               int
}

// Home returns the home registrar.
func (e *Entry) Home() HomeID { return HomeID{e.Element.Home, e.HomeIncarnation} }

// Expires returns when the registration runs out, zero for never.
func (e *Entry) Expires() time.Time { return expiry(e.Element.Life, e.Refreshed) }

// Entry returns the record written out.
func (r *Record) Entry() Entry {
	return Entry{r.Handle, r.Element(), r.Generation, r.HomeIncarnation, r.Registered(), r.Refreshed,
		r.Confirmed, r.Suspect, r.Cause, r.Held(), int(r.Reports)}
}

// newRecord returns the record of an element, with a copy of its octets.
func newRecord(handle param.PoolHandle, e *param.PoolElement, c coded) *Record {
	r := &Record{Handle: handle, ID: e.ID, asap: uint16(c.asap)}
	if len(c.octets) > len(r.room) {
		large := bytes.Clone(c.octets)
		r.large = &large
	} else {
		r.length = uint16(copy(r.room[:], c.octets))
	}
	return r
}

// changed returns a copy, to be changed and stored.
func (r *Record) changed() *Record {
	c := *r
	if r.large != nil {
		large := bytes.Clone(*r.large)
		c.large = &large
	}
	return &c
}

// coded is an element as records hold it.
type coded struct {
	octets []byte
	asap   int // where the ASAP transport begins
}

// encode encodes an element, in room.
func encode(room []byte, e *param.PoolElement) (coded, error) {
	plain, err := param.AppendPoolElement(room[:0], e, false)
	n := len(plain)
	if err != nil || e.ASAP.IsZero() {
		return coded{plain, n}, err
	}
	// The same once more with what is missing at its end.
	both, err := param.AppendPoolElement(plain, e, true)
	return coded{append(both[:n], both[n+n:]...), n}, err
}

// Where an encoded element has them: behind header and identifier.
const homeAt, lifeAt = 8, 12

// move gives the element another home, which it does not know yet. The record must
// not be published.
func (r *Record) move(home HomeID) {
	binary.BigEndian.PutUint32(r.octets()[homeAt:], uint32(home.ID))
	r.HomeIncarnation, r.Confirmed = home.Incarnation, false
}

// Element returns the element. It decodes: whoever wants only the identifier, the
// home, the ASAP transport, or the parameter for a message has these by field, Home,
// ASAP and Encoded.
func (r *Record) Element() param.PoolElement {
	octets := r.octets()
	if r.HasASAP() {
		// One parameter of both: the length says so.
		octets = append(make([]byte, 0, 128), octets...)
		binary.BigEndian.PutUint16(octets[2:], uint16(len(octets)))
	}
	in := (&param.Decoding{Limits: param.Limits{Addresses: param.MaxLength}}).NewReader(octets)
	e, _, err := in.PoolElement()
	if err != nil {
		panic("handlespace: stored element can't be decoded: " + err.Error())
	}
	return e
}

// ASAP returns the element's ASAP transport, zero if it has none.
func (r *Record) ASAP() param.Transport {
	if !r.HasASAP() {
		return param.Transport{}
	}
	in := (&param.Decoding{Limits: param.Limits{Addresses: param.MaxLength}}).NewReader(r.octets()[r.asap:])
	t, err := in.Transport()
	if err != nil {
		panic("handlespace: stored transport can't be decoded: " + err.Error())
	}
	return t
}

// HasASAP reports whether the element has an ASAP transport.
func (r *Record) HasASAP() bool { return int(r.asap) < len(r.octets()) }

// Home returns the home registrar.
func (r *Record) Home() HomeID { return HomeID{r.home(), r.HomeIncarnation} }

func (r *Record) home() param.RegistrarID {
	return param.RegistrarID(binary.BigEndian.Uint32(r.octets()[homeAt:]))
}

// Life returns the registration life.
func (r *Record) Life() param.Life { return param.Life(binary.BigEndian.Uint32(r.octets()[lifeAt:])) }

// Encoded returns the element's Pool Element parameter without ASAP transport, as
// it goes into replies, with padding. It must not be changed.
func (r *Record) Encoded() []byte { return r.octets()[:r.asap:r.asap] }

// Expires returns when the registration runs out, zero for never.
func (r *Record) Expires() time.Time { return expiry(r.Life(), r.Refreshed) }

func expiry(life param.Life, refreshed time.Time) time.Time {
	if life, finite := life.Duration(); finite && !refreshed.IsZero() {
		return refreshed.Add(life)
	}
	return time.Time{}
}

// sound takes the suspect mark off.
func (r *Record) sound() { r.Suspect, r.Cause, r.held = false, 0, 0 }

// due returns when the element goes if nothing happens. Suspects stay, but for
// those that are only held back. Whether an element that was taken over lives is
// found out by a keep-alive: the clock of its new home may differ from the one by
// which it was registered.
func (r *Record) due() (time.Time, bool) {
	switch {
	case r.Suspect:
		return r.Held(), r.held != 0
	case !r.Confirmed && r.HasASAP(), r.Life() == param.InfiniteLife:
		return time.Time{}, false
	}
	return r.Expires(), true
}

// Key names an element: its pool and its identifier therein. The zero Key comes
// before all others.
type Key struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// Key returns the record's key.
func (r *Record) Key() Key { return Key{r.Handle, r.ID} }

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
