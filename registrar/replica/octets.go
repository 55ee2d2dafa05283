package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// writer appends the pieces of a payload. The first error sticks.
type writer struct {
	buf []byte
	err error
}

func (w *writer) u8(v uint8)   { w.buf = append(w.buf, v) }
func (w *writer) u32(v uint32) { w.buf = binary.BigEndian.AppendUint32(w.buf, v) }
func (w *writer) u64(v uint64) { w.buf = binary.BigEndian.AppendUint64(w.buf, v) }

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

func (w *writer) count(n int) {
	if n > math.MaxUint16 {
		w.err = errors.Join(w.err, fmt.Errorf("length %d", n))
	}
	w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(n))
}

func (w *writer) text(s string) {
	w.count(len(s))
	w.buf = append(w.buf, s...)
}

func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.u64(0)
		return
	}
	w.u64(uint64(t.UnixNano()))
}

func (w *writer) key(h param.PoolHandle, id param.PEID) {
	w.text(string(h))
	w.u32(uint32(id))
}

func (w *writer) generation(g handlespace.Generation) {
	w.u64(g.Content)
	w.u64(g.Stamp)
	w.home(handlespace.HomeID{ID: g.Raiser, Incarnation: g.Incarnation})
}

// meant appends an element's key and the generation that is meant.
func (w *writer) meant(h param.PoolHandle, id param.PEID, g handlespace.Generation) {
	w.key(h, id)
	w.generation(g)
}

func (w *writer) home(h handlespace.HomeID) {
	w.u32(uint32(h.ID))
	w.u64(h.Incarnation)
}

func (w *writer) view(v ring.ViewID) {
	w.u64(v.Counter)
	w.home(homeOf(v.Coordinator))
}

func (w *writer) addrs(addrs []netip.Addr) {
	w.count(len(addrs))
	for _, a := range addrs {
		w.text(string(a.AsSlice()))
		w.text(a.Zone())
	}
}

func (w *writer) element(e *param.PoolElement) {
	at := len(w.buf)
	w.u32(0)
	encoded, err := param.AppendPoolElement(w.buf, e, true)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	w.buf = encoded
	binary.BigEndian.PutUint32(w.buf[at:], uint32(len(w.buf)-at-4))
}

// reader takes the pieces of a payload. Behind its end, or when something is wrong,
// it gives zero values and is bad.
type reader struct {
	rest     []byte
	bad      bool
	decoding *param.Decoding // of elements; its Handles are the texts that are known
}

func (r *reader) octets(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.octets(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.octets(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.octets(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) flag() bool { return r.u8() != 0 }

// count takes the length of a list whose members have size octets at least.
func (r *reader) count(size int) int {
	b := r.octets(2)
	if b == nil {
		return 0
	}
	n := int(binary.BigEndian.Uint16(b))
	if n*size > len(r.rest) {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) text() string { return string(r.decoding.Handles.Handle(r.octets(r.count(1)))) }

func (r *reader) time() time.Time {
	if ns := int64(r.u64()); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

func (r *reader) handle() param.PoolHandle { return param.PoolHandle(r.text()) }
func (r *reader) id() param.PEID           { return param.PEID(r.u32()) }

func (r *reader) home() handlespace.HomeID {
	return handlespace.HomeID{ID: param.RegistrarID(r.u32()), Incarnation: r.u64()}
}

func (r *reader) generation() handlespace.Generation {
	g := handlespace.Generation{Content: r.u64(), Stamp: r.u64()}
	raiser := r.home()
	g.Raiser, g.Incarnation = raiser.ID, raiser.Incarnation
	return g
}

func (r *reader) view() ring.ViewID {
	return ring.ViewID{Counter: r.u64(), Coordinator: memberOf(r.home())}
}

func (r *reader) addrs() (out []netip.Addr) {
	for range r.count(4) {
		a, ok := netip.AddrFromSlice(r.octets(r.count(1)))
		zone := r.text()
		if r.bad = r.bad || !ok; r.bad {
			return nil
		}
		if zone != "" {
			a = a.WithZone(zone)
		}
		out = append(out, a)
	}
	return out
}

func (r *reader) element() param.PoolElement {
	b := r.octets(int(r.u32()))
	if r.bad {
		return param.PoolElement{}
	}
	*r.decoding = param.Decoding{Handles: r.decoding.Handles}
	in := r.decoding.NewReader(b)
	e, _, err := in.PoolElement()
	if err == nil {
		err = in.Finish()
	}
	r.bad = err != nil
	return e
}
