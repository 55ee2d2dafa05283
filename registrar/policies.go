package registrar

import (
	"fmt"
	"slices"
	"strings"

	"rserpool/asap/param"
	"rserpool/selection"
)

// PolicyRule says which policy types elements that come to certain pools may have.
// Exactly one of Allow, Forbid and Pin is set.
//
// A registration of another type is refused. So the rule holds where a registration
// is accepted, not in the handlespace: members of a ring whose rules differ stay
// equal, and each refuses by its own. Elements that are in a pool already may register
// again, and what other registrars have accepted is taken as it is. Where a pool has a
// type that its rule does not allow, because it is older than the rule or came from
// elsewhere, no element joins it until it is empty.
type PolicyRule struct {
	// Pools is the pool handle; '*' stands for any octets, also none. Of several
	// rules the first that matches counts.
	Pools string
	// Allow lists the types that may be. Others are refused with cause 0x3,
	// Invalid Values, and the policy, like one that the registrar lacks.
	Allow []param.PolicyType
	// Forbid lists the types that may not be; cause 0x3.
	Forbid []param.PolicyType
	// Pin is the one type that may be. Others are refused with cause 0x5,
	// Inconsistent Pooling Policy, which tells the element this type.
	Pin param.PolicyType
}

// matches reports whether the rule is for a pool.
func (r *PolicyRule) matches(handle param.PoolHandle) bool {
	first, pattern, several := strings.Cut(r.Pools, "*")
	if !several {
		return string(handle) == first
	}
	rest, ok := strings.CutPrefix(string(handle), first)
	if !ok {
		return false
	}
	last := strings.LastIndexByte(pattern, '*') + 1
	rest, ok = strings.CutSuffix(rest, pattern[last:])
	if !ok {
		return false
	}
	for part := range strings.SplitSeq(pattern[:last], "*") {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return true
}

// refuse returns why an element may not have the policy, nil if it may.
func (r *PolicyRule) refuse(p param.Policy) param.OperationError {
	switch {
	case r.Pin != 0 && r.Pin != p.Type:
		return param.OperationError{param.PolicyCause(param.CauseInconsistentPolicy, selection.Neutral(r.Pin))}
	case r.Allow != nil && !slices.Contains(r.Allow, p.Type), slices.Contains(r.Forbid, p.Type):
		return param.OperationError{param.PolicyCause(param.CauseInvalidValues, p)}
	}
	return nil
}

// validatePolicies names all that is wrong with the rules.
func validatePolicies(rules []PolicyRule, check func(ok bool, format string, args ...any)) {
	for i, r := range rules {
		check(r.Pools != "", "policies: rule %d names no pools", i+1)
		ways := 0
		for _, set := range []bool{r.Allow != nil, r.Forbid != nil, r.Pin != 0} {
			if set {
				ways++
			}
		}
		check(ways == 1, "policies for %q: want exactly one of allow, forbid and pin", r.Pools)
		for _, list := range [][]param.PolicyType{r.Allow, r.Forbid} {
			check(list == nil || len(list) > 0, "policies for %q: an empty list", r.Pools)
		}
		types := slices.Concat(r.Allow, r.Forbid)
		if r.Pin != 0 {
			types = append(types, r.Pin)
		}
		for k, t := range types {
			_, known := selection.Lookup(t)
			check(known, "policies for %q: there is no policy %#08x", r.Pools, uint32(t))
			check(!slices.Contains(types[:k], t), "policies for %q: %v twice", r.Pools, t)
		}
		for _, earlier := range rules[:i] {
			if r.Pools != "" && earlier.matches(param.PoolHandle(r.Pools)) {
				check(false, "policies for %q: never used, the rule for %q comes first", r.Pools, earlier.Pools)
				break
			}
		}
	}
}

// policyRefusal returns why the policy of an element that registers here is not
// accepted, nil if it is. A difference from the pool's policy is not judged: that is
// the handlespace's, which knows the order of things.
func (r *Registrar) policyRefusal(handle param.PoolHandle, e *param.PoolElement) param.OperationError {
	if e.Policy.Misfit {
		return param.OperationError{param.PolicyCause(param.CauseInvalidValues, e.Policy)}
	}
	var refused param.OperationError
	rules := r.config().Policies
	for i := range rules {
		if rule := &rules[i]; rule.matches(handle) {
			refused = rule.refuse(e.Policy)
			break
		}
	}
	if _, known := selection.Lookup(e.Policy.Type); refused == nil && known {
		return nil
	}
	switch pool, exists := r.space.Pool(handle); {
	case !exists && refused == nil: // AMB-55
		return param.OperationError{param.PolicyCause(param.CauseInvalidValues, e.Policy)}
	case exists && (pool.Policy != e.Policy.Type || r.space.Get(handle, e.ID) != nil):
		return nil
	}
	return refused
}

// String writes the rule as the daemon's configuration has it.
func (r PolicyRule) String() string {
	names := func(types ...param.PolicyType) string {
		var out []string
		for _, t := range types {
			if d, ok := selection.Lookup(t); ok {
				out = append(out, d.Name)
			} else {
				out = append(out, fmt.Sprintf("%#08x", uint32(t)))
			}
		}
		return strings.Join(out, ",")
	}
	switch {
	case r.Pin != 0:
		return r.Pools + "=pin:" + names(r.Pin)
	case r.Allow != nil:
		return r.Pools + "=allow:" + names(r.Allow...)
	}
	return r.Pools + "=forbid:" + names(r.Forbid...)
}
