package selection

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"rserpool/asap/param"
)

// Errors of Parse.
var (
	ErrUnknownPolicy = errors.New("unknown policy")
	ErrPolicyValue   = errors.New("bad policy value")
)

// Parse reads the notation of command lines and files: a name as ByName takes
// it, and behind colons the values of the policy, from the left as many as
// wanted; the others are neutral (weight 1, all else 0).
//
//	rr  rand  ewma                       no values
//	wrr:WEIGHT  wrand:WEIGHT  hrw:WEIGHT whole numbers from 0 to 4294967295; 0 cannot serve
//	prio:PRIORITY                        the same range; larger is preferred
//	lu:LOAD  rlu:LOAD  p2c:LOAD          a fraction from 0 (idle) to 1 (fully used)
//	lud:DEGRADATION:LOAD                 fractions: load added by one more session, load;
//	                                     plu, rplu, rlud, plud, rplud the same
//	ludpf:PENALTY:DISTANCE:LOAD          PENALTY is the load that a millisecond of DISTANCE adds
//	luddpf:DEGRADATION:PENALTY:DISTANCE:LOAD
//	wranddpf:WEIGHT:PENALTY:DISTANCE
//
// Registered policies have their values in the order of their Definition.
// Errors wrap ErrUnknownPolicy or ErrPolicyValue.
func Parse(text string) (param.Policy, error) {
	fields := strings.Split(strings.TrimSpace(text), ":")
	d, ok := ByName(fields[0])
	if !ok {
		return param.Policy{}, fmt.Errorf("%w %q: know %s", ErrUnknownPolicy, fields[0], strings.Join(Names(), ", "))
	}
	values := fields[1:]
	if len(values) > len(d.Values) {
		return param.Policy{}, fmt.Errorf("%w in %q: %s takes at most %d", ErrPolicyValue, text, d.Name, len(d.Values))
	}
	p := Neutral(d.Type)
	for i, value := range values {
		if err := parseValue(p.Field(d.Values[i]), d.Values[i], strings.TrimSpace(value)); err != nil {
			return param.Policy{}, fmt.Errorf("%w in %q: %w", ErrPolicyValue, text, err)
		}
	}
	return p, nil
}

// Format writes a policy so that Parse reads it back exactly. A load of 0 at the end
// is left out. A type that Parse does not know is written as a number, and so is one
// whose parameter is a misfit: its values are not known.
func Format(p param.Policy) string {
	d, ok := Lookup(p.Type)
	if !ok || p.Misfit {
		return fmt.Sprintf("0x%08x", uint32(p.Type))
	}
	var b strings.Builder
	b.WriteString(d.Name)
	for i, v := range d.Values {
		if v != Load || p.Load != 0 || i+1 < len(d.Values) {
			b.WriteByte(':')
			b.WriteString(formatValue(*p.Field(v), v))
		}
	}
	return b.String()
}

// Names returns the short names of all policies.
func Names() []string {
	var names []string
	for _, d := range registry.Load().all {
		names = append(names, d.Name)
	}
	return names
}

// fraction tells whether the value is on the load scale.
func fraction(v Value) bool { return v == Load || v == Degradation || v == Penalty }

func parseValue(to *uint32, v Value, text string) error {
	if fraction(v) {
		n, err := ParseFraction(text)
		if err != nil {
			return fmt.Errorf("%v: %w", v, err)
		}
		*to = n
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%v %q is not a whole number from 0 to %d", v, text, uint32(math.MaxUint32))
	}
	*to = uint32(n)
	return nil
}

func formatValue(n uint32, v Value) string {
	if fraction(v) {
		return FormatFraction(n)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// ParseFraction reads a number from 0 to 1 as a value of the load scale, 0 to
// param.MaxLoad, to the nearest.
func ParseFraction(text string) (uint32, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return 0, fmt.Errorf("%q is not a fraction from 0 to 1", text)
	}
	return uint32(math.Round(f * float64(param.MaxLoad))), nil
}

// FormatFraction writes a value of the load scale as the shortest decimal
// fraction that ParseFraction reads back.
func FormatFraction(v uint32) string {
	f := float64(v) / float64(param.MaxLoad)
	for digits := 1; ; digits++ {
		text := strconv.FormatFloat(f, 'f', digits, 64)
		if back, err := ParseFraction(text); err == nil && back == v || digits == 12 {
			if strings.Contains(text, ".") {
				text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
			}
			return text
		}
	}
}
