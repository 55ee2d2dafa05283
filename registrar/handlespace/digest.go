package handlespace

import (
	"encoding/binary"
	"time"

	"rserpool/asap/param"
)

// Ranges is into how many ranges keys are spread by their hash. Each has digests of
// its own, so that registrars that differ find out where.
const Ranges = 256

// Range returns the range of a key.
func (k Key) Range() int { return hashOf(k.Handle).of(k.ID) }

// of returns the range of an element of the pool whose handle has the hash h.
func (h hash) of(id param.PEID) int { return int(h.word(uint64(id)).end() >> 56) }

func hashOf(handle param.PoolHandle) hash { return hash(0).text(string(handle)) }

// Digest is one 64-bit sum over whole records with their generations, and over
// tombstones, for each range. It is the same at all registrars that know the same.
// Which removals count against the removal limit is not part of it.
type Digest struct {
	// Entries covers elements and pools.
	Entries, Tombstones [Ranges]uint64
}

// Sum returns one number for all.
func (d *Digest) Sum() uint64 {
	h := hash(0)
	for i := range d.Entries {
		h = h.word(d.Entries[i]).word(d.Tombstones[i])
	}
	return h.end()
}

// hash is a 64-bit hash on its way. It is the same on all machines.
type hash uint64

func (h hash) word(v uint64) hash {
	h = (h ^ hash(v)) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

func (h hash) text(s string) hash {
	h = h.word(uint64(len(s)))
	for ; len(s) >= 8; s = s[8:] {
		h = h.word(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
	}
	var last uint64
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	return h.word(last)
}

func (h hash) octets(b []byte) hash {
	h = h.word(uint64(len(b)))
	for ; len(b) >= 8; b = b[8:] {
		h = h.word(binary.LittleEndian.Uint64(b))
	}
	var last uint64
	for i, o := range b {
		last |= uint64(o) << (8 * i)
	}
	return h.word(last)
}

func (h hash) time(t time.Time) hash { return h.word(uint64(nanoseconds(t))) }

func (h hash) transport(t *param.Transport) hash {
	h = h.word(uint64(t.Type)<<48 | uint64(t.Port)<<32 | uint64(t.Use)).word(uint64(t.ServiceCode)).octets(t.Opaque)
	h = h.word(uint64(len(t.Addrs)))
	for _, a := range t.Addrs {
		b := a.As16()
		h = h.word(binary.LittleEndian.Uint64(b[:8])).word(binary.LittleEndian.Uint64(b[8:]))
	}
	return h
}

func (h hash) generation(g Generation) hash {
	return h.word(g.Content).word(g.Stamp).word(uint64(g.Raiser)).word(g.Incarnation)
}

// end spreads the last words over all bits.
func (h hash) end() uint64 {
	v := uint64(h)
	v = (v ^ v>>33) * 0xff51afd7ed558ccd
	v = (v ^ v>>33) * 0xc4ceb9fe1a85ec53
	return v ^ v>>33
}

// seal computes the record's digest, when nothing in it will change any more.
func (r *Record) seal(reporters []string) {
	flags := uint64(r.Cause)<<2 | uint64(order(r.Confirmed, false))<<1 | uint64(order(r.Suspect, false))
	h := hash(1).text(string(r.Handle)).octets(r.octets()).
		generation(r.Generation).word(r.HomeIncarnation).word(flags).word(uint64(r.Reports)).
		word(uint64(r.registered)).time(r.Refreshed).word(uint64(r.held))
	for _, reporter := range reporters {
		h = h.text(reporter)
	}
	r.digest = h.end()
}

func (t *Tombstone) digest() uint64 {
	return hash(2).text(string(t.Key.Handle)).word(uint64(t.Key.ID)).generation(t.Generation).time(t.Until).end()
}

func (p *PoolState) digest() uint64 {
	return hash(3).text(string(p.Handle)).time(p.Created).word(uint64(p.Founder)).
		transport(&p.User).word(uint64(p.Policy)).text(p.Owner).end()
}
