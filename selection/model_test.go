package selection

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"rserpool/asap/param"
)

// A model does what a policy says in the plainest way, over a slice. check tells
// whether a reply is right and notes it as handed out.
type model interface {
	put(it *Item, p param.Policy)
	remove(it *Item)
	check(reply []*Item, n, room int) error
}

// fit returns how much of the order given is a reply.
func fit(order []*Item, n, room int) []*Item {
	for i, it := range order {
		if i >= n || it.Size > room {
			return order[:i]
		}
		room -= it.Size
	}
	return order
}

func compare(got, want []*Item) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %v, want %v", values(got), values(want))
	}
	return nil
}

func values(items []*Item) (v []any) {
	for _, it := range items {
		v = append(v, it.Value)
	}
	return v
}

// ringModel has the head at index 0.
type ringModel struct{ items []*Item }

func (m *ringModel) put(it *Item, _ param.Policy) {
	if !slices.Contains(m.items, it) {
		m.items = append(m.items, it)
	}
}

func (m *ringModel) remove(it *Item) {
	m.items = slices.DeleteFunc(m.items, func(x *Item) bool { return x == it })
}

func (m *ringModel) check(reply []*Item, n, room int) error {
	err := compare(reply, fit(m.items, n, room))
	if len(reply) > 0 {
		m.items = append(slices.Clone(m.items[1:]), m.items[0])
	}
	return err
}

// wheelModel writes down all points of all elements on the circle, and walks.
type wheelModel struct {
	joined uint64
	phase  map[*Item]uint32
	weight map[*Item]int64
	head   map[bool]*big.Rat // of the track with weights, and of that without
}

func newWheelModel() *wheelModel {
	start := big.NewRat(headFirst, 1<<32)
	return &wheelModel{phase: map[*Item]uint32{}, weight: map[*Item]int64{}, head: map[bool]*big.Rat{true: start, false: start}}
}

func (m *wheelModel) put(it *Item, p param.Policy) {
	if _, ok := m.phase[it]; !ok {
		m.phase[it] = uint32(phaseFirst + m.joined*phaseStep)
		m.joined++
	}
	m.weight[it] = int64(weightOf(p))
}

func (m *wheelModel) remove(it *Item) { delete(m.phase, it); delete(m.weight, it) }

func (m *wheelModel) check(reply []*Item, n, room int) error {
	type occurrence struct {
		at *big.Rat
		it *Item
	}
	var list []occurrence
	weighted := false
	for _, w := range m.weight {
		weighted = weighted || w > 0
	}
	for it, w := range m.weight {
		if weighted != (w > 0) {
			continue
		}
		w = max(w, 1)
		for j := range w {
			at := big.NewRat(j<<32+int64(m.phase[it]), w<<32)
			if at.Cmp(m.head[weighted]) <= 0 {
				at.Add(at, big.NewRat(1, 1)) // behind the head: a turn later
			}
			list = append(list, occurrence{at, it})
		}
	}
	slices.SortFunc(list, func(a, b occurrence) int { return a.at.Cmp(b.at) })
	var walk []*Item
	for _, o := range list {
		if !slices.Contains(walk, o.it) {
			walk = append(walk, o.it)
		}
	}
	err := compare(reply, fit(walk, n, room))
	if len(reply) > 0 {
		head := list[0].at
		if one := big.NewRat(1, 1); head.Cmp(one) >= 0 {
			head.Sub(head, one)
		}
		m.head[weighted] = head
	}
	return err
}

// drawModel accepts what a draw may give: the right number of distinct elements,
// those of weight 0 last. The chances are the statistical tests' business.
type drawModel struct {
	weight func(p param.Policy, served uint64) uint64
	items  map[*Item]*drawState
}

type drawState struct {
	policy param.Policy
	served uint64
}

func (m *drawModel) put(it *Item, p param.Policy) { m.items[it] = &drawState{policy: p} }
func (m *drawModel) remove(it *Item)              { delete(m.items, it) }

