package ring

import (
	"slices"

	"rserpool/enrp/ring/internal/fault"
)

// order puts the nodes of a new view, this member first, in such an order that
// neighbours hear each other both ways, by identifiers where that is possible.
// Who can't be placed is left out.
func (m *Machine) order(list []Node) []Node {
	list = slices.Clone(list)
	slices.SortFunc(list[1:], func(a, b Node) int { return a.Compare(b.Member) })
	if m.faults.Has(fault.OneWayNeighbours | fault.PromiseToDeafCaller) {
		return list
	}
	links := m.links(list)
	for {
		if path := cycle(links); path != nil {
			ordered := make([]Node, len(list))
			for i, at := range path {
				ordered[i] = list[at]
			}
			return ordered
		}
		worst := 1
		for i := range links {
			if i > 0 && degree(links[i]) <= degree(links[worst]) {
				worst = i
			}
		}
		list = slices.Delete(list, worst, worst+1)
		links = slices.Delete(links, worst, worst+1)
		for i := range links {
			links[i] = slices.Delete(links[i], worst, worst+1)
		}
	}
}

// links says who of the list hears whom both ways, by the answers that are there.
func (m *Machine) links(list []Node) [][]bool {
	place := make(map[Member]int, len(list))
	for i, n := range list {
		place[n.Member] = i
	}
	heard := make([][]bool, len(list))
	for a, n := range list {
		heard[a] = make([]bool, len(list))
		if p := m.ask.answers[n.Member]; p != nil {
			for _, member := range p.Heard {
				if b, ok := place[member]; ok {
					heard[a][b] = true
				}
			}
		}
	}
	links := make([][]bool, len(list))
	for a := range list {
		links[a] = make([]bool, len(list))
		for b := range list {
			// Who answered a question of this member, the first, hears it and is
			// heard.
			links[a][b] = a != b && (a == 0 || b == 0 || heard[a][b] && heard[b][a])
		}
	}
	return links
}

func degree(row []bool) int {
	n := 0
	for _, linked := range row {
		if linked {
			n++
		}
	}
	return n
}

// maxSteps bounds the search for a cycle; views are small.
const maxSteps = 20_000

// cycle finds a way over all places, begun at the first and back to it, that goes
// along links only; the first one in the order of places. Two places need one link.
func cycle(links [][]bool) []int {
	n, steps := len(links), 0
	path, used := []int{0}, make([]bool, n)
	var walk func() bool
	walk = func() bool {
		last := path[len(path)-1]
		if len(path) == n {
			return n == 1 || links[last][0]
		}
		for next := 1; next < n; next++ {
			if steps++; steps > maxSteps {
				return false
			}
			if used[next] || !links[last][next] {
				continue
			}
			used[next], path = true, append(path, next)
			if walk() {
				return true
			}
			used[next], path = false, path[:len(path)-1]
		}
		return false
	}
	if !walk() {
		return nil
	}
	return path
}
