package selection

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"rserpool/asap/param"
)

// policies are never changed, but replaced.
type policies struct {
	all    []Definition
	byType map[param.PolicyType]*Definition
}

var (
	registry    atomic.Pointer[policies]
	registering sync.Mutex
)

func init() { registry.Store(newPolicies(standard)) }

func newPolicies(all []Definition) *policies {
	p := &policies{all: all, byType: make(map[param.PolicyType]*Definition, len(all))}
	for i := range all {
		p.byType[all[i].Type] = &all[i]
	}
	return p
}

// ErrDefinition is wrapped by errors of Register.
var ErrDefinition = errors.New("policy can't be registered")

// nameLetters are what short names are made of: they stand between colons, commas
// and equals signs.
const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789"

// Register adds a policy of a type for private use (RFC 5356, section 7.1). Its
// parameter on the wire is the type and d.Values in their order. Title and Limit
// default to Name and Unlimited, NewChooser to Round Robin, NewPicker to
// PickInOrder.
//
// Call it at the start of a program, before anything of the policy is parsed,
// received or chosen; it may be called concurrently. All registrars and users of a
// pool need the policy: who lacks it goes Round Robin (AMB-55). Errors wrap
// ErrDefinition and name all that is wrong: a name or type that is taken, a type
// that is not for private use, a name of other than lower case letters and digits.
func Register(d Definition) error {
	registering.Lock()
	defer registering.Unlock()
	if d.Title == "" {
		d.Title = d.Name
	}
	if d.Limit == 0 {
		d.Limit = Unlimited
	}
	if d.NewChooser == nil {
		d.NewChooser = newRing
	}
	if d.NewPicker == nil {
		d.NewPicker = PickInOrder
	}
	d.Values = slices.Clone(d.Values)

	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %q: "+format, append([]any{ErrDefinition, d.Name}, args...)...))
	}
	before := registry.Load()
	if d.Name == "" || strings.Trim(d.Name, nameLetters) != "" {
		fail("a name is lower case letters and digits")
	}
	for _, other := range before.all {
		for _, spelling := range d.spellings() {
			if slices.Contains(other.spellings(), spelling) {
				fail("%q stands for %s, type %#08x", spelling, other.Title, uint32(other.Type))
				break
			}
		}
	}
	if d.Limit < 0 {
		fail("the limit %d is negative", d.Limit)
	}
	if other, taken := before.byType[d.Type]; taken {
		fail("the type %#08x is that of %s", uint32(d.Type), other.Title)
	} else if !d.Type.Private() || !d.Type.Valid() {
		fail("the type %#08x is not for private use", uint32(d.Type))
	}
	if len(errs) == 0 {
		if err := param.DefinePolicy(d.Type, d.Title, d.Values...); err != nil {
			fail("%w", err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	registry.Store(newPolicies(append(slices.Clone(before.all), d)))
	return nil
}

// newChooser makes the registrar's half of a type, Round Robin for one without a
// policy of its own (AMB-55).
func newChooser(t param.PolicyType, r *rand.Rand) Chooser {
	if d, ok := registry.Load().byType[t]; ok {
		return d.NewChooser(r)
	}
	return newRing(r)
}
