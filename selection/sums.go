package selection

// fanOut is how many sums a node of sums adds up: those of one node lie side by side,
// so that a search looks at few places in memory.
const fanOut = 16

// sums is a tree of partial sums over weights that are numbered from 0.
type sums struct {
	weights array[uint32]
	nodes   []array[uint64] // nodes[0] adds up weights, each further level the one before
	total   uint64          // of at most 2^32 weights of less than 2^32 each
}

func (s *sums) len() int { return s.weights.n }

// push adds a weight at the end.
func (s *sums) push(weight uint32) {
	s.weights.push(0)
	for n, level := s.weights.n, 0; n > fanOut; level++ {
		n = (n + fanOut - 1) / fanOut
		if level == len(s.nodes) {
			s.nodes = append(s.nodes, array[uint64]{})
			s.nodes[level].push(s.total) // what has been in one node
		}
		if s.nodes[level].n < n {
			s.nodes[level].push(0)
		}
	}
	s.add(s.weights.n-1, uint64(weight))
}

// pop takes the last weight out.
func (s *sums) pop() {
	s.set(s.weights.n-1, 0)
	s.weights.pop()
	n := s.weights.n
	for level := range s.nodes {
		if n = (n + fanOut - 1) / fanOut; s.nodes[level].n > n {
			s.nodes[level].pop()
		}
	}
	for top := len(s.nodes) - 1; top >= 0 && s.nodes[top].n < 2; top-- {
		s.nodes = s.nodes[:top]
	}
}

// set changes the weight at i.
func (s *sums) set(i int, weight uint32) {
	s.add(i, uint64(weight)-uint64(*s.weights.at(i)))
}

// add adds delta, which may be a negative number in two's complement.
func (s *sums) add(i int, delta uint64) {
	*s.weights.at(i) += uint32(delta)
	for level := range s.nodes {
		i /= fanOut
		*s.nodes[level].at(i) += delta
	}
	s.total += delta
}

// find returns the place at which the running sum of the weights passes draw, which
// is less than total.
func (s *sums) find(draw uint64) int {
	at, i := 0, 0
	for level := len(s.nodes) - 1; level >= 0; level-- {
		i, draw = pass(s.nodes[level].few(at, fanOut), draw)
		at = (at + i) * fanOut
	}
	i, _ = pass(s.weights.few(at, fanOut), draw)
	return at + i
}

// findAll does what find does for several draws, level by level: it reads the nodes for
// all of them before it looks into the first, so that it waits for their memory at once.
// What it returns besides the places means nothing, but that it was read.
func (s *sums) findAll(draws [lotsAhead]uint64) (places [lotsAhead]int, touched uint64) {
	var i int
	for level := len(s.nodes) - 1; level >= 0; level-- {
		for _, at := range places {
			node := s.nodes[level].few(at, fanOut)
			touched += node[0] + node[len(node)-1] // which are two lines of the cache
		}
		for j, at := range places {
			i, draws[j] = pass(s.nodes[level].few(at, fanOut), draws[j])
			places[j] = (at + i) * fanOut
		}
	}
	for _, at := range places {
		touched += uint64(*s.weights.at(at))
	}
	for j, at := range places {
		i, _ = pass(s.weights.few(at, fanOut), draws[j])
		places[j] = at + i
	}
	return places, touched
}

// pass returns the first of some numbers at which their running sum passes draw, and what
// is left of draw there.
func pass[N uint32 | uint64](numbers []N, draw uint64) (int, uint64) {
	for i, n := range numbers {
		if draw < uint64(n) {
			return i, draw
		}
		draw -= uint64(n)
	}
	panic("selection: sums are wrong")
}
