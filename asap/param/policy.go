package param

import "encoding/binary"

// words returns the number of 32-bit fields behind the type of a policy of RFC
// 5356, and false for any other.
func (t PolicyType) words() (int, bool) {
	switch t {
	case RoundRobin, Random:
		return 0, true
	case WeightedRoundRobin, WeightedRandom, Priority, LeastUsed, RandomizedLeastUsed:
		return 1, true
	case LeastUsedDegradation, PriorityLeastUsed:
		return 2, true
	}
	return 0, false
}

// Standard reports whether the type is one of the nine of RFC 5356, whose format
// this package knows.
func (t PolicyType) Standard() bool {
	_, ok := t.words()
	return ok
}

// Valid reports whether the type may be used at all: 0x00000000 and 0x40000000
// may not (RFC 5356, section 7.1).
func (t PolicyType) Valid() bool { return t&^policyAdaptiveBit != 0 }

// Policy takes the next parameter, which must be a policy.
func (r *Reader) Policy() (Policy, error) {
	p, err := r.Expect(TypePolicy)
	if err != nil {
		return Policy{}, err
	}
	return p.Policy()
}

// Policy decodes a Pool Member Selection Policy parameter.
func (p Param) Policy() (Policy, error) {
	if len(p.value()) < 4 {
		return Policy{}, Invalid(p.raw, "policy of %d octets", len(p.raw))
	}
	pol := Policy{Type: PolicyType(binary.BigEndian.Uint32(p.value()))}
	data := p.value()[4:]
	if !pol.Type.Valid() {
		return Policy{}, Invalid(p.raw, "policy type 0x%08x", uint32(pol.Type))
	}
	words, standard := pol.Type.words()
	if !standard {
		pol.Data = string(data)
		return pol, nil
	}
	if len(data) != 4*words {
		return Policy{}, Invalid(p.raw, "%s policy of %d octets", pol.Type, len(p.raw))
	}
	var v [2]uint32
	for i := range words {
		v[i] = binary.BigEndian.Uint32(data[4*i:])
	}
	switch pol.Type {
	case WeightedRoundRobin, WeightedRandom:
		pol.Weight = v[0]
	case Priority:
		pol.Priority = v[0]
	case LeastUsed, RandomizedLeastUsed:
		pol.Load = v[0]
	case LeastUsedDegradation, PriorityLeastUsed:
		pol.Load, pol.Degradation = v[0], v[1]
	}
	return pol, nil
}

// Policy appends a Pool Member Selection Policy parameter.
func (w *Writer) Policy(p *Policy) {
	if !p.Type.Valid() {
		w.Fail("policy type 0x%08x", uint32(p.Type))
		return
	}
	at := w.begin(uint16(TypePolicy))
	w.Uint32(uint32(p.Type))
	switch p.Type {
	case RoundRobin, Random:
	case WeightedRoundRobin, WeightedRandom:
		w.Uint32(p.Weight)
	case Priority:
		w.Uint32(p.Priority)
	case LeastUsed, RandomizedLeastUsed:
		w.Uint32(p.Load)
	case LeastUsedDegradation, PriorityLeastUsed:
		w.Uint32(p.Load)
		w.Uint32(p.Degradation)
	default:
		if len(p.Data) > policyDataMax {
			w.Fail("policy with %d octets of data", len(p.Data))
		}
		w.buf = append(w.buf, p.Data...)
	}
	w.end(at)
}
