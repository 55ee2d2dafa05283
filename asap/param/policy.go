package param

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// PolicyField names one of the 32-bit values that policy parameters have.
type PolicyField uint8

// The values of the known policies.
const (
	FieldWeight      PolicyField = iota // Policy.Weight
	FieldPriority                       // Policy.Priority
	FieldDegradation                    // Policy.Degradation
	FieldLoad                           // Policy.Load
	FieldPenalty                        // Policy.Penalty
	FieldDistance                       // Policy.Distance
	policyFields
)

// String names the value as messages do.
func (f PolicyField) String() string {
	return [...]string{"weight", "priority", "degradation", "load", "penalty", "distance"}[f]
}

// Field returns where the policy keeps a value.
func (p *Policy) Field(f PolicyField) *uint32 {
	switch f {
	case FieldWeight:
		return &p.Weight
	case FieldPriority:
		return &p.Priority
	case FieldDegradation:
		return &p.Degradation
	case FieldLoad:
		return &p.Load
	case FieldPenalty:
		return &p.Penalty
	}
	return &p.Distance
}

// Formats: the values behind the type, in the order of the wire.
var (
	formatNone            = []PolicyField{}
	formatWeight          = []PolicyField{FieldWeight}
	formatPriority        = []PolicyField{FieldPriority}
	formatLoad            = []PolicyField{FieldLoad}
	formatDegrading       = []PolicyField{FieldLoad, FieldDegradation}
	formatDistantWeight   = []PolicyField{FieldWeight, FieldPenalty, FieldDistance}
	formatDistantLoad     = []PolicyField{FieldLoad, FieldPenalty, FieldDistance}
	formatDistantDegraded = []PolicyField{FieldLoad, FieldDegradation, FieldPenalty, FieldDistance}
)

// Format returns the values of the type's parameter in the order of the wire, not to
// be changed, and false if the type has no known format.
func (t PolicyType) Format() ([]PolicyField, bool) {
	switch t {
	case RoundRobin, Random, PeakEWMA:
		return formatNone, true
	case WeightedRoundRobin, WeightedRandom, RendezvousHashing:
		return formatWeight, true
	case Priority:
		return formatPriority, true
	case LeastUsed, RandomizedLeastUsed, PowerOfTwoChoices:
		return formatLoad, true
	case LeastUsedDegradation, PriorityLeastUsed, RandomizedPriorityLeastUsed, RandomizedLeastUsedDegradation,
		PriorityLeastUsedDegradation, RandomizedPriorityLeastUsedDegradation:
		return formatDegrading, true
	case WeightedRandomDPF:
		return formatDistantWeight, true
	case LeastUsedDPF:
		return formatDistantLoad, true
	case LeastUsedDegradationDPF:
		return formatDistantDegraded, true
	}
	if defined := definedPolicies.Load(); defined != nil {
		d, ok := (*defined)[t]
		return d.format, ok
	}
	return nil, false
}

// definedPolicies are those of DefinePolicy. The map is never changed, but replaced.
var (
	definedPolicies atomic.Pointer[map[PolicyType]definedPolicy]
	defining        sync.Mutex
)

type definedPolicy struct {
	name   string
	format []PolicyField
}

// ErrPolicyType is wrapped by errors of DefinePolicy.
var ErrPolicyType = errors.New("policy type can't be defined")

// DefinePolicy gives a type for private use (RFC 5356, section 7.1) a name and the
// format of its parameter: the values behind the type in the order of the wire.
// Parameters of other lengths are misfits (Policy.Misfit). It is for the start of a
// program, before a parameter of the type is decoded; it may be called
// concurrently. Errors wrap ErrPolicyType: the type is not for private use or has a
// format already, or a value occurs twice.
func DefinePolicy(t PolicyType, name string, format ...PolicyField) error {
	defining.Lock()
	defer defining.Unlock()
	if !t.Private() || !t.Valid() {
		return fmt.Errorf("%w: %#08x is not for private use", ErrPolicyType, uint32(t))
	}
	if _, known := t.Format(); known {
		return fmt.Errorf("%w: %#08x is %q already", ErrPolicyType, uint32(t), t)
	}
	for i, f := range format {
		if f >= policyFields || slices.Contains(format[:i], f) {
			return fmt.Errorf("%w: %#08x has a value twice or one that is unknown", ErrPolicyType, uint32(t))
		}
	}
	defined := map[PolicyType]definedPolicy{}
	if before := definedPolicies.Load(); before != nil {
		defined = maps.Clone(*before)
	}
	defined[t] = definedPolicy{name, slices.Clone(format)}
	definedPolicies.Store(&defined)
	return nil
}

// Standard reports whether the type is one of the nine of RFC 5356.
func (t PolicyType) Standard() bool {
	_, known := t.Format()
	return known && !t.Private()
}

// Has reports whether parameters of the type have the value.
func (t PolicyType) Has(f PolicyField) bool {
	format, _ := t.Format()
	return slices.Contains(format, f)
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

// Policy decodes a Pool Member Selection Policy parameter. A private one of a length
// that its type has not is no error: who sent it may not know the type, or know it for
// something else, and members of a ring have to store what one of them has accepted.
func (p Param) Policy() (Policy, error) {
	if len(p.value()) < 4 {
		return Policy{}, Invalid(p.raw, "policy of %d octets", len(p.raw))
	}
	pol := Policy{Type: PolicyType(binary.BigEndian.Uint32(p.value()))}
	data := p.value()[4:]
	if !pol.Type.Valid() {
		return Policy{}, Invalid(p.raw, "policy type 0x%08x", uint32(pol.Type))
	}
	format, known := pol.Type.Format()
	fits := len(data) == 4*len(format)
	if known && !fits && !pol.Type.Private() {
		return Policy{}, Invalid(p.raw, "%s policy of %d octets", pol.Type, len(p.raw))
	}
	if !known || !fits {
		pol.Misfit, pol.Data = known, string(data)
		return pol, nil
	}
	for i, f := range format {
		*pol.Field(f) = binary.BigEndian.Uint32(data[4*i:])
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
	if format, known := p.Type.Format(); known && !p.Misfit {
		for _, f := range format {
			w.Uint32(*p.Field(f))
		}
	} else {
		if len(p.Data) > policyDataMax {
			w.Fail("policy with %d octets of data", len(p.Data))
		}
		w.buf = append(w.buf, p.Data...)
	}
	w.end(at)
}
