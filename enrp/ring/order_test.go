package ring

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCycle(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
		cut  [][2]int
		want []int
	}{
		{"one", 1, nil, []int{0}},
		{"two", 2, nil, []int{0, 1}},
		{"two apart", 2, [][2]int{{0, 1}}, nil},
		{"in order", 4, nil, []int{0, 1, 2, 3}},
		{"around a cut", 4, [][2]int{{0, 1}}, []int{0, 2, 1, 3}},
		{"around two", 5, [][2]int{{0, 1}, {1, 2}}, []int{0, 2, 3, 1, 4}},
		{"no way", 3, [][2]int{{1, 2}}, nil},
		{"one at the edge", 4, [][2]int{{0, 1}, {1, 2}}, nil},
	} {
		links := allLinked(tt.n)
		for _, c := range tt.cut {
			links[c[0]][c[1]], links[c[1]][c[0]] = false, false
		}
		if got := cycle(links); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func allLinked(n int) [][]bool {
	links := make([][]bool, n)
	for a := range links {
		links[a] = make([]bool, n)
		for b := range links {
			links[a][b] = a != b
		}
	}
	return links
}

// A cycle that is found is one; and none is missed, by comparison with all orders.
func TestCycleAgainstAllOrders(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n := 2 + r.IntN(5)
		links := allLinked(n)
		for a := range n {
			for b := range a {
				if r.IntN(3) == 0 {
					links[a][b], links[b][a] = false, false
				}
			}
		}
		valid := func(path []int) bool {
			for i, at := range path {
				if n > 1 && !links[at][path[(i+1)%n]] {
					return false
				}
			}
			return true
		}
		exists := false
		var orders func(path []int)
		orders = func(path []int) {
			if len(path) == n {
				exists = exists || valid(path)
				return
			}
			for next := 1; next < n; next++ {
				if !slices.Contains(path, next) {
					orders(append(slices.Clone(path), next))
				}
			}
		}
		orders([]int{0})
		got := cycle(links)
		if (got != nil) != exists || got != nil && !valid(got) {
			t.Fatalf("%v: %v, exists %v", links, got, exists)
		}
	}
}

func TestCycleGivesUp(t *testing.T) {
	// Two halves that only one link joins: no cycle, and too many ways to try.
	links := allLinked(32)
	for a := range 16 {
		for b := 16; b < 32; b++ {
			if a != 0 || b != 16 {
				links[a][b], links[b][a] = false, false
			}
		}
	}
	if got := cycle(links); got != nil {
		t.Errorf("%v", got)
	}
}
