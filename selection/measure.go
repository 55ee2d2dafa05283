package selection

import (
	"math"
	"math/bits"

	"rserpool/asap/param"
)

// measure is what the policies by load and by weight go by: a value of the
// element, which may grow each time that it is handed out. The sum stops at the
// largest number: a smaller one would make a full element look idle.
type measure struct {
	base func(param.Policy) uint64
	step func(param.Policy) uint64 // nil: none
}

// put takes over the values of a registration, which begins the count anew (RFC
// 5356, section 5.2.2).
func (m *measure) put(it *Item, p param.Policy) {
	it.base, it.step, it.served = m.base(p), 0, 0
	if m.step != nil {
		it.step = m.step(p)
	}
}

// sum is base + served x step.
func (it *Item) sum() uint64 {
	hi, added := bits.Mul64(it.served, it.step)
	sum, carry := bits.Add64(it.base, added, 0)
	if hi|carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// Measures. Values are 32 bits wide, so neither a sum of two nor a value and a product
// of two can overflow. Elements that carry another policy's parameter count as weight 1
// and 0 otherwise (AMB-38).

func weightOf(p param.Policy) uint64 {
	if p.Type.Has(param.FieldWeight) {
		return uint64(p.Weight)
	}
	return 1
}

func byPriority(p param.Policy) uint64 { return uint64(math.MaxUint32 - p.Priority) }

func load(p param.Policy) uint64 { return uint64(p.Load) }

func degradation(p param.Policy) uint64 { return uint64(p.Degradation) }

// nextLoad is the load with one more session.
func nextLoad(p param.Policy) uint64 { return uint64(p.Load) + uint64(p.Degradation) }

// distantLoad adds what the distance costs.
func distantLoad(p param.Policy) uint64 {
	return uint64(p.Load) + uint64(p.Distance)*uint64(p.Penalty)
}

// distantWeight takes off what the distance costs, at most all. The penalty is a
// fraction of one unit of weight.
func distantWeight(p param.Policy) uint64 {
	weight := weightOf(p)
	return weight - min(weight, uint64(p.Distance)*uint64(p.Penalty)/uint64(param.MaxLoad))
}

// spare is the capacity that a load leaves.
func spare(load uint64) uint64 { return uint64(param.MaxLoad) - min(load, uint64(param.MaxLoad)) }