func (m *drawModel) check(reply []*Item, n, room int) error {
	seen := map[*Item]bool{}
	idle := false
	for _, it := range reply {
		s, ok := m.items[it]
		if !ok || seen[it] {
			return fmt.Errorf("%v is wrong in %v", it.Value, values(reply))
		}
		w := m.weight(s.policy, s.served)
		if w > 0 && idle {
			return fmt.Errorf("%v is too late in %v", it.Value, values(reply))
		}
		seen[it] = true
		idle = w == 0
		room -= it.Size
	}
	if room < 0 {
		return fmt.Errorf("%v takes %d too much", values(reply), -room)
	}
	largest := 0 // of those that could have come next
	for it, s := range m.items {
		if !seen[it] {
			largest = max(largest, it.Size)
			if idle && m.weight(s.policy, s.served) > 0 {
				return fmt.Errorf("%v is missing in %v", it.Value, values(reply))
			}
		}
	}
	for it := range seen {
		m.items[it].served++
	}
	if len(reply) < min(n, len(m.items)) && largest <= room {
		return fmt.Errorf("%d of %d elements, although all would fit", len(reply), min(n, len(m.items)))
	}
	return nil
}

// pairModel also wants that there was somebody of at least the load of the one that
// was taken, while there was anybody else.
type pairModel struct{ drawModel }

func (m *pairModel) check(reply []*Item, n, room int) error {
	left := maps.Clone(m.items)
	for _, it := range reply {
		if s := left[it]; s != nil && len(left) > 1 {
			delete(left, it)
			more := false
			for _, other := range left {
				more = more || other.policy.Load >= s.policy.Load
			}
			if !more {
				return fmt.Errorf("%v of load %d was the most loaded in %v", it.Value, s.policy.Load, values(reply))
			}
		}
	}
	return m.drawModel.check(reply, n, room)
}

// listModel sorts by identifier, those of weight 0 last.
type listModel struct{ weights map[*Item]uint64 }

func (m *listModel) put(it *Item, p param.Policy) { m.weights[it] = naiveWeight(p) }
func (m *listModel) remove(it *Item)              { delete(m.weights, it) }

func (m *listModel) check(reply []*Item, n, room int) error {
	order := slices.SortedFunc(maps.Keys(m.weights), func(a, b *Item) int {
		if zeroA, zeroB := m.weights[a] == 0, m.weights[b] == 0; zeroA != zeroB {
			return map[bool]int{true: 1, false: -1}[zeroA]
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return compare(reply, fit(order, n, room))
}

// sane checks that the partial sums are those of the weights.
func (c *lottery) sane() error {
	if c.sums.len() != c.items.n {
		return fmt.Errorf("%d sums for %d items", c.sums.len(), c.items.n)
	}
	level := make([]uint64, c.items.n)
	total := uint64(0)
	for i := range level {
		it := *c.items.at(i)
		if int(it.slot) != i || it.weight == 0 || *c.sums.weights.at(i) != it.weight {
			return fmt.Errorf("item %d has slot %d and weights %d, %d", i, it.slot, it.weight, *c.sums.weights.at(i))
		}
		level[i] = uint64(it.weight)
		total += level[i]
	}
	if total != c.sums.total {
		return fmt.Errorf("total is %d, want %d", c.sums.total, total)
	}
	for depth := range c.sums.nodes {
		var above []uint64
		for part := range slices.Chunk(level, fanOut) {
			sum := uint64(0)
			for _, n := range part {
				sum += n
			}
			above = append(above, sum)
		}
		if level = above; c.sums.nodes[depth].n != len(level) {
			return fmt.Errorf("level %d has %d sums, want %d", depth, c.sums.nodes[depth].n, len(level))
		}
		for i, sum := range level {
			if got := *c.sums.nodes[depth].at(i); got != sum {
				return fmt.Errorf("sum %d of level %d is %d, want %d", i, depth, got, sum)
			}
		}
	}
	if len(level) > fanOut {
		return fmt.Errorf("the highest level has %d sums", len(level))
	}
	return nil
}

// orderModel sorts anew for each reply.
type orderModel struct {
	key   func(param.Policy, uint64) uint64
	seq   int
	items map[*Item]*orderState
}

type orderState struct {
	policy param.Policy
	served uint64
	seq    int
}

func (m *orderModel) put(it *Item, p param.Policy) {
	if m.items[it] == nil {
		m.seq++
		m.items[it] = &orderState{seq: m.seq}
	}
	m.items[it].policy, m.items[it].served = p, 0
}

func (m *orderModel) remove(it *Item) { delete(m.items, it) }

func (m *orderModel) check(reply []*Item, n, room int) error {
	var order []*Item
	key := map[*Item]uint64{}
	for it, s := range m.items {
		order = append(order, it)
		key[it] = m.key(s.policy, s.served)
	}
	slices.SortFunc(order, func(a, b *Item) int {
		return cmp.Or(cmp.Compare(key[a], key[b]), cmp.Compare(m.items[a].seq, m.items[b].seq))
	})
	want := fit(order, n, room)
	for k, it := range want {
		s := m.items[it]
		first := k == 0 || key[order[k-1]] != key[it]
		if !first {
			s.served++
			if m.key(s.policy, s.served) != key[it] {
				m.seq++
				s.seq = m.seq
			}
		}
		last := k+1 == len(want) || key[order[k+1]] != key[it]
		if !last {
			continue
		}
		// The first of these equals is used as the last of them.
		head := order[slices.IndexFunc(order, func(x *Item) bool { return key[x] == key[it] })]
		s = m.items[head]
		s.served++
		shared := k+1 < len(order) && key[order[k+1]] == key[it] || head != it
		if shared || m.key(s.policy, s.served) != key[head] {
			m.seq++
			s.seq = m.seq
		}
	}
	return compare(reply, want)
}

// naiveWeight is the weight of a policy, 1 for those without.
func naiveWeight(p param.Policy) uint64 {
	switch p.Type {
	case param.WeightedRoundRobin, param.WeightedRandom, param.WeightedRandomDPF, param.RendezvousHashing:
		return uint64(p.Weight)
	}
	return 1
}

// formula is a value of an element by its definition, with numbers of any size.
type formula func(p param.Policy, served uint64) *big.Int

func number(n uint64) *big.Int { return new(big.Int).SetUint64(n) }

// plus returns load + served x degradation, with more of the two and of distances.
func plus(next, degrades, distance bool) formula {
	return func(p param.Policy, served uint64) *big.Int {
		sum := number(uint64(p.Load))
		if next {
			sum.Add(sum, number(uint64(p.Degradation)))
		}
		if degrades {
			sum.Add(sum, new(big.Int).Mul(number(served), number(uint64(p.Degradation))))
		}
		if distance {
			sum.Add(sum, new(big.Int).Mul(number(uint64(p.Distance)), number(uint64(p.Penalty))))
		}
		return sum
	}
}

// rest returns what a formula leaves of a whole, at least 0.
func rest(whole func(param.Policy) uint64, f formula) func(param.Policy, uint64) uint64 {
	return func(p param.Policy, served uint64) uint64 {
		left := new(big.Int).Sub(number(whole(p)), f(p, served))
		if left.Sign() < 0 {
			return 0
		}
		return left.Uint64()
	}
}

func newModel(t param.PolicyType) model {
	order := func(f formula) model {
		return &orderModel{items: map[*Item]*orderState{}, key: func(p param.Policy, served uint64) uint64 {
			if n := f(p, served); n.IsUint64() {
				return n.Uint64()
			}
			return math.MaxUint64
		}}
	}
	draw := func(weight func(param.Policy, uint64) uint64) *drawModel {
		return &drawModel{weight: weight, items: map[*Item]*drawState{}}
	}
	alike := func(param.Policy, uint64) uint64 { return 1 }
	full := func(param.Policy) uint64 { return math.MaxUint32 }
	nothing := func(param.Policy, uint64) *big.Int { return new(big.Int) }
	switch t {
	case param.RoundRobin:
		return &ringModel{}
	case param.WeightedRoundRobin:
		return newWheelModel()
	case param.Random, param.PeakEWMA:
		return draw(alike)
	case param.WeightedRandom:
		return draw(rest(naiveWeight, nothing))
	case param.Priority:
		return order(func(p param.Policy, _ uint64) *big.Int { return number(math.MaxUint32 - uint64(p.Priority)) })
	case param.LeastUsed:
		return order(plus(false, false, false))
	case param.LeastUsedDegradation:
		return order(plus(false, true, false))
	case param.PriorityLeastUsed:
		return order(plus(true, false, false))
	case param.RandomizedLeastUsed:
		return draw(rest(full, plus(false, false, false)))
	case param.RandomizedPriorityLeastUsed:
		return draw(rest(full, plus(true, false, false)))
	case param.RandomizedLeastUsedDegradation:
		return draw(rest(full, plus(false, true, false)))
	case param.PriorityLeastUsedDegradation:
		return order(plus(true, true, false))
	case param.RandomizedPriorityLeastUsedDegradation:
		return draw(rest(full, plus(true, true, false)))
	case param.WeightedRandomDPF:
		return draw(rest(naiveWeight, func(p param.Policy, _ uint64) *big.Int {
			cost := new(big.Int).Mul(number(uint64(p.Distance)), number(uint64(p.Penalty)))
			return cost.Div(cost, number(math.MaxUint32))
		}))
	case param.LeastUsedDPF:
		return order(plus(false, false, true))
	case param.LeastUsedDegradationDPF:
		return order(plus(false, true, true))
	case param.PowerOfTwoChoices:
		return &pairModel{*draw(alike)}
	case param.RendezvousHashing:
		return &listModel{map[*Item]uint64{}}
	}
	panic(fmt.Sprintf("no model for %v", t))
}

// choose takes a reply; one of a whole Circle by its own way.
func choose(c Chooser, n, room int) []*Item {
	circle, ok := c.(Circle)
	if !ok || n < c.Len() || room < Unlimited {
		return c.Choose(nil, n, room)
	}
	order := slices.Collect(circle.All())
	if first := circle.Turn(); len(order) > 0 && first != order[0] {
		return []*Item{first}
	}
	return order
}

// TestAgainstModel puts, removes and chooses at random, and compares each reply
// with the model's.
func TestAgainstModel(t *testing.T) {
	types := []param.PolicyType{}
	for _, d := range All() {
		types = append(types, d.Type)
	}
	for _, d := range All() {
		t.Run(d.Name, func(t *testing.T) {
			for run := range uint64(30) {
				r := rand.New(rand.NewPCG(seed, run))
				c, m := NewChooser(d.Type, r), newModel(d.Type)
				items := make([]*Item, 1+r.IntN(25))
				for i, id := range r.Perm(len(items)) {
					items[i] = &Item{Value: i, Size: 1 + r.IntN(3), ID: param.PEID(id + 1)}
				}
				in := map[*Item]bool{}
				span := uint32(1) << r.IntN(5) // small: many equals and zeros
				for step := range 400 {
					it := items[r.IntN(len(items))]
					switch r.IntN(5) {
					case 0, 1:
						p := param.Policy{Type: d.Type}
						if r.IntN(20) == 0 {
							p.Type = types[r.IntN(len(types))]
						}
						p.Weight, p.Priority = r.Uint32N(span), r.Uint32N(span)
						p.Load, p.Degradation = r.Uint32N(span), r.Uint32N(span)
						p.Penalty, p.Distance = r.Uint32N(span), r.Uint32N(span)
						for _, large := range []*uint32{&p.Load, &p.Degradation, &p.Penalty, &p.Distance} {
							if r.IntN(4) == 0 {
								*large = math.MaxUint32 - *large
							}
						}
						c.Put(it, p)
						m.put(it, p)
						in[it] = true
					case 2:
						c.Remove(it)
						m.remove(it)
						delete(in, it)
					default:
						n, room := r.IntN(len(items)+2), Unlimited
						if r.IntN(3) == 0 {
							room = r.IntN(20)
						}
						reply := choose(c, n, room)
						if err := m.check(reply, n, room); err != nil {
							t.Fatalf("run %d, step %d, %d elements in room %d: %v", run, step, n, room, err)
						}
					}
					if c.Len() != len(in) {
						t.Fatalf("run %d, step %d: %d elements, want %d", run, step, c.Len(), len(in))
					}
					if l, ok := c.(*lottery); ok {
						if err := l.sane(); err != nil {
							t.Fatalf("run %d, step %d: %v", run, step, err)
						}
					}
				}
			}
		})
	}
}
